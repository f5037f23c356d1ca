"""Running a sequence of stages; killed and called again, it goes on after the last finished one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput
from peftkit.record import Record, write_atomically
from peftkit.reporting.pairing import Metric
from peftkit.stages.carrying import Carry, as_left, backbone_after, merge, settle_carry
from peftkit.stages.matrix import StageMatrix

if TYPE_CHECKING:
    from peftkit.recipe import Recipe
    from peftkit.tasks import Progress

PLAN, SCORES, MATRIX, TABLE = "sequence.json", "scores.json", "matrix.json", "matrix.md"


def sequence(
    recipes: Sequence[Recipe],
    *,
    carry: str | None = None,
    out: Path | str,
    progress: Progress | None = None,
) -> StageMatrix:
    """Adapt one model to one data set after the other, and score each stage on all earlier ones.

    An earlier data set is scored with the head of its own stage on body and adapter as the later
    stage left them; where all stages since have the very same classes, one head serves them all.
    The bare backbone is scored as the method `none` does.

    Args:
        recipes: One a stage, on one backbone.
        carry: What a stage hands to the next: "full" (the whole model), "new_adapter" (the adapter
            folded into the backbone, and a new one on it) or "same_adapter" (training goes on with
            the adapter); None: the first of these that the methods can.
        out: Folder for the stages (`stage-1`, ...: runs as `peftkit run` leaves them), the bare
            backbone's (`bare-1`, ...), `matrix.json` and `matrix.md`. If a part of this very
            sequence is there, it goes on from it.
        progress: Told how far what is being done is.

    Raises:
        InvalidInput: The recipes are no sequence, or `out` holds another one.
        Unsupported: The methods leave nothing that could be carried on in that way.
    """
    running = _Running(
        recipes=tuple(recipes),
        carry=settle_carry(recipes, carry),
        out=Path(out),
        progress=progress,
    )
    running.claim()
    return running.run()


@dataclass(kw_only=True)
class _Running:
    """A sequence at work."""

    recipes: tuple[Recipe, ...]
    carry: Carry
    out: Path
    progress: Progress | None
    tests: dict[int, Any] = field(default_factory=dict)

    @cached_property
    def folders(self) -> list[Path]:
        return [self.out / f"stage-{number}" for number, _ in enumerate(self.recipes, start=1)]

    def claim(self) -> None:
        """Write down what is run here, or see that it is the same as before."""
        plan = {"carry": self.carry, "recipes": [recipe.to_dict() for recipe in self.recipes]}
        path = self.out / PLAN
        if not path.is_file():
            write_atomically(path, json.dumps(plan, indent=2) + "\n")
        elif json.loads(path.read_text(encoding="utf-8")) != plan:
            raise InvalidInput(
                f"{self.out} holds another sequence",
                allowed=f"the recipes of {path}, in their order, and the same carry",
                next_step="name another folder with --out, or delete this one",
            )

    def run(self) -> StageMatrix:
        bare = [self._bare(number) for number in range(len(self.recipes))]
        records, scores = [], []
        for number, folder in enumerate(self.folders):
            records.append(self._stage(number))
            if self.carry == "new_adapter":
                merge(folder)
            scores.append(self._scores(number, records))
        matrix = StageMatrix(
            carry=self.carry,
            backbone=self.recipes[0].backbone.name,
            methods=tuple(record.method for record in records),
            datasets=self._names(),
            metrics=tuple(Metric(r.task.metric, r.task.higher_is_better) for r in self.recipes),
            chance=tuple(record.data["chance"] for record in bare),
            bare=tuple(self._metric(number, record) for number, record in enumerate(bare)),
            scores=tuple(scores),
            costs=tuple(record.costs for record in records),
        )
        from peftkit.stages.report import to_markdown

        write_atomically(self.out / MATRIX, json.dumps(matrix.to_dict(), indent=2) + "\n")
        write_atomically(self.out / TABLE, to_markdown(matrix))
        return matrix

    def _names(self) -> tuple[str, ...]:
        """Data sets by the last part of their names, with the stage where that is not enough."""
        names = [Path(recipe.task.data).name for recipe in self.recipes]
        return tuple(
            f"{name} ({number})" if names.count(name) > 1 else name
            for number, name in enumerate(names, start=1)
        )

    def _metric(self, number: int, record: Record) -> float:
        return float(record.metrics["test"][self.recipes[number].task.metric])

    # ---- running

    def _bare(self, number: int) -> Record:
        """The record of the backbone without training on one of the data sets."""
        folder = self.out / f"bare-{number + 1}"
        return self._finished(self.recipes[number].override({"method": "none"}), folder)

    def _stage(self, number: int) -> Record:
        """The record of a stage, which starts from the one before it."""
        recipe, start = self.recipes[number], None
        if number and self.carry == "same_adapter":
            start = self.folders[number - 1]
        elif number:
            before = str(backbone_after(self.folders[number - 1], self.carry))
            recipe = recipe.override({"backbone.name": before, "backbone.revision": None})
        return self._finished(recipe, self.folders[number], start)

    def _finished(self, recipe: Recipe, folder: Path, start: Path | None = None) -> Record:
        """The record of a run: that in `folder`, or of running it now."""
        from peftkit.pipeline import run

        if (folder / "record.json").is_file():
            return Record.read(folder / "record.json")
        return run(recipe, folder, progress=self.progress, start_from=start)

    # ---- scoring

    def _scores(self, stage: int, records: Sequence[Record]) -> tuple[float | None, ...]:
        """After a stage: one score for each data set so far, None for those to come."""
        path = self.folders[stage] / SCORES
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            found = [self._score(stage, data) for data in range(stage)]
            found.append(self._metric(stage, records[stage]))
            write_atomically(path, json.dumps(found) + "\n")
        return (*found, *[None] * (len(self.recipes) - len(found)))

    def _score(self, stage: int, data: int) -> float:
        """The score after a stage on an earlier data set."""
        earlier = as_left(self.folders[data : stage + 1], self.carry)
        task = earlier.recipe.task
        if data not in self.tests:
            self.tests[data] = task.load(seed=earlier.recipe.seed).test
        test = self.tests[data]
        _, metrics = task.score(earlier.predictor.outputs(test, self.progress), test)
        return float(metrics[task.metric])
