"""What a study tried of each method before it ran it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.statistics.across import expected_best
from peftkit.verdict.from_table import RATES_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.reporting.pairing import Metric

Trial = dict[str, Any]
"""One entry of learning_rates.json: "method", "size", "chosen" and, by rate, "validation"."""


def trials_of(folder: Path) -> list[Trial]:
    """The trials of a study; none of a folder that is no study's."""
    path = folder / RATES_FILE
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, list) else []


def expected_bests(trials: Sequence[Trial], metric: Metric) -> list[str]:
    """What so many trials of a learning rate may be expected to find, on validation rows.

    Args:
        trials: As `trials_of` returns them.
        metric: Of the task.
    """
    said = []
    for trial in trials:
        scores = [
            metric.direction * float(found[metric.name])
            for found in trial["validation"].values()
            if isinstance(found, dict) and metric.name in found
        ]
        if len(scores) < 2:
            continue
        best = ", ".join(
            f"{metric.scale * metric.direction * expected_best(scores, k):.{metric.digits}f}"
            for k in range(1, len(scores) + 1)
        )
        where = "all" if trial["size"] is None else f"{trial['size']:,}"
        said.append(
            f"`{trial['method']}`, {where} examples: the best of 1 to {len(scores)} trials may be "
            f"expected at {best}"
        )
    return said
