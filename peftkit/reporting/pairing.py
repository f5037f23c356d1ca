"""A metric per seed and test item, and what can be estimated from it.

Where a task can say what each test item contributes to its metric (`Task.item_scores`: of accuracy
1 or 0), errors account for items and seeds; else there is one value per seed, and they account
for seeds only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftkit.record import Record
from peftkit.reporting.labels import part_class
from peftkit.statistics.estimates import Estimate, crossed_estimate, seed_estimate
from peftkit.tasks.text_classification import TextClassification

_SHARES = ("accuracy", "f1", "exact_match")


@dataclass(frozen=True)
class Metric:
    """The metric a table shows: its name, and whether higher is better."""

    name: str
    higher_is_better: bool = True

    @property
    def direction(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1 and reads best in percent."""
        return self.name.endswith(_SHARES)

    @property
    def digits(self) -> int:
        """Decimals of its values as they are displayed."""
        return 1 if self.is_share else 3

    @property
    def scale(self) -> float:
        """What its values are multiplied by for display."""
        return 100.0 if self.is_share else 1.0


def metric_of(task: str, records: Sequence[Record]) -> Metric:
    """The main metric of a task: as it says, or said then; else accuracy, or the first recorded."""
    part = part_class("task", task)
    name = getattr(part, "metric", None)
    if isinstance(name, str):
        return Metric(name, bool(getattr(part, "higher_is_better", True)))
    for facts in (record.facts for record in records if "metric" in record.facts):
        return Metric(str(facts["metric"]), bool(facts["higher_is_better"]))
    recorded = [metric for r in records for metric in r.metrics.get("test", {})]
    return Metric("accuracy" if "accuracy" in recorded or not recorded else recorded[0])


def estimate_quality(records: Sequence[Record], metric: Metric) -> Estimate | None:
    """The metric over seeds and test items; None without records that have it, a finite number."""
    scores = item_scores_of(records, metric)
    if scores is not None:
        return _crossed(scores, metric)
    values = [value for r in records if (value := value_of(r, metric)) is not None]
    return seed_estimate(values) if values else None


def estimate_difference(
    first: Sequence[Record], second: Sequence[Record], metric: Metric
) -> Estimate | None:
    """First minus second, paired on the seeds and test items that both have; None without any."""
    second_by_seed = {record.seed: record for record in second}
    first = [record for record in first if record.seed in second_by_seed]
    second = [second_by_seed[record.seed] for record in first]
    scores = item_scores_of([*first, *second], metric)
    if scores is not None:
        return _crossed(scores[: len(first)] - scores[len(first) :], metric)
    gaps = [
        a - b
        for one, other in zip(first, second, strict=True)
        if (a := value_of(one, metric)) is not None and (b := value_of(other, metric)) is not None
    ]
    return seed_estimate(gaps) if gaps else None


def _crossed(scores: NDArray[np.float64], metric: Metric) -> Estimate | None:
    """The estimate from the seeds whose scores are all finite."""
    finite = scores[np.isfinite(scores).all(axis=1)]
    return crossed_estimate(finite, shares=metric.is_share) if len(finite) else None


def doubtful(records: Sequence[Record], metric: Metric) -> tuple[list[str], list[str]]:
    """Keys of records without a finite metric, and of those where predictions say another one."""
    lost, wrong = [], []
    for record in records:
        value, scores = value_of(record, metric), item_scores_of([record], metric)
        said = record.metrics.get("test", {}).get(metric.name, 0.0)
        finite = math.isfinite(said) and (scores is None or np.isfinite(scores).all())
        if record.status == "done" and not finite:
            lost.append(record.key)
        elif value is not None and scores is not None and abs(value - scores.mean()) > 1e-6:
            wrong.append(record.key)
    return lost, wrong


def value_of(record: Record, metric: Metric) -> float | None:
    """The metric of one run on the test split; None where there is none, or no finite one."""
    value = record.metrics.get("test", {}).get(metric.name)
    return None if value is None or not math.isfinite(value) else float(value)


def item_scores_of(records: Sequence[Record], metric: Metric) -> NDArray[np.float64] | None:
    """Scores of shape (records, items) on the test items that all records have."""
    columns = []
    for record in records:
        # Of a task that is not at hand, only the accuracy of classes can be taken apart.
        part = part_class("task", record.recipe["task"]["name"]) or TextClassification
        found = record.predictions
        scores = part.item_scores(found) if metric.name == part.metric and "item" in found else None
        if scores is None:
            return None
        items = np.asarray(found["item"])
        order = np.argsort(items, kind="stable")
        columns.append((items[order], scores[order]))
    if not columns:
        return None
    shared = columns[0][0]
    for items, _ in columns[1:]:
        if not np.array_equal(items, shared):
            shared = np.intersect1d(shared, items)
    if len(shared) < 2:
        return None
    return np.stack([hits[np.isin(items, shared)] for items, hits in columns])
