"""The columns of a table as text: methods down the side, quality by size, then costs.

Terminal and Markdown show the same columns; the terminal leaves out the least important ones
(`priority`) where there is no room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peftkit import quantities as q
from peftkit.reporting.notes import footnotes, status_words
from peftkit.reporting.summary import Row, Table
from peftkit.statistics.estimates import Estimate

Show = Callable[[Row], str]
_INFERENCE = "inference_seconds_per_example"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the marks behind it (star, number of a note), and whether it is best."""

    text: str
    marks: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: What the column is called where it has to be named.
        heading: Two lines.
        cells: One cell per method.
        priority: Columns with a low number stay longest.
        is_text: Whether it holds words, not numbers.
    """

    name: str
    heading: tuple[str, str]
    cells: tuple[Cell, ...]
    priority: int
    is_text: bool = False

    @property
    def marks_width(self) -> int:
        """Room that the widest marks take."""
        return max((len(cell.marks) for cell in self.cells), default=0)

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        texts = [len(cell.text) + self.marks_width for cell in self.cells]
        return max([*texts, *map(len, self.heading)])


def columns_of(table: Table) -> list[Column]:
    """All columns that have something to show, from left to right."""
    numbers, _ = footnotes(table)
    methods = tuple(Cell(m, f" [{numbers[m]}]" if m in numbers else "") for m in table.methods)
    rung_of = {row.method: row.rung or q.ABSENT for row in table.rows}
    rungs = tuple(Cell(rung_of[method]) for method in table.methods)
    columns = [
        Column("rung", ("", "rung"), rungs, 13, is_text=True),
        Column("method", ("", "method"), methods, 0, is_text=True),
    ]
    columns += _quality_columns(table)
    columns += _cost_columns(table)
    return [c for c in columns if any(cell.text != q.ABSENT for cell in c.cells)]


def _quality_columns(table: Table) -> list[Column]:
    """The metric at each size, and the difference to full at the largest."""
    unit = " %" if table.metric.is_share else ""
    columns = []
    for place, size in enumerate(table.sizes):
        cells = tuple(_quality_cell(table, method, size) for method in table.methods)
        heading = (f"{table.metric.name}{unit}", f"{size:,} ex.")
        columns.append(Column(" at ".join(heading), heading, cells, _importance(table, place)))
    largest = table.sizes[-1]
    cells = tuple(_difference_cell(table, method, largest) for method in table.methods)
    columns.append(Column(f"vs full at {largest:,} ex.", ("vs full", f"{largest:,} ex."), cells, 2))
    return columns


def _importance(table: Table, place: int) -> int:
    """The largest size stays longest, then the smallest, then those between."""
    if place == len(table.sizes) - 1:
        return 1
    return 5 if place == 0 else 7


def _quality_cell(table: Table, method: str, size: int) -> Cell:
    """Mean and half-width with a star, or how the runs ended."""
    row = table.row(method, size)
    if row is None:
        return Cell(q.ABSENT)
    if row.quality is None:
        return Cell(status_words(row) if row.unfinished else q.ABSENT)
    return Cell(_estimate(row.quality, table), "*" if row.ties_with_best else "", row.best)


def _difference_cell(table: Table, method: str, size: int) -> Cell:
    """Paired difference to full."""
    row = table.row(method, size)
    if row is None or row.versus_full is None:
        return Cell(q.ABSENT)
    return Cell(_estimate(row.versus_full, table, sign="+"))


def _estimate(estimate: Estimate, table: Table, sign: str = "") -> str:
    """`53.1 +-2.1`, in the units of the table's metric."""
    digits = table.metric.digits
    mean = f"{table.metric.scale * estimate.mean:{sign}.{digits}f}"
    if estimate.sources == "nothing":
        return mean
    half = f"{table.metric.scale * estimate.half_width():.{digits}f}"
    return f"{mean} {q.PLUS_MINUS}{half:>{digits + 2}}"


def _cost_columns(table: Table) -> list[Column]:
    """Costs at the largest size."""
    shown: list[tuple[str, tuple[str, str], Show, int]] = [
        ("trainable, method + head", ("trainable", "method + head"), _parameters, 3),
        ("share of backbone", ("share of", "backbone"), _cost("trainable_share", q.percent), 11),
        ("adapter size", ("adapter", "on disk"), _cost("adapter_bytes", q.size_in_bytes), 8),
        ("training time", ("train", "time"), _cost("train_seconds", q.seconds), 4),
        ("training CPU time", ("train", "CPU time"), _cost("train_cpu_seconds", q.seconds), 12),
        ("training memory", ("train", "memory"), _memory, 6),
        ("training tensors", ("train", "tensors"), _tensors, 6),
        ("training energy", ("train", "energy"), _energy, 9),
        ("inference time", ("inference", "per ex."), _cost(_INFERENCE, q.milliseconds), 9),
        ("inference slowdown", ("infer.", "slowdown"), _cost("inference_slowdown", q.ratio), 10),
        ("forgetting, nats", ("forgets", "nats"), _cost("forgetting_nats", q.nats), 7),
    ]
    rows = [table.row(method, table.sizes[-1]) for method in table.methods]
    return [
        Column(name, heading, tuple(Cell(show(r) if r else q.ABSENT) for r in rows), priority)
        for name, heading, show, priority in shown
    ]


def _cost(name: str, write: Callable[[float | None], str]) -> Show:
    """How to show one cost."""
    return lambda row: write(row.cost(name))


def _memory(row: Row) -> str:
    """Peak memory of training, the largest over the seeds."""
    return q.size_in_bytes(row.cost("peak_memory_bytes", "train"))


def _tensors(row: Row) -> str:
    """Most that tensors took in a training step, the largest over the seeds."""
    return q.size_in_bytes(row.cost("counted_memory_bytes", "peak"))


def _energy(row: Row) -> str:
    """Energy of training, that of the GPU alone."""
    return q.joules(row.cost("energy_joules", "train"))


def _parameters(row: Row) -> str:
    """Trainable parameters: those of the method and those of the head, apart."""
    method, head = row.cost("method_parameters"), row.cost("head_parameters")
    if method is None or head is None:
        return q.count(row.cost("trainable_parameters"))
    if not head:
        return q.count(method)
    return f"{q.count(method)} + {q.count(head)}"
