"""Runs one cell of a comparison inside a worker, and leaves a record whatever happens."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import os
import shutil
import time
import traceback
from collections.abc import Callable
from typing import Any

from peftkit.device import causes, is_out_of_memory
from peftkit.errors import Diverged, DoesNotFit, Unsupported
from peftkit.recipe import Recipe
from peftkit.record import Record, Status
from peftkit.study._worker import RETIRE, Progress, one_line
from peftkit.study.folder import StudyFolder

UNWRITABLE = "unwritable"
"""Status of a result (not of a record): the output folder takes no more files."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_DISK_TEXTS = ("No space left on device", "Disk quota exceeded", "Read-only file system")


def run_cell(
    payload: dict[str, Any],
    progress: Progress,
    *,
    run: Callable[..., Record] | None = None,
) -> dict[str, Any]:
    """Run a cell, write its record to `records/<key>.json`, and return the gist of it.

    Args:
        payload: key, recipe, out, save_weights, force, data, backbone and neighbours of the cell.
        progress: Told of every step.
        run: In place of `peftkit.pipeline.run`.

    Returns:
        status, error, metric (its name), value (on the validation split), cell_seconds, and
        whether the worker should be replaced. Status "unwritable" means that there is no record.
    """
    folder, key = StudyFolder(payload["out"]), payload["key"]
    wall, cpu = time.monotonic(), time.process_time()
    metric, saved = "", False
    try:
        recipe = Recipe.from_dict(payload["recipe"])
        metric = recipe.task.metric
        partial = folder.partial(key)
        shutil.rmtree(partial, ignore_errors=True)
        record = (run or _run_of_pipeline())(
            recipe,
            partial,
            progress=progress,
            save_weights=True,  # else they are written all the same, to where nobody cleans up
            features_folder=folder.features,
            force=payload["force"],
        )
        saved = payload["save_weights"] and record.status == "done" and partial.is_dir()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        if is_disk_full(error):
            return {"status": UNWRITABLE, "error": one_line(error)}
        status, text = classify(error)
        record = unfinished_record(payload, status, text)
    times = {"cell_seconds": time.monotonic() - wall, "cell_cpu_seconds": time.process_time() - cpu}
    record = dataclasses.replace(
        record,
        key=key,
        costs={**times, **record.costs},
        environment={**record.environment, "neighbours": payload["neighbours"]},
    )
    try:
        _store(record, folder, saved)
    except OSError as error:
        traceback.print_exc()
        return {"status": UNWRITABLE, "error": one_line(error)}
    return {
        "status": record.status,
        "error": record.error,
        "metric": metric,
        "value": record.metrics.get("validation", {}).get(metric),
        "cell_seconds": record.costs["cell_seconds"],
        RETIRE: record.status in ("out_of_memory", "failed"),
    }


def classify(error: BaseException) -> tuple[Status, str]:
    """Return the status that an exception gives a record, and the text that explains it."""
    if isinstance(error, Unsupported):
        return "unsupported", str(error)
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, DoesNotFit):
        return "out_of_memory", str(error)
    if is_out_of_memory(error):
        return "out_of_memory", one_line(error)
    return "failed", one_line(error)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that files cannot be written any more."""
    return any(
        (isinstance(each, OSError) and each.errno in _DISK_ERRORS)
        or any(text in str(each) for text in _DISK_TEXTS)
        for each in causes(error)
    )


def unfinished_record(payload: dict[str, Any], status: Status, error: str) -> Record:
    """Return the record of a cell that came to nothing."""
    return Record(
        key=payload["key"],
        recipe=payload["recipe"],
        facts=payload.get("facts", {}),
        status=status,
        error=error,
        data=dict(payload["data"]),
        backbone=dict(payload["backbone"]),
        environment={"neighbours": payload["neighbours"]},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _run_of_pipeline() -> Callable[..., Record]:
    from peftkit.pipeline import run

    return run


def _store(record: Record, folder: StudyFolder, saved: bool) -> None:
    """Put the model in its place, then the record: a record's model is always whole."""
    partial, model = folder.partial(record.key), folder.model(record.key)
    if saved:
        if (partial / "record.json").exists():
            record.write(partial / "record.json")
        folder.discard_model(record.key)
        os.replace(partial, model)
    shutil.rmtree(partial, ignore_errors=True)
    record.write(folder.record(record.key))


def record_crash(payload: dict[str, Any], reason: str, *, out_of_memory: bool) -> Record:
    """Write the record of a cell whose worker left none, in the parent, and return it."""
    folder = StudyFolder(payload["out"])
    status: Status = "out_of_memory" if out_of_memory else "failed"
    record = unfinished_record(payload, status, reason)
    shutil.rmtree(folder.partial(record.key), ignore_errors=True)
    record.write(folder.record(record.key))
    return record
