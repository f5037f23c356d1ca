"""One backbone and one task of a study: its searches, its looks, and what is run next.

What is run next is a function of the records, so a study that was killed goes on where it stopped,
to the same verdict.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftkit.errors import InvalidInput
from peftkit.recipe import Recipe
from peftkit.record import Record, write_atomically
from peftkit.reporting.pairing import Metric
from peftkit.reporting.summary import summarise
from peftkit.statistics.power import ALPHA
from peftkit.study import rates
from peftkit.study.comparison import Comparison
from peftkit.study.execution import Engine
from peftkit.study.folder import StudyFolder
from peftkit.study.grid import Facts
from peftkit.study.inputs import Inputs
from peftkit.study.lock import folder_lock
from peftkit.study.planning import Plan, make_plan
from peftkit.study.rates import Trial
from peftkit.study.running import PRELOAD, RUN_CELL, run_recipes
from peftkit.verdict import FEWEST_SEEDS, Look, Verdict
from peftkit.verdict.from_table import CHEAPER, DESIGN_FILE, Judged, judge_tables
from peftkit.verdict.results import no_margin

if TYPE_CHECKING:
    from peftkit.study.study import Study

SEARCH = "search"
Labelled = tuple[str, Recipe]
"""A method as the user wrote it, and one of its recipes."""
Place = tuple[str, int | None, float]
"""Method, size and label noise: what seeds of a cell share."""
OnPlan = Callable[[Plan], None]
RecordsOf = Callable[..., list[Record]]
"""Runs labelled recipes in a folder, if they have no records yet, and returns these in order."""


@dataclass(frozen=True)
class Pair:
    """One backbone and one task of a study, with a folder of their own."""

    study: Study
    backbone: Any
    task: Any
    out: Path

    def __post_init__(self) -> None:
        found = self._comparison(self._seeds).recipes  # raises what is wrong
        rungs = {recipe.method.rung for _, recipe in found}
        if "full" not in rungs or not rungs.intersection(CHEAPER):
            raise InvalidInput(
                "a study compares full fine-tuning with cheaper methods",
                received=f"the methods {', '.join(self.study.methods)}",
                allowed="full, and one or more such as none, linear_probe, bitfit, lora",
                next_step="add what is missing, or use peftkit compare",
            )
        metric = Metric(found[0][1].task.metric)
        if self.study.margin is None and not metric.is_share:
            raise no_margin(f"the study of {self.out.name}", metric.name)

    @property
    def _seeds(self) -> list[int]:
        study = self.study
        seeds = FEWEST_SEEDS if study.seeds is None else study.seeds
        seeds = study.looks[-1].seeds if study.adaptive else seeds
        return list(range(seeds)) if isinstance(seeds, int) else list(seeds)

    def run(
        self,
        *,
        function: str = RUN_CELL,
        facts: Callable[[Recipe], Facts] | None = None,
        preload: Sequence[str] = PRELOAD,
        quiet: bool = False,
    ) -> list[Verdict]:
        """Search, run, look, and go on where it is open; no verdicts where full never ended well.

        Raises:
            FolderBusy: Another study writes into the folder.
        """
        study = self.study

        def records_of(
            recipes: list[Labelled], out: Path, on_plan: OnPlan = lambda plan: None
        ) -> list[Record]:
            return run_recipes(
                recipes, out=out, workers=study.workers, keep_weights=study.keep_weights,
                force=study.force, engine=Engine(study.engine, study.address),
                function=function, facts=facts, preload=preload, quiet=quiet, on_plan=on_plan,
            )  # fmt: skip

        StudyFolder(self.out).make()
        with folder_lock(self.out, ".study.lock"):
            return [verdict for _, verdict in self._looks(records_of)]

    def _looks(self, records_of: RecordsOf) -> list[Judged]:
        """The verdicts after the last look that there is a need for."""
        study = self.study
        chosen = self._search(records_of)
        everything = self._recipes(self._seeds, chosen)
        asked: list[Labelled] = []
        skipped: list[Labelled] = []
        found: list[Judged] = []
        closed: set[Place] = set()
        before = 0

        def write_design(plan: Plan) -> None:  # whoever stops it here has a study up to here
            self._write_design(skipped, [cell.key for cell in plan.cells])

        for look in study.looks or (Look(len(self._seeds), ALPHA),):
            new = set(self._seeds[before : look.seeds])
            for pair in everything:
                if pair[1].seed in new:
                    (skipped if _place(*pair) in closed else asked).append(pair)
            before = look.seeds
            records = records_of(asked, self.out, write_design)
            found = judge_tables(summarise(records), study.margin, study.looks)
            if not found:
                break  # more seeds would not help
            places = {r.key: _place(*pair) for r, pair in zip(records, asked, strict=True)}
            closed = _closed(found, places)
        return found

    def plan(self, *, facts: Callable[[Recipe], Facts] | None = None) -> list[Plan]:
        """What `run` would do at least: trials of learning rates, then cells up to the first look.

        Nothing is written or run. Where rates are still to be tried, cells are at their defaults.
        """
        study = self.study
        seeds = self._seeds[: study.looks[0].seeds] if study.looks else self._seeds
        trials = [(_trial_label(trial), trial.recipe) for trial in self._trials()]
        cells = self._recipes(seeds, rates.read_chosen(self.out) if trials else {})
        return [
            make_plan(
                recipes, StudyFolder(folder), facts=facts or Inputs(), workers=study.workers,
                keep_weights=study.keep_weights,
            )
            for recipes, folder in ((trials, self.out / SEARCH), (cells, self.out))
            if recipes
        ]  # fmt: skip

    def _trials(self) -> list[Trial]:
        study = self.study
        by_place = {
            (label, recipe.task.size): recipe
            for label, recipe in self._grid(self._seeds[:1])
            if recipe.task.label_noise == study.noises[0]
        }
        return rates.trials_of(
            list(dict.fromkeys(study.methods)), self._searched,
            lambda label, size: by_place[label, size], study.trials,
        )  # fmt: skip

    def _search(self, records_of: RecordsOf) -> dict[tuple[str, int | None], float]:
        found = self._trials()
        if not found:
            rates.forget(self.out)  # of a study with a search that was here before
            return {}
        search = self.out / SEARCH
        records = records_of([(_trial_label(trial), trial.recipe) for trial in found], search)
        chosen = rates.choose(found, records, self.out)
        cells = [r for t, r in zip(found, records, strict=True)
                 if chosen.get((t.label, t.size)) == t.rate]  # fmt: skip
        rates.take_over(cells, records, search, self.out)
        return chosen

    @property
    def _searched(self) -> list[int | None]:
        """Sizes at which rates are tried."""
        study = self.study
        return _numbers(study.sizes if study.search_at is None else [study.search_at])

    def _recipes(
        self, seeds: list[int], chosen: dict[tuple[str, int | None], float]
    ) -> list[Labelled]:
        """Every cell, at the rate that was chosen."""
        found = []
        for label, recipe in self._grid(seeds):
            searched = self._searched
            size = recipe.task.size if recipe.task.size in searched else searched[0]
            rate = chosen.get((label, size))
            if rate is not None and rate != recipe.learning_rate:
                recipe = recipe.override({"training.learning_rate": rate})
            found.append((label, recipe))
        return found

    def _grid(self, seeds: list[int]) -> list[Labelled]:
        """Every cell at its default rate, with the steps of its size."""
        study = self.study
        sizes = _numbers(study.sizes)
        steps = dict(zip(sizes, study.steps or (), strict=False))
        noisy = sizes if study.noise_at is None else _numbers(study.noise_at)
        return [
            (
                label,
                recipe.override({"training.steps": steps[recipe.task.size]}) if steps else recipe,
            )
            for label, recipe in self._comparison(seeds).recipes
            if recipe.task.label_noise == study.noises[0] or recipe.task.size in noisy
        ]

    def _comparison(self, seeds: list[int]) -> Comparison:
        study = self.study
        return Comparison(
            methods=study.methods, task=self.task, backbone=self.backbone,
            training=study.training, options=study.options, sizes=study.sizes, seeds=seeds,
            noises=study.noises, out=self.out, workers=study.workers,
            keep_weights=study.keep_weights, force=study.force, engine=study.engine,
            address=study.address,
        )  # fmt: skip

    def _write_design(self, skipped: list[Labelled], keys: list[str]) -> None:
        study = self.study
        body = {
            "format": 1,
            "margin": study.margin,
            "looks": [dataclasses.asdict(look) for look in study.looks],
            "trials": study.trials,
            "search_at": study.search_at,
            "methods": list(study.methods),
            "sizes": list(study.sizes),
            "steps": None if study.steps is None else list(study.steps),
            "noises": list(study.noises),
            "seeds": self._seeds,
            "skipped": [
                {"method": label, "size": recipe.task.size, "noise": recipe.task.label_noise,
                 "seed": recipe.seed}
                for label, recipe in skipped
            ],
            "cells": keys,
        }  # fmt: skip
        write_atomically(self.out / DESIGN_FILE, json.dumps(body, indent=1) + "\n")


def _closed(found: Sequence[Judged], places: Mapping[str, Place]) -> set[Place]:
    """What no further seed of can change a verdict.

    Args:
        found: The verdicts so far.
        places: Of what was run, by key of its record.
    """
    closed: set[Place] = set()
    for table, verdict in found:
        decisions = {decision.size: decision for decision in verdict.decisions}
        for row in table.rows:
            decision = decisions.get(row.size)
            beaten = {c.method for c in decision.contrasts if c.full_is_better} if decision else {}
            compared = row.rung in CHEAPER or row.method == verdict.results.full
            if decision is None or decision.is_decided or not compared or row.method in beaten:
                closed |= {places[record.key] for record in (*row.done, *row.unfinished)}
    return closed


def _numbers(sizes: Sequence[int | Literal["all"] | None]) -> list[int | None]:
    return [None if size == "all" else size for size in sizes]


def _place(label: str, recipe: Recipe) -> Place:
    return label, recipe.task.size, recipe.task.label_noise


def _trial_label(trial: Trial) -> str:
    """The label of a method, with its learning rate where that is not the default."""
    if trial.is_default:
        return trial.label
    return f"{trial.label}{',' if ':' in trial.label else ':'}training.learning_rate={trial.rate:g}"
