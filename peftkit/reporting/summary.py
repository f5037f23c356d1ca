"""From records to rows: one row per method and size, seeds taken together.

A `Table` holds the rows that may be compared: one backbone (by the fingerprint of its weights),
one data source (by the fingerprint of its rows), one task, one level of label noise. Whatever
differs in any of these goes to another table. Nothing is dropped: a run that did not end well is in
its row's `unfinished`.

A row's `quality` is the mean of the task's metric with the crossed items x seeds error of
`peftkit.statistics.estimates`; `versus_full` is the paired difference (method minus full
fine-tuning) on the seeds and items that both have.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from peftkit.record import Record
from peftkit.reporting.grouping import Place, places, sizes_of, without_repeats
from peftkit.reporting.labels import label_records, rung_of, rung_order, unsettled_options
from peftkit.reporting.pairing import (
    Metric,
    doubtful,
    estimate_difference,
    estimate_quality,
    metric_of,
)
from peftkit.statistics.estimates import Estimate

FULL = "full"
FEWEST_FOR_TIES = 3


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
        ties_with_best: Whether it is, or its paired difference to the best does not exclude zero,
            from three common seeds on: with fewer almost nothing excludes it.
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
        return max(found) if is_largest(name) else sum(found) / len(found)


def is_largest(cost: str) -> bool:
    """Whether a row has the largest of a cost over its seeds, not their mean: of memory."""
    return cost.endswith(("memory_bytes", "reserved_bytes"))


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that may be compared with one another, by rung, then trainable parameters, then size.

    Attributes:
        place: Backbone, data, task and label noise that all runs share.
        metric: The metric shown, and its direction.
        rows: The rows.
        notes: What a reader must know about the table as a whole.
    """

    place: Place
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

    @cached_property
    def recorded_costs(self) -> tuple[tuple[str, str | None], ...]:
        """Names of all numbers among the costs of any record, with phases if they have any."""
        found: dict[tuple[str, str | None], None] = {}
        for record in self.records:
            for name, value in record.costs.items():
                if isinstance(value, dict):
                    found |= dict.fromkeys((name, phase) for phase in value)
                elif isinstance(value, (int, float)):
                    found[name, None] = None
        return tuple(found)

    def row(self, method: str, size: int) -> Row | None:
        """The row of `method` at `size`, if there is one."""
        return next((r for r in self.rows if (r.method, r.size) == (method, size)), None)

    def fact(self, name: str) -> Any:
        """The first value of `name` in the records' data, or None."""
        return next((r.data[name] for r in self.records if r.data.get(name) is not None), None)


def summarise(records: Iterable[Record]) -> list[Table]:
    """Group records into tables, by backbone, data, and label noise."""
    return [_table(place, group) for place, group in places(list(records)).items()]


def _table(place: Place, records: list[Record]) -> Table:
    """The table of records that share one place."""
    metric = metric_of(place.task, records)
    records, notes = without_repeats(records)
    rows = _compared(_rows(records), metric)
    notes += _notes(rows, records, metric)
    return Table(place=place, metric=metric, rows=tuple(rows), notes=tuple(notes))


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
    warned, known = _warnings(records)
    notes += warned
    for remark in dict.fromkeys(remark for record in records for remark in record.notes):
        if remark in known:
            continue
        own = [r for r in records if remark in r.notes and remark not in r.data.get("notes", ())]
        if own:
            notes.append(f"{remark} ({len(own)} of {len(records)} runs)")
    lost, wrong = doubtful(records, metric)
    if wrong:
        notes.append(
            f"{len(wrong)} records whose {metric.name} is not that of their own predictions "
            f"(predictions are shown): {', '.join(wrong)}"
        )
    if lost:
        notes.append(
            f"{len(lost)} records left out whose {metric.name} is no finite number: "
            f"{', '.join(lost)}"
        )
    return notes


def _warnings(records: list[Record]) -> tuple[list[str], set[str]]:
    """What the data check warned of, a note for each check, and all the notes that it left.

    Seeds and sizes draw other rows, so counts differ: the largest is told.
    """
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        for warning in record.data.get("checks") or ():
            found[warning["check"]].append(warning)
    notes = []
    for warnings in found.values():
        most = max(warnings, key=lambda warning: int(warning["count"]))
        differ = ", here the most" if len({w["note"] for w in warnings}) > 1 else ""
        notes.append(f"{most['note']} ({len(warnings)} of {len(records)} runs{differ})")
    return notes, {warning["note"] for warnings in found.values() for warning in warnings}


def _rows(records: list[Record]) -> list[Row]:
    """Rows in order, not yet compared with one another."""
    labels = label_records(records)
    sizes = sizes_of(records)
    cells: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        cells[labels[record.key], sizes[record.key]].append(record)
    seeds = {record.seed for record in records}
    rungs: dict[str, str] = {}
    for record in records:
        rungs[record.method] = rungs.get(record.method) or (
            rung_of(record.method) or str(record.facts.get("rung", ""))
        )
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


def _ordered(rows: list[Row]) -> list[Row]:
    """Rows by rung, then trainable parameters, variants of a method together, then size."""
    parameters: dict[str, float] = {}
    fewest: dict[str, float] = {}
    appeared: dict[str, int] = {}
    for row in rows:
        appeared.setdefault(row.name, len(appeared))
        found = row.cost("trainable_parameters") or 0.0
        parameters[row.method] = max(parameters.get(row.method, 0.0), found)
        fewest[row.name] = min(fewest.get(row.name, found), found)

    def place(row: Row) -> tuple[Any, ...]:
        name = fewest[row.name] if row.rung else appeared[row.name]
        return rung_order(row.rung), name, row.name, parameters[row.method], row.method, row.size

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
        can_tell = to_best is not None and to_best.num_seeds >= FEWEST_FOR_TIES
        is_tie = can_tell and to_best is not None and not to_best.excludes_zero()
        is_best = best is row and len(peers) > 1
        out.append(
            dataclasses.replace(
                row, versus_full=to_full, best=is_best, ties_with_best=is_best or is_tie
            )
        )
    return out
