"""The table in a terminal, as wide as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from peftkit.quantities import PLUS_MINUS
from peftkit.reporting import notes
from peftkit.reporting.columns import Cell, Column, columns_of
from peftkit.reporting.summary import Table

_WIDEST_METHOD = 26
_GAP = 2  # one of padding, one that rich puts between columns


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print every table with its heading, caption and notes."""
    if reason := notes.apart(tables):
        _print(console, reason, style="yellow")
    for table in tables:
        _print_table(table, console, is_alone=len(tables) == 1)


def print_lines(lines: Sequence[str], console: Console, *, style: str = "") -> None:
    """Print one line each; long ones wrap."""
    for line in lines:
        _print(console, line, style=style)


def _print_table(table: Table, console: Console, *, is_alone: bool) -> None:
    """Print one table; fingerprints only where there is another to tell it from."""
    columns = columns_of(table)
    shown = fitting(columns, console.width)
    console.print()
    _print(console, notes.heading(table), style="bold")
    _print(console, notes.setting(table), style="dim")
    if not is_alone:
        _print(console, notes.origin(table), style="dim")
    console.print(_grid(table, shown, console))
    console.print()
    _, footnotes = notes.footnotes(table)
    for number, text in enumerate(footnotes, start=1):
        _print(console, f"[{number}] {text}", style="yellow")
    for text in table.notes:
        _print(console, f"Note: {text}.", style="yellow")
    _print(console, notes.reading(table), style="dim")
    _print(console, notes.costs(table), style="dim")
    hidden = [c.name for c in columns if c not in shown and not c.is_text]
    if hidden:
        _print(console, f"No room for: {', '.join(hidden)} (see table.md).", style="dim")


def fitting(columns: list[Column], width: int) -> list[Column]:
    """The most important columns that fit into `width` characters, in their order.

    Method and metric at the largest size stay however narrow it is.
    """
    kept: list[Column] = []
    for column in sorted(columns, key=lambda column: column.priority):
        if len(kept) < 2 or sum(_width(c) + _GAP for c in [*kept, column]) <= width:
            kept.append(column)
    return [column for column in columns if column in kept]


def _width(column: Column) -> int:
    """Characters a column takes; long labels of methods are folded."""
    return min(column.width, _WIDEST_METHOD) if column.is_text else column.width


def _grid(table: Table, columns: list[Column], console: Console) -> Grid:
    """The table as rich draws it, with a line between the rungs."""
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        side: Literal["left", "right"] = "left" if column.is_text else "right"
        grid.add_column(
            Text(plain("\n".join(column.heading), console), justify=side),
            justify=side,
            no_wrap=not column.is_text,
            max_width=_width(column),
            overflow="fold",
        )
    for place in range(len(table.methods)):
        grid.add_row(*(_text(column, column.cells[place], console) for column in columns))
    return grid


def _text(column: Column, cell: Cell, console: Console) -> Text:
    """One cell; marks are padded so that numbers stay aligned."""
    style = "bold green" if cell.best else ""
    text = Text(plain(cell.text, console), style=style)
    marks = cell.marks if column.is_text else cell.marks.ljust(column.marks_width)
    text.append(marks, style="" if cell.best else "dim")
    return text


def _print(console: Console, text: str, *, style: str) -> None:
    """Print a text as it stands: no markup, no highlighting."""
    console.print(Text(plain(text, console), style=style))


def plain(text: str, console: Console) -> str:
    """`text` in the characters that the console can show."""
    if console.encoding.lower().startswith("utf"):
        return text
    plain = text.replace(PLUS_MINUS, "+-")
    return plain.encode(console.encoding, "replace").decode(console.encoding)
