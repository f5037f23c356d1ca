"""Runs cells, each in a worker process of its own, and tells what becomes of them.

On the CPU a worker is forked from a server that has imported the heavy modules and done no tensor
work; it runs one cell. On CUDA there is one spawned worker per device (a forked process cannot use
CUDA); it is used again until a cell leaves it in doubt. A worker that is killed, crashes or exits
is an event, not the end.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from peftkit.study._server import HEAVY_MODULES, start_server, start_worker
from peftkit.study._worker import Progress, one_line

__all__ = [
    "HEAVY_MODULES",
    "Cell",
    "Crashed",
    "Event",
    "Finished",
    "Progress",
    "Progressed",
    "Started",
    "run_cells",
    "start_server",
]

_SECONDS_TO_EXIT = 10.0


@dataclass(frozen=True)
class Cell:
    """One piece of work: a key that names its log, and what the function receives."""

    key: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Started:
    """A worker has been given the cell."""

    key: str
    pid: int


@dataclass(frozen=True)
class Progressed:
    """The cell has done `step` of `total` steps of what it is doing."""

    key: str
    step: int
    total: int
    what: str


@dataclass(frozen=True)
class Finished:
    """The function returned `result` for the cell."""

    key: str
    result: dict[str, Any]


@dataclass(frozen=True)
class Crashed:
    """The cell ended without a result.

    Attributes:
        key: The cell.
        reason: What happened, in words.
        exit_code: Of the worker, negative for a signal; none if the function raised.
        out_of_memory: Whether memory ran out, as far as can be known from outside.
    """

    key: str
    reason: str
    exit_code: int | None
    out_of_memory: bool


Event = Started | Progressed | Finished | Crashed


def run_cells(
    cells: Sequence[Cell],
    function: str,
    *,
    on_event: Callable[[Event], None],
    slots: int = 1,
    devices: Sequence[str] = (),
    threads: int = 1,
    preload: Sequence[str] = HEAVY_MODULES,
    logs: Path | None = None,
) -> None:
    """Run every cell in a worker process, `slots` at a time, in the order given.

    Args:
        cells: The work.
        function: "package.module:name", called in the worker as `function(payload, progress)`;
            it returns a small dictionary and may call `progress(step, total, what)`.
        on_event: Called in this process: `Started`, any number of `Progressed`, then `Finished`
            or `Crashed`, for each cell. An exception from it stops everything.
        slots: Workers at a time.
        devices: Values of CUDA_VISIBLE_DEVICES, one worker each; empty: CPU.
        threads: CPU threads of torch in each worker.
        preload: Modules that the fork server imports (CPU only).
        logs: Folder that receives what each cell prints, as `<key>.log`.

    When this function is left by an exception (Ctrl-C included), no worker is left behind.
    """
    pool = _Pool(function, on_event, threads, tuple(preload), logs)
    places: list[str | None] = list(devices) if devices else [None] * max(1, slots)
    pool.free = places[: max(1, slots)]
    try:
        pool.run(deque(cells))
    finally:
        pool.close()


@dataclass(eq=False)
class _Worker:
    """A worker process as its parent sees it."""

    process: BaseProcess
    connection: Connection
    device: str | None
    cell: Cell | None = None
    connected: bool = True
    leaves_by: float = math.inf

    @property
    def idle(self) -> bool:
        """Whether it can take a cell."""
        return self.cell is None and self.leaves_by == math.inf


class _Pool:
    """The workers of one `run_cells`."""

    def __init__(
        self,
        function: str,
        on_event: Callable[[Event], None],
        threads: int,
        preload: tuple[str, ...],
        logs: Path | None,
    ) -> None:
        self.function, self.on_event = function, on_event
        self.threads, self.preload, self.logs = threads, preload, logs
        self.free: list[str | None] = []
        self.workers: list[_Worker] = []

    def run(self, waiting: deque[Cell]) -> None:
        while waiting or self.workers:
            while waiting and (worker := self._available(waiting[0])):
                self._give(worker, waiting.popleft())
            if not self.workers:  # none can be started, as has been reported for this cell
                waiting.popleft()
                continue
            if not waiting:
                self._dismiss_idle()
            self._listen()

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            _kill(worker)
        for worker in self.workers:
            worker.process.join(_SECONDS_TO_EXIT)
            worker.connection.close()
        self.workers.clear()

    def _available(self, cell: Cell) -> _Worker | None:
        """Return an idle worker, or start one if there is room."""
        for worker in self.workers:
            if worker.idle:
                return worker
        if not self.free:
            return None
        device = self.free.pop(0)
        try:
            process, connection = start_worker(
                self.function,
                device=device,
                threads=self.threads,
                preload=self.preload,
                logs=self.logs,
            )
        except (OSError, EOFError) as error:
            self.free.append(device)
            if not self.workers:
                self.on_event(Started(cell.key, 0))
                reason = f"no worker could be started ({one_line(error)})"
                self.on_event(Crashed(cell.key, reason, None, False))
            return None
        worker = _Worker(process, connection, device)
        self.workers.append(worker)
        return worker

    def _give(self, worker: _Worker, cell: Cell) -> None:
        worker.cell = cell
        self.on_event(Started(cell.key, worker.process.pid or 0))
        with contextlib.suppress(OSError):  # it died while idle: its end is reported below
            worker.connection.send((cell.key, cell.payload))

    def _dismiss_idle(self) -> None:
        """Let reused workers end by themselves: they read the end of their requests."""
        for worker in self.workers:
            if worker.idle:
                worker.connection.close()
                worker.connected = False
                worker.leaves_by = time.monotonic() + _SECONDS_TO_EXIT

    def _listen(self) -> None:
        """Wait for something to happen, and deal with it."""
        sources: dict[Any, _Worker] = {w.process.sentinel: w for w in self.workers}
        sources.update({w.connection: w for w in self.workers if w.connected})
        ready = wait(list(sources), timeout=1.0)
        ended = [w for w in self.workers if w.process.sentinel in ready]
        for source in ready:
            if source in sources and isinstance(source, Connection):
                self._receive(sources[source])
        for worker in self.workers:
            if time.monotonic() > worker.leaves_by:  # stuck in its own clean-up
                _kill(worker)
        for worker in ended:
            self._bury(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            kind, *rest = worker.connection.recv()
        except Exception:  # the end of the pipe, or a message cut short by the worker's end
            worker.connected = False
            return
        if worker.cell is None:
            return
        key = worker.cell.key
        if kind == "progress":
            self.on_event(Progressed(key, *rest))
            return
        stays = kind == "finished" and rest[1]
        worker.cell = None
        worker.leaves_by = math.inf if stays else time.monotonic() + _SECONDS_TO_EXIT
        if kind == "finished":
            self.on_event(Finished(key, rest[0]))
        else:
            self.on_event(Crashed(key, rest[0], None, False))

    def _bury(self, worker: _Worker) -> None:
        """Hear the last words of a worker that has ended, and free its place."""
        while worker.connected and worker.connection.poll():
            self._receive(worker)
        worker.process.join(_SECONDS_TO_EXIT)
        exit_code = worker.process.exitcode
        if (
            worker.connected and worker.process.pid
        ):  # only the fork server has ended, not the worker
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGKILL)
        self.workers.remove(worker)
        self.free.append(worker.device)
        worker.connection.close()
        if worker.cell is not None:
            reason, out_of_memory = _describe_exit(exit_code)
            self.on_event(Crashed(worker.cell.key, reason, exit_code, out_of_memory))


def _describe_exit(exit_code: int | None) -> tuple[str, bool]:
    """Say in words how a worker ended, and whether memory probably ran out."""
    if exit_code is None or exit_code >= 0:
        return f"the worker exited with code {exit_code} and left no result", False
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if exit_code == -signal.SIGKILL:
        return f"the worker was killed by {name}: probably the machine ran out of memory", True
    return f"the worker was ended by {name} ({signal.strsignal(-exit_code)})", False


def _kill(worker: _Worker) -> None:
    with contextlib.suppress(OSError, AttributeError):
        worker.process.kill()
