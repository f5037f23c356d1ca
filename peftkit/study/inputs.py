"""Looks at the data and the weights that a comparison is about, before it begins."""

from __future__ import annotations

import json
from typing import Any

from peftkit.checks import check_rows, refuse
from peftkit.recipe import Recipe
from peftkit.study._worker import Progress
from peftkit.study.grid import Facts


class Inputs:
    """Returns the facts of recipes, having seen that their training subsets can be drawn.

    Args:
        progress: Told how far the reading is.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._facts: dict[str, dict[str, Any]] = {}
        self._drawn: set[str] = set()

    def __call__(self, recipe: Recipe) -> Facts:
        """Return what a recipe runs on.

        Raises:
            InvalidInput: The data or the backbone cannot be had, or does not fit the task.
        """
        from peftkit.pipeline import facts

        body = recipe.to_dict()
        del body["task"]["label_noise"]  # it changes no count and no fingerprint
        task = json.dumps(body["task"], sort_keys=True)
        if task not in self._drawn:
            data = recipe.task.load(seed=recipe.seed, progress=self._progress)
            refuse(check_rows(recipe.task, data))
            self._drawn.add(task)
        del body["task"]["size"]
        inputs = [body["task"], body["backbone"], recipe.training.precision]
        name = json.dumps(inputs, sort_keys=True)
        if name not in self._facts:
            self._facts[name] = facts(recipe)
        return self._facts[name]
