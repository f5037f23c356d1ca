"""What a person sees of a running comparison, on stderr: live bars, or one line a cell."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from peftkit.study.grid import GridCell
from peftkit.study.timings import Timings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


class Display(Protocol):
    """Told of everything that happens."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def message(self, text: str) -> None:
        """Say something that is not about one cell."""

    def preparing(self, step: int, total: int, what: str) -> None:
        """Say how far the preparations are; a `Progress`."""

    def begin(self, total: int, settled: int) -> None:
        """Cells are about to run: `total` in all, of which `settled` need not."""

    def started(self, cell: GridCell) -> None:
        """A cell has begun."""

    def progressed(self, cell: GridCell, step: int, total: int, what: str) -> None:
        """A cell has done some of its steps."""

    def ended(self, cell: GridCell, outcome: str, seconds_left: float | None) -> None:
        """A cell has ended."""


class SilentDisplay:
    """Says nothing."""

    def __enter__(self) -> SilentDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def preparing(self, step: int, total: int, what: str) -> None:
        pass

    def begin(self, total: int, settled: int) -> None:
        pass

    def started(self, cell: GridCell) -> None:
        pass

    def progressed(self, cell: GridCell, step: int, total: int, what: str) -> None:
        pass

    def ended(self, cell: GridCell, outcome: str, seconds_left: float | None) -> None:
        pass


class LineDisplay(SilentDisplay):
    """Writes one line for each cell that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._ended = 0

    def message(self, text: str) -> None:
        self._say(text)

    def begin(self, total: int, settled: int) -> None:
        self._total, self._ended = total, settled
        already = f", {settled} of them done before" if settled else ""
        self._say(f"{total} cells{already}")

    def ended(self, cell: GridCell, outcome: str, seconds_left: float | None) -> None:
        left = ""
        if self._ended + 1 < self._total:
            left = "; " + _left(seconds_left)
        self._count(cell, outcome + left)

    def _count(self, cell: GridCell, outcome: str) -> None:
        self._ended += 1
        self._say(f"[{self._ended:{len(str(self._total))}}/{self._total}] {cell.title}: {outcome}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay(LineDisplay):
    """Lines for what has ended, and below them a bar for each running cell and one for all."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__(console)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._of_cell: dict[str, TaskID] = {}
        self._overall: TaskID | None = None
        self._preparations: dict[str, TaskID] = {}

    def __enter__(self) -> LiveDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def preparing(self, step: int, total: int, what: str) -> None:
        if what not in self._preparations:
            self._preparations[what] = self._bars.add_task(what, count="", note="")
        count = f"{step}/{total}"
        self._bars.update(self._preparations[what], completed=step, total=total, count=count)

    def begin(self, total: int, settled: int) -> None:
        super().begin(total, settled)
        for bar in self._preparations.values():
            self._bars.remove_task(bar)
        self._overall = self._bars.add_task(
            "all cells", total=total, completed=settled, count=f"{settled}/{total}", note=""
        )

    def started(self, cell: GridCell) -> None:
        self._of_cell[cell.key] = self._bars.add_task(cell.title, total=None, count="", note="")

    def progressed(self, cell: GridCell, step: int, total: int, what: str) -> None:
        bar = self._of_cell[cell.key]
        self._bars.update(bar, completed=step, total=total, count=f"{step}/{total} {what}")

    def ended(self, cell: GridCell, outcome: str, seconds_left: float | None) -> None:
        self._count(cell, outcome)
        self._bars.remove_task(self._of_cell.pop(cell.key))
        note = _left(seconds_left) if self._ended < self._total else ""
        assert self._overall is not None
        self._bars.update(
            self._overall,
            completed=self._ended,
            count=f"{self._ended}/{self._total}",
            note=note,
        )


def make_display(*, quiet: bool) -> Display:
    """Return the display that suits stderr."""
    if quiet:
        return SilentDisplay()
    from rich.console import Console

    console = Console(file=sys.stderr)
    return LiveDisplay(console) if console.is_terminal else LineDisplay(console)


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Return a duration as a person says it: 41 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Watch:
    """Passes what happens to the cells on to a display, with the time it leaves.

    Args:
        display: Where it is shown.
        waiting: The cells to run, in their order.
        timings: What is known of the time cells take; it learns.
        slots: Cells at a time.
    """

    def __init__(
        self, display: Display, waiting: list[GridCell], timings: Timings, slots: int
    ) -> None:
        self._display, self._timings, self._slots = display, timings, slots
        self._waiting = {cell.key: cell for cell in waiting}
        self._running: dict[str, tuple[GridCell, float]] = {}

    def started(self, key: str) -> None:
        cell = self._waiting.pop(key)
        self._running[key] = (cell, time.monotonic())
        self._display.started(cell)

    def progressed(self, key: str, step: int, total: int, what: str) -> None:
        self._display.progressed(self._running[key][0], step, total, what)

    def ended(self, key: str, result: dict[str, Any]) -> None:
        cell, since = self._running.pop(key)
        seconds = time.monotonic() - since
        if result["status"] == "done":
            self._timings.add(cell, float(result.get("cell_seconds") or seconds))
        now = time.monotonic()
        running = {other: now - start for other, start in self._running.values()}
        left = self._timings.left(self._waiting.values(), running, self._slots)
        self._display.ended(cell, _outcome(result, seconds), left)


def _outcome(result: dict[str, Any], seconds: float) -> str:
    status = str(result["status"]).replace("_", " ")
    if result["status"] != "done":
        return f"{status}: {result.get('error', '')}"
    value = result.get("value")
    metric = "" if value is None else f"{result['metric']} {value:.3f} (validation), "
    return f"{status}, {metric}{duration(seconds)}"
