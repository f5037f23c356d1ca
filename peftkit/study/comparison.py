"""Compares methods over data sizes, label noise and seeds: one record for every cell.

Everything that can be known to be wrong is reported before any work. Records are written by the
workers as they finish, so that killing a comparison loses at most the running cells, and running it
again goes on where it stopped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from peftkit.errors import InvalidInput
from peftkit.recipe import Backbone, Recipe, Training
from peftkit.record import Record
from peftkit.study import grid
from peftkit.study.execution import Engine
from peftkit.study.folder import StudyFolder
from peftkit.study.grid import Facts
from peftkit.study.inputs import Inputs
from peftkit.study.models import KeepWeights
from peftkit.study.planning import Plan, make_plan
from peftkit.study.running import PRELOAD, RUN_CELL, run_recipes
from peftkit.tasks._task import Task

_OWN = {"task.size": "sizes", "task.label_noise": "noises", "seed": "seeds", "method": "methods"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison, checked as far as it can be without data; see `compare` for the fields."""

    methods: Sequence[str]
    task: Task | str | Mapping[str, Any] = "pydocs/library"
    backbone: Backbone | str | Mapping[str, Any] = "bundled"
    training: Training | Mapping[str, Any] | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    sizes: Sequence[int | Literal["all"] | None] = (128, 512)
    seeds: int | Sequence[int] = 2
    noises: Sequence[float] = (0.0,)
    out: Path | str
    workers: int | None = None
    keep_weights: KeepWeights = "best"
    force: bool = False
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.keep_weights not in get_args(KeepWeights):
            raise InvalidInput(
                "keep_weights is none of its values",
                received=repr(self.keep_weights),
                allowed=", ".join(get_args(KeepWeights)),
            )
        for name, value in {"seeds": self.seeds, "workers": self.workers}.items():
            if isinstance(value, bool) or (isinstance(value, int) and value < 1):
                raise InvalidInput(
                    f"{name} must be at least 1", received=value, allowed="a positive integer"
                )
        self._engine  # noqa: B018  # raises what is wrong
        self.recipes  # noqa: B018

    @property
    def _engine(self) -> Engine:
        return Engine(self.engine, self.address)

    @functools.cached_property
    def recipes(self) -> list[tuple[str, Recipe]]:
        """Every (label of the method, recipe) of the grid.

        Raises:
            UnknownName: A method, task or option does not exist.
            InvalidInput: A value does not fit.
        """
        return grid.recipes(
            self._base,
            _listed(self.methods),
            sizes=[None if size == "all" else size for size in _listed(self.sizes)],
            seeds=list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds),
            noises=_listed(self.noises),
        )

    def plan(self, *, facts: Callable[[Recipe], Facts] | None = None) -> Plan:
        """Return what `run` would do, without writing anything or running any cell."""
        return make_plan(
            self.recipes,
            StudyFolder(self.out),
            facts=facts or Inputs(),
            workers=self.workers,
            keep_weights=self.keep_weights,
        )

    def run(
        self,
        *,
        function: str = RUN_CELL,
        facts: Callable[[Recipe], Facts] | None = None,
        preload: Sequence[str] = PRELOAD,
        quiet: bool = False,
    ) -> list[Record]:
        """Run the cells that have no settled record yet, and return the records of all.

        Args:
            function: "package.module:name" that runs a cell in a worker.
            facts: Looks at a recipe's data and weights; none: the pipeline's.
            preload: Modules that workers find imported.
            quiet: Show no progress on stderr.
        """
        return run_recipes(
            self.recipes,
            out=self.out,
            workers=self.workers,
            keep_weights=self.keep_weights,
            force=self.force,
            engine=self._engine,
            function=function,
            facts=facts,
            preload=preload,
            quiet=quiet,
        )

    def _base(self, method: str) -> Recipe:
        recipe = Recipe(
            method=method, task=self.task, backbone=self.backbone, training=self.training
        )
        changed = recipe.override(self.options)
        for option, ours in _OWN.items():
            if _option(recipe, option) != _option(changed, option):
                raise InvalidInput(
                    f"{option} is set by the grid of a comparison",
                    received=f"{option} among the options",
                    next_step=f"give {ours} (--{ours}) instead",
                )
        return changed


def compare(
    methods: Sequence[str],
    *,
    out: Path | str,
    task: Task | str | Mapping[str, Any] = "pydocs/library",
    backbone: Backbone | str | Mapping[str, Any] = "bundled",
    training: Training | Mapping[str, Any] | None = None,
    options: Mapping[str, object] | None = None,
    sizes: Sequence[int | Literal["all"] | None] = (128, 512),
    seeds: int | Sequence[int] = 2,
    noises: Sequence[float] = (0.0,),
    workers: int | None = None,
    keep_weights: KeepWeights = "best",
    force: bool = False,
    engine: str = "local",
    address: str | None = None,
    quiet: bool = False,
) -> list[Record]:
    """Run every method on every size, label noise and seed, and return one record for each.

    Args:
        methods: Names, with options after a colon: `["none", "lora", "lora:rank=64", "full"]`.
        out: Output folder. What it holds of this comparison is not run again.
        task: What is learned, as a recipe takes it.
        backbone: What is adapted, as a recipe takes it.
        training: Training settings for all methods.
        options: Further options for all methods, as `Recipe.override` takes them.
        sizes: Numbers of training examples; "all" or none: all there are.
        seeds: How many (0, 1, ...) or which.
        noises: Shares of training labels made wrong.
        workers: Cells at a time; none: as many as cores (or GPUs) and memory allow.
        keep_weights: Whose weights to keep in `out/models`: the "best" cell of each method by
            its metric on the validation split, "all", or "none".
        force: Run even cells that would not fit into memory, by prediction.
        engine: What cells are run by: "local", the processes of this machine, or "ray".
        address: Of a Ray cluster; none: one on this machine.
        quiet: Show no progress on stderr.

    Raises:
        InvalidInput: Something is wrong; nothing has been run.
        FolderBusy: Another comparison writes into the folder.
        FolderUnwritable: The disk is full; finished records are safe.
        Interrupted: Ctrl-C or SIGTERM; finished records are safe.
    """
    comparison = Comparison(
        methods=methods,
        task=task,
        backbone=backbone,
        training=training,
        options=options or {},
        sizes=sizes,
        seeds=seeds,
        noises=noises,
        out=out,
        workers=workers,
        keep_weights=keep_weights,
        force=force,
        engine=engine,
        address=address,
    )
    return comparison.run(quiet=quiet)


def _listed(values: Any) -> list[Any]:
    """Return one value or several as a list."""
    scalar = values is None or isinstance(values, str | int | float)
    return [values] if scalar else list(values)


def _option(recipe: Recipe, path: str) -> object:
    body: Any = recipe.to_dict()
    for name in path.split("."):
        body = body[name]
    return body
