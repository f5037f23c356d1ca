"""The table of a plan, printed row by row as rows come, and the line on stderr that says how far.

Widths are known before the first row, so that a table can begin before it ends. Parts of a peak are
W: weights, frozen and trained, their copies and scales; G: gradients; O: the optimizer's
state; A: activations, logits and what is held for a moment.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.text import Text

from peftkit.memory.plan import Cell, Outlook, Row, Way
from peftkit.quantities import count, percent

GIB = 2**30
_PARTS = {"weights": "W", "quantization_state": "W", "weight_copies": "W", "gradients": "G",
          "optimizer": "O"}  # fmt: skip
_STYLES = {"W": "blue", "G": "magenta", "O": "cyan", "A": "yellow", ".": "dim", ">": "bold red"}
_HEADS = ("base", "ckpt", "card", "peak", "W", "G", "O", "A", "batch")
_WIDTHS = (4, 4, 6, 6, 5, 5, 5, 5, 6)
_BAR, _ROOM_FOR_A_BAR = 40, 150
_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_OF_THE_REMEMBERED = 1.0  # rows that need no computing are there by then


def gib(value: int) -> str:
    """Bytes as a number of GiB that is at most five characters long."""
    if value == 0:
        return "-"
    found = value / GIB
    if found < 0.005:
        return "<.01"
    return f"{found:.2f}" if found < 9.995 else f"{found:.1f}" if found < 999.95 else f"{found:.0f}"


def shares(outlook: Outlook) -> dict[str, int]:
    """Bytes at the peak of W, G, O and A, which sum to it."""
    found = dict.fromkeys("WGOA", 0)
    for name, size in outlook.parts.items():
        found[_PARTS.get(name, "A")] += size
    return found


def describe_way(way: Way | None, batch_size: int) -> str:
    """A way to make a row fit: "checkpointing, batch 2 x 4 (21.3)"; "" if there is none."""
    if way is None:
        return ""
    words = [*way.changes]
    if way.batch_size != batch_size:
        words.append(f"batch {way.batch_size} x {way.accumulation}")
    return f"{' + '.join(words)} ({gib(way.total_bytes)})"


def bar(outlook: Outlook, limit_bytes: int, width: int = _BAR) -> str:
    """The peak's parts as letters, the card as the whole; dots are free, ">" is what is too much.

    What the allocator reserves beyond the peak, and CUDA's context, count as A.
    """
    sizes = shares(outlook)
    sizes["A"] += outlook.total_bytes - outlook.peak_bytes
    text, end = "", 0
    for letter, size in sizes.items():
        end += size
        text += letter * (round(width * end / limit_bytes) - len(text))
    return f"{text[: width - 1]}>" if outlook.total_bytes > limit_bytes else text.ljust(width, ".")


class PlanTable:
    """Prints rows of one method after the other, each method under its name."""

    def __init__(self, console: Console, limit_bytes: int) -> None:
        self._console, self._limit = console, limit_bytes
        self._has_bar = console.width >= _ROOM_FOR_A_BAR
        self._method, self._reason = "", ""

    def head(self, title: str, lines: list[str]) -> None:
        """Say what the table is of, and name its columns."""
        self._print(title, style="bold")
        for line in lines:
            for part in textwrap.wrap(line, self._console.width):
                self._print(part, style="dim")
        self._console.print()
        heads = zip(_HEADS, _WIDTHS, strict=True)
        cells = [h.ljust(w) if h in _HEADS[:2] else h.rjust(w) for h, w in heads]
        cells += ["of the card".ljust(_BAR)] if self._has_bar else []
        self._print("  " + "  ".join([*cells, "fits, or how to make it fit"]), style="bold")

    def row(self, row: Row, way: Way | None) -> None:
        """Print a row; `way` is how to make it fit."""
        cell = row.cell
        if cell.method != self._method:
            self._method, self._reason = cell.method, ""
            self._print(cell.method, style="bold", after=_trained(row.outlook))
        if row.outlook is None:
            self._without(row)
            return
        sizes = shares(row.outlook)
        values = [row.outlook.total_bytes, row.outlook.peak_bytes, *sizes.values()]
        cells = [*map(gib, values), str(row.outlook.largest_batch)]
        padded = [text.rjust(width) for text, width in zip(cells, _WIDTHS[2:], strict=True)]
        line = Text(f"  {_place(cell)}  {'  '.join(padded)}  ")
        if self._has_bar:
            for letter in bar(row.outlook, self._limit):
                line.append(letter, style=_STYLES[letter])
            line.append("  ")
        if row.outlook.fits:
            line.append("yes", style="green")
        else:
            line.append("no", style="red")
            shown = describe_way(way, row.outlook.batch_size)
            line.append(f": {shown}" if shown else "", style="yellow")
        self._console.print(line, soft_wrap=True)

    def _without(self, row: Row) -> None:
        """Print a row that has no numbers; the same reason twice running is given once."""
        reason = row.reason.partition(" Next: ")[0]
        again = reason == self._reason
        self._reason = reason
        text = f"{row.status}{', as above' if again else f': {reason}'}"
        start = f"  {_place(row.cell)}  "
        wrapped = textwrap.wrap(text, self._console.width - len(start)) or [""]
        for place, part in enumerate(wrapped):
            self._print((start if place == 0 else " " * len(start)) + part, style="dim")

    def foot(self, rows: Mapping[Cell, Row]) -> None:
        """Say how many rows fit."""
        told = [row.outlook for row in rows.values() if row.outlook is not None]
        fitting = sum(outlook.fits for outlook in told)
        failed = sum(row.status == "failed" for row in rows.values())
        self._console.print()
        text = f"{fitting} of {len(told)} rows fit; {len(rows) - len(told) - failed} unsupported"
        self._print(text + (f"; {failed} failed" if failed else ""), style="dim")

    def _print(self, text: str, *, style: str = "", after: str = "") -> None:
        line = Text(text, style=style)
        line.append(after, style="not bold dim")
        self._console.print(line, soft_wrap=True)


def _place(cell: Cell) -> str:
    return f"{cell.precision:{_WIDTHS[0]}}  {'yes' if cell.checkpointing else '-':{_WIDTHS[1]}}"


def _trained(outlook: Outlook | None) -> str:
    if outlook is None:
        return ""
    share = outlook.trainable_parameters / outlook.total_parameters
    return f"  {count(outlook.trainable_parameters)} trained, {percent(share)}"


class Ticker:
    """One line on stderr that says how many rows are there, and how long the rest will take.

    On a terminal it is written over itself and stands below the table; else it is written anew
    every few seconds.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._begun = self._spoken = time.monotonic()
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> Ticker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, so that something else can be written there."""
        if self._live:
            self._write("\r\x1b[K")

    def show(self, done: int, total: int) -> None:
        """Say that so many rows of so many are there."""
        now = time.monotonic()
        if self._first is None and done and now - self._begun >= _SECONDS_OF_THE_REMEMBERED:
            self._first = (now, done)  # the processes have started; from here on rows come evenly
        if self._live:
            self._write(f"\r{self._text(done, total, now)}\x1b[K")
        elif now - self._spoken >= _SECONDS_BETWEEN_LINES and done < total:
            self._spoken = now
            self._write(self._text(done, total, now) + "\n")

    def _text(self, done: int, total: int, now: float) -> str:
        start, before = self._first or (now, done)
        left = ""
        if before < done < total:
            seconds = (now - start) / (done - before) * (total - done)
            left = f", about {max(1, round(seconds))} s left"
        return f"{done} of {total} rows{left}" if done else "starting"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
