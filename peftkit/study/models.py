"""Which trained weights of a comparison are kept: all, none, or the best of each method."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from peftkit.study.folder import StudyFolder
from peftkit.study.grid import GridCell

KeepWeights = Literal["best", "all", "none"]


class KeptModels:
    """Deletes the weights of a cell as soon as another cell of its method has beaten it.

    The best is the one with the best metric on the validation split; of equals, the first in the
    order of the grid, so that what is kept does not depend on which worker was faster.
    """

    def __init__(self, policy: KeepWeights, folder: StudyFolder) -> None:
        self._policy, self._folder = policy, folder
        self._best: dict[str, tuple[tuple[float, int], str]] = {}

    def offer(self, cell: GridCell, value: float | None) -> None:
        """Consider the weights of a finished cell, if there are any."""
        if self._policy != "best" or not self._folder.model(cell.key).is_dir():
            return
        score = -math.inf
        if value is not None and not math.isnan(value):
            score = value if cell.recipe.task.higher_is_better else -value
        offered = ((score, -cell.place), cell.key)
        best = max(offered, self._best.get(cell.label, offered))
        for _, key in {offered, self._best.get(cell.label, offered)} - {best}:
            self._folder.discard_model(key)
        self._best[cell.label] = best


def disk_needed_bytes(waiting: Iterable[GridCell], policy: KeepWeights, slots: int) -> int:
    """Return the disk space that cells still to run will take at most, roughly.

    Whole models count in full, adapters and heads as a tenth of the backbone; each running cell
    holds a model (with checkpoints also the optimizer's state), and records take 200 kB each.
    """
    waiting = list(waiting)
    kept: dict[object, int] = {}
    largest = 0
    for cell in waiting:
        size = _model_bytes(cell)
        name: object = cell.label if policy == "best" else cell.key
        kept[name] = max(size, kept.get(name, 0))
        training = cell.recipe.training
        checkpoints = training.save_every is not None or training.keep_best
        largest = max(largest, size * (4 if checkpoints else 1))
    models = 0 if policy == "none" else sum(kept.values())
    return models + min(slots, len(waiting)) * largest + 200_000 * len(waiting)


def _model_bytes(cell: GridCell) -> int:
    rung = getattr(cell.recipe.method, "rung", "")
    whole = 4 * int(cell.facts["backbone"].get("total_parameters") or 0)
    if rung in ("reference", "none"):
        return 0
    return whole if rung in ("partial", "full", "retrain") else whole // 10
