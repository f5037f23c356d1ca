"""Runs cells on a Ray cluster: this machine as one, or many machines with `--address`.

Each cell is a Ray task in a process of its own, whose record (and model, if it is kept) comes back
through Ray, so the machines need no common file system; what they need is peftkit, and the data
under the same names. A worker or node that dies costs its running cells: Ray starts each once more,
on what is left.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import tarfile
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from peftkit.errors import InvalidInput
from peftkit.study._worker import one_line
from peftkit.study.workers import Cell, Crashed, Event, Finished, Started

RESTARTS = 1  # of a cell whose worker or node died
_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0


def run_cells_on_ray(
    cells: Sequence[Cell],
    function: str,
    *,
    on_event: Callable[[Event], None],
    threads: int = 1,
    address: str | None = None,
    workers: int | None = None,
    logs: Path | None = None,
) -> None:
    """Run every cell as a Ray task, as many at a time as the cluster has room for.

    Args:
        cells: The work.
        function: As for `peftkit.study.workers.run_cells`.
        on_event: As there; there is no `Progressed`.
        threads: CPUs that each cell takes.
        address: Of a running cluster; none: one on this machine, ended with the study.
        workers: Cells at a time at most; none: no bound.
        logs: Folder that receives what each cell printed, as `<key>.log`.

    Raises:
        InvalidInput: Ray is not installed, or the cluster cannot be reached.
    """
    with _cluster(address) as ray:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=threads, num_gpus=gpus, max_calls=1, max_retries=RESTARTS)(_work)
        waiting = deque(cells)
        running: dict[Any, Cell] = {}
        try:
            while waiting or running:
                room = _room(ray.cluster_resources(), threads, gpus, workers)
                while waiting and len(running) < room:
                    cell = waiting.popleft()
                    payload = {**cell.payload, "neighbours": room - 1}
                    running[task.remote(function, payload, os.getcwd())] = cell
                    on_event(Started(cell.key, 0))
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_SECONDS)
                for reference in ready:
                    cell = running.pop(reference)
                    on_event(_outcome(ray, reference, cell, logs))
        finally:
            for reference in running:
                with contextlib.suppress(Exception):
                    ray.cancel(reference, force=True)


def _room(resources: dict[str, float], threads: int, gpus: int, workers: int | None) -> int:
    """How many cells run at a time."""
    bounds = [resources.get("CPU", 1) // threads]
    bounds += [resources.get("GPU", 0)] if gpus else []
    bounds += [] if workers is None else [workers]
    return max(1, int(min(bounds)))


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; what was started for it ends with it."""
    try:
        import ray
    except ImportError as error:
        raise InvalidInput(
            "the engine ray needs Ray", next_step="pip install 'peftkit[ray]'"
        ) from error
    own = not ray.is_initialized()
    if own:
        stop = signal.getsignal(signal.SIGTERM)
        try:
            _reach(address)
            # Without "local" Ray would join whatever cluster runs here.
            ray.init(address=address or "local", log_to_driver=False, include_dashboard=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                "the Ray cluster cannot be reached",
                received=f"--address {address}: {one_line(error)}",
                allowed="the address that `ray start --head` printed, or none for this machine",
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)  # Ray's would end it with a status of its own
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _reach(address: str | None) -> None:
    """See that somebody listens at `host:port`: Ray itself would wait for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()


def _outcome(ray: Any, reference: Any, cell: Cell, logs: Path | None) -> Event:
    """What became of a task; its files are in place before anybody is told."""
    try:
        result, packed, printed = ray.get(reference)
    except ray.exceptions.OutOfMemoryError as error:
        return Crashed(cell.key, one_line(error), None, out_of_memory=True)
    except Exception as error:  # of Ray, or one that the cell itself did not catch
        return Crashed(cell.key, one_line(error), None, out_of_memory=False)
    if logs is not None:
        (logs / f"{cell.key}.log").write_text(printed, encoding="utf-8")
    _unpack(packed, Path(cell.payload["out"]))
    return Finished(cell.key, result)


def _unpack(packed: bytes, out: Path) -> None:
    """Put the model in its place, then the record: each is whole or absent."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".ray-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        for part in ("models", "records"):
            for path in (Path(folder) / part).iterdir():
                target = out / part / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(path, target)


def _work(
    function: str, payload: dict[str, Any], directory: str
) -> tuple[dict[str, Any], bytes, str]:
    """Run a cell on a node, in a folder of its own, and hand back what it left there."""
    import importlib

    if os.path.isdir(directory):  # where relative names of data are found
        os.chdir(directory)
    module, _, name = function.partition(":")
    printed = io.StringIO()
    with (
        tempfile.TemporaryDirectory(prefix="peftkit-") as folder,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        for part in ("records", "models"):
            os.makedirs(os.path.join(folder, part))
        here = {**payload, "out": folder}
        result = getattr(importlib.import_module(module), name)(here, lambda *_: None)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for part in ("models", "records"):
                archive.add(os.path.join(folder, part), arcname=part)
    return result, packed.getvalue(), printed.getvalue()
