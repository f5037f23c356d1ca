"""Starting worker processes: the fork server, the environment they need, and their context.

What a worker imports must find its environment set (OpenMP reads it once), so the fork server gets
it before it imports anything.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from peftkit.study import _worker

HEAVY_MODULES = ("torch", "transformers.trainer", "peft", "datasets")


def start_server(*, threads: int = 1, preload: Sequence[str] = HEAVY_MODULES) -> None:
    """Start the fork server unless it runs, and return at once while it imports modules."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload(["peftkit.study._preload"])
    environment = {
        **_worker_environment(threads),
        _worker.PRELOAD: ",".join(preload),
        _worker.GUARD: "1" if _in_main_thread() else "",
        # The server's own search path is not the parent's, so it would not find every module.
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    before = dict(os.environ)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.environ.update(environment)
        with main_module_hidden():
            forkserver.ensure_running()
    finally:
        for name in environment:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in environment if name in before})
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def start_worker(
    function: str, *, device: str | None, threads: int, preload: Sequence[str], logs: Path | None
) -> tuple[BaseProcess, Connection]:
    """Start a worker, and return it with our end of the pipe.

    Args:
        function: What it calls for each cell.
        device: Value of CUDA_VISIBLE_DEVICES for a spawned, reused worker; none: a forked worker
            for one cell on the CPU.
        threads: CPU threads of torch.
        preload: Modules that the fork server imports.
        logs: Folder for what cells print.

    Raises:
        OSError, EOFError: No process could be started.
    """
    environment = {**os.environ, **_worker_environment(threads)}
    if device is None:
        start_server(threads=threads, preload=preload)
    else:
        environment["CUDA_VISIBLE_DEVICES"] = device
    settings = _worker.WorkerSettings(
        function=function,
        threads=threads,
        environment=environment,
        guarded=device is None or _in_main_thread(),
        logs=logs,
        reused=device is not None,
    )
    context = _context(device)
    ours, theirs = context.Pipe()
    try:
        process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_worker.main, args=(theirs, settings), name="peftkit-worker"
        )
        with main_module_hidden():
            process.start()
    except BaseException:
        ours.close()  # a worker that starts all the same reads the end of its requests, and leaves
        raise
    finally:
        theirs.close()
    return process, ours


def _context(device: str | None) -> BaseContext:
    forks = device is None and "forkserver" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if forks else "spawn")


def _worker_environment(threads: int) -> dict[str, str]:
    """Return the variables that must be set before a worker imports anything heavy."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # glibc returns every block over 32 MB to the kernel and faults it in again, zeroed, at the
        # next step: the gradient of an embedding costs 45 ms so, and 8 ms with these.
        "MALLOC_MMAP_THRESHOLD_": str(2**32),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
    }


def _in_main_thread() -> bool:
    """Whether the calling thread lives as long as the process: the kernel's guard needs that."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def main_module_hidden() -> Iterator[None]:
    """Keep workers from running the user's script again: cells are named, never pickled.

    So a script needs no `if __name__ == "__main__"` around its call.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
