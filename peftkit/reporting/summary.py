"""From records to rows: one row per method and size, seeds taken together.

A `Table` holds the rows that may be compared: one backbone (by the fingerprint of its weights), one
data source (by the fingerprint of its rows), one task, one level of label noise. Whatever differs in
any of these goes to another table. Nothing is dropped: a run that did not end well is in its row's
`unfinished`.

A row's `quality` is the mean of the task's metric with the crossed items x seeds error of
`peftkit.study.statistics`; `versus_full` is the paired difference (method minus full fine-tuning) on
the seeds and items that both have.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from peftkit.record import Record
from peftkit.reporting.labels import label_records, rung_of, rung_order, unsettled_options
from peftkit.reporting.pairing import (
    Metric,
    disagreeing,
    estimate_difference,
    estimate_quality,
    metric_of,
)
from peftkit.study.statistics import Estimate

FULL = "full"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method at one size.

    Attributes:
        method: Label of the method, with the options that tell variants apart.
        name: Name of the method.
        rung: Its place on the ladder ("" where the method is not known here).
        size: Training examples.
        done: Records that ended well, by seed.
        unfinished: Records that did not, by seed.
        missing: Seeds that other rows of the table have and this one has no record of.
        quality: The metric on the test split; None where no run ended well.
        versus_full: Paired difference to full fine-tuning; None for full itself or without it.
        best: Whether its mean is the best of its size.
        ties_with_best: Whether it is, or its paired difference to the best does not exclude zero.
    """

    method: str
    name: str
    rung: str
    size: int
    done: tuple[Record, ...]
    unfinished: tuple[Record, ...]
    missing: tuple[int, ...] = ()
    quality: Estimate | None = None
    versus_full: Estimate | None = None
    best: bool = False
    ties_with_best: bool = False

    def by_seed(self, metric: str) -> list[float]:
        """A metric of the test split, one value for each run that ended well."""
        found = (record.metrics.get("test", {}).get(metric) for record in self.done)
        return [float(value) for value in found if value is not None]

    def cost(self, name: str, phase: str | None = None) -> float | None:
        """A cost over the seeds: their mean, and for memory the largest; None if not recorded.

        Counts of parameters are known even where no run ended well; other costs are not.
        """
        is_count = name.endswith("_parameters") or name == "trainable_share"
        found = []
        for record in self.done or (self.unfinished if is_count else ()):
            value = record.costs.get(name)
            value = value.get(phase) if phase and isinstance(value, dict) else value
            if isinstance(value, (int, float)):
                found.append(float(value))
        if not found:
            return None
        return max(found) if name.startswith("peak_") else sum(found) / len(found)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that may be compared with one another, by rung, then trainable parameters, then size.

    Attributes:
        backbone: Name of the backbone.
        backbone_fingerprint: Fingerprint of its weights ("" if no run got as far).
        data: Name of the data.
        data_fingerprint: Fingerprint of its rows ("" if no run got as far).
        task: Name of the task.
        label_noise: Share of training labels replaced.
        metric: The metric shown, and its direction.
        rows: The rows.
        notes: What a reader must know about the table as a whole.
    """

    backbone: str
    backbone_fingerprint: str
    data: str
    data_fingerprint: str
    task: str
    label_noise: float
    metric: Metric
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Training sizes, ascending."""
        return tuple(sorted({row.size for row in self.rows}))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Labels of the methods, in the order of the ladder."""
        return tuple(dict.fromkeys(row.method for row in self.rows))

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """All records of the table."""
        return tuple(record for row in self.rows for record in (*row.done, *row.unfinished))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the table, ascending."""
        return tuple(sorted({record.seed for record in self.records}))

    def row(self, method: str, size: int) -> Row | None:
        """The row of `method` at `size`, if there is one."""
        return next((r for r in self.rows if (r.method, r.size) == (method, size)), None)

    def fact(self, name: str) -> Any:
        """The first value of `name` in the records' data, or None."""
        return next((r.data[name] for r in self.records if r.data.get(name) is not None), None)


def summarise(records: Iterable[Record]) -> list[Table]:
    """Group records into tables, by backbone, data, and label noise."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record, place in _places(list(records)):
        groups[place].append(record)
    return [_table(place, groups[place]) for place in sorted(groups)]


def _places(records: list[Record]) -> list[tuple[Record, tuple[Any, ...]]]:
    """Each record, oldest first, with what its table is known by.

    A run that ended before it had read its data or weights has no fingerprint of them. It belongs
    with the runs of the same names where those agree on the fingerprint, else in a table apart.
    """
    known: dict[tuple[str, str], set[str]] = defaultdict(set)
    named = []
    for record in sorted(records, key=lambda r: (r.created, r.key)):
        names = {
            "backbone": str(record.recipe["backbone"].get("name") or record.backbone.get("name")),
            "data": str(record.recipe["task"].get("data") or record.data.get("source")),
        }
        prints = {part: str(getattr(record, part).get("fingerprint") or "") for part in names}
        named.append((record, names, prints))
        for part, fingerprint in prints.items():
            known[part, names[part]] |= {fingerprint} - {""}
    placed = []
    for record, names, prints in named:
        for part, name in names.items():
            if not prints[part] and len(known[part, name]) == 1:
                (prints[part],) = known[part, name]
        task = str(record.recipe["task"].get("name", ""))
        noise = float(record.recipe["task"].get("label_noise") or 0.0)
        backbone = (names["backbone"], prints["backbone"])
        placed.append((record, (*backbone, names["data"], prints["data"], task, noise)))
    return placed


def _table(place: tuple[Any, ...], records: list[Record]) -> Table:
    """The table of records that share one place."""
    backbone, backbone_fingerprint, data, data_fingerprint, task, noise = place
    metric = metric_of(task, records)
    records, notes = _without_repeats(records)
    rows = _compared(_rows(records), metric)
    return Table(
        backbone=backbone,
        backbone_fingerprint=backbone_fingerprint,
        data=data,
        data_fingerprint=data_fingerprint,
        task=task,
        label_noise=noise,
        metric=metric,
        rows=tuple(rows),
        notes=(*notes, *_notes(rows, records, metric)),
    )


def _notes(rows: list[Row], records: list[Record], metric: Metric) -> list[str]:
    """What a reader must know about a table as a whole."""
    notes = []
    baselines = [row.method for row in rows if row.name == FULL]
    if len(set(baselines)) > 1:
        notes.append(f"differences are to `{_baseline(rows)}`")
    unsettled = sorted({o for row in rows for o in unsettled_options((*row.done, *row.unfinished))})
    if unsettled:
        notes.append("settings that differ between seeds of one method: " + ", ".join(unsettled))
    if len({record.data["num_test"] for record in records if record.data.get("num_test")}) > 1:
        notes.append("runs were tested on different numbers of items; means are over shared items")
    wrong = disagreeing(records, metric)
    if wrong:
        notes.append(
            f"{len(wrong)} records whose {metric.name} is not that of their own predictions "
            f"(predictions are shown): {', '.join(wrong)}"
        )
    return notes


def _without_repeats(records: list[Record]) -> tuple[list[Record], list[str]]:
    """The newest record of each method, size and seed, and a note where there were more."""
    labels = label_records(records)
    newest = {(labels[r.key], r.size, r.seed): r for r in records}
    repeats = len(records) - len(newest)
    notes = [f"{repeats} older records of the same method, size and seed left out"] if repeats else []
    return list(newest.values()), notes


def _rows(records: list[Record]) -> list[Row]:
    """Rows in order, not yet compared with one another."""
    labels = label_records(records)
    actual = _actual_sizes(records)
    cells: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        cells[labels[record.key], actual.get(record.size, record.size)].append(record)
    seeds = {record.seed for record in records}
    rungs = {name: rung_of(name) for name in dict.fromkeys(r.method for r in records)}
    rows = []
    for (label, size), group in cells.items():
        group.sort(key=lambda record: record.seed)
        rows.append(
            Row(
                method=label,
                name=group[0].method,
                rung=rungs[group[0].method],
                size=size,
                done=tuple(record for record in group if record.status == "done"),
                unfinished=tuple(record for record in group if record.status != "done"),
                missing=tuple(sorted(seeds - {record.seed for record in group})),
            )
        )
    return _ordered(rows)


def _actual_sizes(records: list[Record]) -> dict[int, int]:
    """Size asked for -> size used, for runs that ended before they knew (0: the whole split)."""
    actual: dict[int, set[int]] = defaultdict(set)
    for record in records:
        if record.data.get("num_train"):
            asked = int(record.recipe["task"].get("size") or 0)
            actual[asked].add(int(record.data["num_train"]))
    used = set().union(*actual.values())
    return {a: next(iter(u)) for a, u in actual.items() if len(u) == 1 and a not in used}


def _ordered(rows: list[Row]) -> list[Row]:
    """Rows by rung, then trainable parameters (where known), then size."""
    parameters: dict[str, float] = {}
    appeared: dict[str, int] = {}
    for row in rows:
        appeared.setdefault(row.name, len(appeared))
        found = row.cost("trainable_parameters")
        parameters[row.method] = max(parameters.get(row.method, 0.0), found or 0.0)

    def place(row: Row) -> tuple[Any, ...]:
        by_count = parameters[row.method] if row.rung else appeared[row.name]
        return rung_order(row.rung), by_count, row.method, row.size

    return sorted(rows, key=place)


def _baseline(rows: list[Row]) -> str:
    """Label of the row that differences are taken to; empty without full fine-tuning."""
    labels = [row.method for row in rows if row.name == FULL]
    return FULL if FULL in labels or not labels else labels[0]


def _compared(rows: list[Row], metric: Metric) -> list[Row]:
    """Rows with their estimates, their difference to full, and the marks for the best."""
    rows = [dataclasses.replace(r, quality=estimate_quality(r.done, metric)) for r in rows]
    baseline = _baseline(rows)
    out = []
    for row in rows:
        if row.quality is None:
            out.append(row)
            continue
        peers = [peer for peer in rows if peer.size == row.size and peer.quality]
        full = next((peer for peer in peers if peer.method == baseline), row)
        best = max(peers, key=lambda p: metric.direction * (p.quality.mean if p.quality else 0))
        to_full = None if full is row else estimate_difference(row.done, full.done, metric)
        to_best = None if best is row else estimate_difference(row.done, best.done, metric)
        is_tie = to_best and to_best.sources != "nothing" and not to_best.excludes_zero()
        marks = {"best": best is row, "ties_with_best": best is row or bool(is_tie)}
        out.append(dataclasses.replace(row, versus_full=to_full, **marks))
    return out
