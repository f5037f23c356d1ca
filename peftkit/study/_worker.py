"""What runs inside a worker process: receive a cell, call the function, send back what it returned.

Messages to the parent are tuples: ("progress", step, total, what), ("finished", result, stays) and
("raised", reason). A worker never outlives its parent: a thread waits for the parent's end, and on
Linux the kernel kills the worker even while some C code holds the interpreter's lock.
"""

from __future__ import annotations

import faulthandler
import importlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

Progress = Callable[[int, int, str], None]
"""Called by a cell with steps done, steps in all and what is being done; cheap at every step."""

PRELOAD = "PEFTKIT_STUDY_PRELOAD"
GUARD = "PEFTKIT_STUDY_GUARD"
RETIRE = "retire_worker"
"""Key of a result that asks for a fresh worker for the next cell."""

_PR_SET_PDEATHSIG = 1
_SECONDS_BETWEEN_REPORTS = 0.2


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told when it starts.

    Attributes:
        function: "package.module:name" of what is called for each cell.
        threads: CPU threads of torch.
        environment: The whole environment of the worker.
        guarded: Whether the kernel is to end the worker together with the process it came from.
            Off where the workers were started from a thread that may end before they do.
        logs: Folder for what the cells print; none: nowhere.
        reused: Whether more cells follow the first one.
    """

    function: str
    threads: int
    environment: dict[str, str] = field(repr=False)
    guarded: bool
    logs: Path | None
    reused: bool


def main(connection: Connection, settings: WorkerSettings) -> None:
    """Serve cells until told to stop, or one of them leaves the worker in doubt."""
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    if settings.guarded:
        die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(settings.environment)
    if "torch" in sys.modules:  # imported later, it finds the number in the environment
        sys.modules["torch"].set_num_threads(settings.threads)
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        key, payload = request
        _redirect_output(settings.logs and settings.logs / f"{key}.log")
        if not _serve(connection, settings, payload):
            return


def die_with_parent() -> None:
    """Ask the kernel (Linux only) to kill this process when the one that started it ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _serve(connection: Connection, settings: WorkerSettings, payload: dict[str, Any]) -> bool:
    """Run one cell, and say whether this worker can take another."""
    stays = False
    try:
        module, _, name = settings.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        result = function(payload, _reporter(connection))
        stays = settings.reused and not result.get(RETIRE, False)
        connection.send(("finished", result, stays))
    except BaseException as error:
        stays = False
        traceback.print_exc()
        connection.send(("raised", one_line(error)))
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    return stays


def one_line(error: BaseException) -> str:
    """Return the last line of an error's traceback, on one line and of moderate length."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    return text if len(text) <= 600 else text[:600] + " ..."


def _reporter(connection: Connection) -> Progress:
    """Return a function that passes progress on, a few times a second at most."""
    last, doing = 0.0, ""

    def report(step: int, total: int, what: str) -> None:
        nonlocal last, doing
        now = time.monotonic()
        if step >= total or what != doing or now - last >= _SECONDS_BETWEEN_REPORTS:
            last, doing = now, what
            connection.send(("progress", step, total, what))

    return report


def _redirect_output(log: Path | None) -> None:
    """Send everything that is printed, by C code too, into the log of the cell."""
    target = -1
    if log is not None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError:  # a full disk: the cell itself will say so
            target = -1
    if target < 0:
        target = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    faulthandler.enable(file=2)
