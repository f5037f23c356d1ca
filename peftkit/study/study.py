"""A study: a comparison that ends with a verdict.

For every backbone and task each method is tried at an equal number of learning rates (on validation
rows alone), then run at the best one, on every size, label noise and seed. With looks, seeds are
added only where the verdict is open: after each look, sizes that are decided and methods that full
fine-tuning is shown to beat get no more.

    OUT/design.json      what was asked, and what was not run because the verdict was there
    OUT/search/          trials of learning rates, records as everywhere
    OUT/records/         the cells

With several backbones or tasks, each pair has such a folder of its own below OUT.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftkit.errors import InvalidInput
from peftkit.study import rates
from peftkit.study.models import KeepWeights
from peftkit.study.pair import Pair
from peftkit.verdict import LOOKS, Look, Verdict
from peftkit.verdict.results import require_margin


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study, checked as far as it can be without data.

    Attributes:
        methods: As for `compare`.
        tasks: What is learned: one or several.
        backbones: What is adapted: one or several.
        training: Settings for all methods.
        options: Further options for all.
        sizes: Numbers of training examples; "all" or none: all there are.
        steps: Optimizer steps at each of the sizes; none: as `training` says.
        seeds: How many, or which; none: three, or with `adaptive` as many as the looks take. There
            a number ends the study after the last look that it suffices for.
        noises: Shares of training labels made wrong.
        noise_at: The sizes at which labels are made wrong; none: all.
        trials: Learning rates tried for each method at each size; 1: its default, without a search.
        search_at: The one of the sizes at which they are tried, for all; none: each for itself.
        margin: By how much full fine-tuning has to be better for it to count: in points where the
            metric is a share, else in its own unit. None: one point; no share has no default.
        adaptive: Add seeds only where the verdict is open.
        out: Output folder.
        workers: As for `compare`.
        keep_weights: As for `compare`.
        force: As for `compare`.
        engine: What cells are run by: "local" or "ray".
        address: Of a Ray cluster; none: one on this machine.
    """

    methods: Sequence[str]
    tasks: Sequence[Any] = ("pydocs/library",)
    backbones: Sequence[Any] = ("bundled",)
    training: Mapping[str, Any] | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    sizes: Sequence[int | Literal["all"] | None] = (128, 512)
    steps: Sequence[int] | None = None
    seeds: int | Sequence[int] | None = None
    noises: Sequence[float] = (0.0,)
    noise_at: Sequence[int | Literal["all"] | None] | None = None
    trials: int = 3
    search_at: int | Literal["all"] | None = None
    margin: float | None = None
    adaptive: bool = False
    out: Path | str
    workers: int | None = None
    keep_weights: KeepWeights = "none"
    force: bool = False
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        require_margin(self.margin)
        rates.factors(self.trials)
        if self.steps is not None and len(self.steps) != len(self.sizes):
            raise InvalidInput(
                "there are not as many numbers of steps as sizes",
                received=f"{len(self.steps)} and {len(self.sizes)}",
                allowed="the steps of each size, in the same order",
            )
        for what, given in (("tasks", self.tasks), ("backbones", self.backbones)):
            if not given:
                raise InvalidInput(f"the study has no {what}", next_step=f"give some {what}")
        if self.steps is not None and len(set(self.sizes)) < len(self.sizes):
            raise InvalidInput(
                "a size has several numbers of steps",
                received=", ".join(map(str, self.sizes)),
                next_step="name each size once",
            )
        for name, sizes in (("search_at", [self.search_at]), ("noise_at", self.noise_at or ())):
            for size in sizes:
                if size is not None and size not in self.sizes:
                    raise InvalidInput(
                        f"{name} is none of the study's sizes",
                        received=size,
                        allowed=", ".join(map(str, self.sizes)),
                    )
        self.pairs  # noqa: B018  # raises what is wrong

    @property
    def looks(self) -> tuple[Look, ...]:
        """After how many seeds the test results are looked at; none: once, at the end.

        Raises:
            InvalidInput: Seeds are fewer than the first look takes, or chosen one by one.
        """
        if not self.adaptive:
            return ()
        if self.seeds is None:
            return LOOKS
        looks = [look for look in LOOKS if isinstance(self.seeds, int) and look.seeds <= self.seeds]
        if not looks:
            raise InvalidInput(
                "an adaptive study looks after certain numbers of seeds",
                received=f"seeds: {self.seeds}",
                allowed=", ".join(str(look.seeds) for look in LOOKS),
            )
        return tuple(looks)

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        """One for each backbone and task."""
        several = len(self.backbones) * len(self.tasks) > 1
        found = []
        for backbone in self.backbones:
            for task in self.tasks:
                name = re.sub(r"[^\w.-]+", "-", f"{_name(backbone)}_{_name(task)}").strip("-.")
                out = Path(self.out) / name if several else Path(self.out)
                found.append(Pair(self, backbone, task, out))
        if len({pair.out for pair in found}) < len(found):
            raise InvalidInput(
                "two backbones or tasks of the study have the same name",
                received=", ".join(pair.out.name for pair in found),
                next_step="leave one of them out, or study them apart",
            )
        return found

    def run(self, **how: Any) -> list[Verdict]:
        """Run what has no record yet, and return the verdict on each backbone, task and noise.

        Args:
            **how: `function`, `facts`, `preload` and `quiet` of `run_recipes`.
        """
        return [verdict for pair in self.pairs for verdict in pair.run(**how)]


def _name(part: Any) -> str:
    """What a backbone or task is called in the name of a folder."""
    if isinstance(part, Mapping):
        return str(part.get("data") or part["name"]).rstrip("/").rpartition("/")[2]
    named = part if isinstance(part, str) else getattr(part, "data", None) or part.name
    return str(named).rstrip("/").rpartition("/")[2]
