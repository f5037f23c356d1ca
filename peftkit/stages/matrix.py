"""The matrix of scores after each stage on each data set, and what follows from it.

`scores[i][j]` is the metric on the test rows of data set j after stage i; there is none before the
data set's own stage, whose head it needs. With T stages and s = 1 where higher is better, else -1:

    forgetting of j = s * (max over i = j .. T-2 of scores[i][j] - scores[T-1][j])
    average forgetting = its mean over j < T - 1           (Chaudhry et al. 2018, section 3.3)
    backward transfer = mean over j < T - 1 of s * (scores[T-1][j] - scores[j][j])
                                                  (Lopez-Paz and Ranzato 2017, section 3)

Positive forgetting is a loss; positive backward transfer is a gain. Averages over data sets that
are measured differently mean nothing, and are None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peftkit.reporting.pairing import Metric


@dataclass(frozen=True, kw_only=True)
class StageMatrix:
    """What a sequence of stages yielded.

    Attributes:
        carry: What one stage handed to the next.
        backbone: Name of the backbone that the first stage started from.
        methods: One a stage.
        datasets: One a stage.
        metrics: One a data set.
        chance: The metric without any knowledge of the input, a data set.
        bare: The metric of the bare backbone, without training, a data set.
        scores: `scores[i][j]`, after stage i on data set j; None for j > i.
        costs: The record's costs, one mapping a stage.
    """

    carry: str
    backbone: str
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[Metric, ...]
    chance: tuple[float, ...]
    bare: tuple[float, ...]
    scores: tuple[tuple[float | None, ...], ...]
    costs: tuple[dict[str, Any], ...]

    @property
    def forgetting(self) -> tuple[float | None, ...]:
        """A data set: the best score it ever had before the last stage, minus that after it."""
        found: list[float | None] = []
        for j, metric in enumerate(self.metrics):
            column = [metric.direction * s for row in self.scores if (s := row[j]) is not None]
            found.append(max(column[:-1]) - column[-1] if len(column) > 1 else None)
        return tuple(found)

    @property
    def average_forgetting(self) -> float | None:
        """Mean of `forgetting` over all data sets but the last."""
        return self._mean(list(self.forgetting))

    @property
    def backward_transfer(self) -> float | None:
        """Mean change of a data set's score since its own stage, all data sets but the last."""
        return self._mean([
            metric.direction * (last - own)
            for j, metric in enumerate(self.metrics[:-1])
            if (last := self.scores[-1][j]) is not None and (own := self.scores[j][j]) is not None
        ])  # fmt: skip

    def _mean(self, values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(set(self.metrics)) > 1 or not known:
            return None
        return sum(known) / len(known)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, shares between 0 and 1."""
        return {
            "carry": self.carry,
            "backbone": self.backbone,
            "methods": list(self.methods),
            "datasets": list(self.datasets),
            "metrics": [metric.name for metric in self.metrics],
            "chance": list(self.chance),
            "bare": list(self.bare),
            "scores": [list(row) for row in self.scores],
            "forgetting": list(self.forgetting),
            "average_forgetting": self.average_forgetting,
            "backward_transfer": self.backward_transfer,
            "costs": list(self.costs),
        }
