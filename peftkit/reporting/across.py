"""Methods over many tasks: the middle of their scores, and how often full fine-tuning beats them.

Both are descriptions, not tests, and say little of few tasks; scores are taken at the largest size
of each, where the metric is a share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.reporting.summary import FULL
from peftkit.statistics.across import FEWEST_TASKS, interquartile_mean, probability_of_improvement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftkit.reporting.summary import Table


@dataclass(frozen=True, kw_only=True)
class Across:
    """One method over many tasks.

    Attributes:
        method: Its label.
        num_tasks: Tasks that it and full fine-tuning were both run on.
        middle: Interquartile mean of its scores over tasks and seeds, in percent.
        beaten: How often a run of full beats one of it on a task drawn at random; None for full.
    """

    method: str
    num_tasks: int
    middle: float
    beaten: float | None


def across(tables: Sequence[Table]) -> list[Across]:
    """Every method that has tasks enough in common with full fine-tuning, in their usual order.

    Args:
        tables: Of labels as they are; those whose metric is no share are left out.
    """
    scores = [_scores(table) for table in tables if table.metric.is_share]
    methods = dict.fromkeys(method for each in scores for method in each)
    found = []
    for method in methods:
        both = [each for each in scores if method in each and FULL in each]
        if len(both) < FEWEST_TASKS:
            continue
        ours, full = [each[method] for each in both], [each[FULL] for each in both]
        found.append(
            Across(
                method=method,
                num_tasks=len(both),
                middle=100 * interquartile_mean([score for each in ours for score in each]),
                beaten=None if method == FULL else probability_of_improvement(full, ours),
            )
        )
    return found


def _scores(table: Table) -> dict[str, list[float]]:
    """Scores of all seeds by method, at the largest size."""
    size = max(table.sizes)
    rows = [row for row in table.rows if row.size == size and row.done]
    return {row.method: row.by_seed(table.metric.name) for row in rows}
