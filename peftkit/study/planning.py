"""What a comparison would do, found out before any of it is done."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import InvalidInput
from peftkit.recipe import Recipe
from peftkit.record import Record
from peftkit.study import grid, machine
from peftkit.study.folder import SETTLED, StudyFolder
from peftkit.study.grid import Facts, GridCell
from peftkit.study.models import KeepWeights, disk_needed_bytes
from peftkit.study.timings import Timings

# Weights, gradients and two moments of Adam in float32; and what a process takes without them.
_BYTES_A_PARAMETER, _BYTES_A_PROCESS = 16, 1_000_000_000
_PACKAGES = ("peftkit", "torch", "transformers", "peft", "datasets")


@dataclass(frozen=True)
class Plan:
    """A comparison, ready to run.

    Attributes:
        folder: Where it writes.
        cells: The whole grid, in the order it is run.
        settled: Records, by key, of the cells that need not be run.
        timings: What those records tell about the time cells take.
        devices: Values of CUDA_VISIBLE_DEVICES, one worker each; empty: CPU.
        slots: Cells at a time.
        threads: CPU threads of each.
        disk_needed_bytes: At most, roughly.
        disk_free_bytes: Where the folder is.
        messages: What the user should know.
    """

    folder: StudyFolder
    cells: list[GridCell]
    settled: dict[str, Record]
    timings: Timings
    devices: list[str]
    slots: int
    threads: int
    disk_needed_bytes: int
    disk_free_bytes: int
    messages: list[str]

    @property
    def waiting(self) -> list[GridCell]:
        """The cells to run."""
        return [cell for cell in self.cells if cell.key not in self.settled]

    @property
    def seconds(self) -> float | None:
        """Predicted time until all is done; none: unknown, because nothing like it has run here."""
        return self.timings.left(self.waiting, {}, self.slots)

    def predicted_seconds(self, cell: GridCell) -> float | None:
        """Return the predicted time of one cell; none: unknown."""
        return self.timings.predict(cell)


def make_plan(
    pairs: Sequence[tuple[str, Recipe]],
    folder: StudyFolder,
    *,
    facts: Callable[[Recipe], Facts],
    workers: int | None,
    keep_weights: KeepWeights,
) -> Plan:
    """Look at data, weights, folder and machine, and return what is to be done.

    Writes nothing.

    Raises:
        InvalidInput: A size is not available, or the disk is too small.
    """
    cells = grid.cells(pairs, facts)
    records, messages = folder.read()
    mine = {cell.key: cell for cell in cells}
    settled = {k: r for k, r in records.items() if k in mine and r.status in SETTLED}
    messages += _foreign(records, mine)
    timings = Timings()
    for key, record in settled.items():
        if record.status == "done" and record.costs.get("cell_seconds"):
            timings.add(mine[key], float(record.costs["cell_seconds"]))
    waiting = [cell for cell in cells if cell.key not in settled]
    devices = machine.visible_devices() if waiting else []
    threads = max(cell.recipe.training.threads for cell in cells)
    slots, message = _slots(cells, workers, devices, threads)
    messages += [message] if message else []
    needed = disk_needed_bytes(waiting, keep_weights, slots)
    free = shutil.disk_usage(_existing(folder.path)).free
    if needed > free:
        raise InvalidInput(
            f"the disk of {folder.path} may be too small for this comparison",
            received=f"{needed / 1e9:.1f} GB needed at most, {free / 1e9:.1f} GB free",
            next_step="free space, choose another folder, or keep fewer weights (none)",
        )
    return Plan(
        folder, cells, settled, timings, devices, slots, threads, needed, free, messages
    )  # fmt: skip


def describe_study(cells: Sequence[GridCell], keep_weights: KeepWeights) -> dict[str, Any]:
    """Return the content of `study.json`; "study" is the same for all that may share a table."""
    first = cells[0]
    task = {
        name: value
        for name, value in first.recipe.to_dict()["task"].items()
        if name not in ("size", "label_noise")
    }
    shared = {
        "task": task,
        "data": first.facts["data"],
        "backbone": first.facts["backbone"],
        "precision": first.facts["precision"],
    }
    identity = [task, shared["data"]["fingerprint"], shared["backbone"]["fingerprint"]]
    return {
        "format": 1,
        "study": hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
        **shared,
        "methods": list(dict.fromkeys(c.label for c in sorted(cells, key=lambda c: c.label))),
        "sizes": list(dict.fromkeys(cell.size for cell in cells)),
        "seeds": list(dict.fromkeys(cell.recipe.seed for cell in cells)),
        "noises": list(dict.fromkeys(cell.noise for cell in cells)),
        "keep_weights": keep_weights,
        "versions": _versions(),
        "cells": {
            cell.key: {
                "method": cell.label,
                "size": cell.size,
                "noise": cell.noise,
                "seed": cell.recipe.seed,
            }
            for cell in cells
        },
    }


def _slots(
    cells: Sequence[GridCell], workers: int | None, devices: list[str], threads: int
) -> tuple[int, str | None]:
    """Return how many cells run at a time, and what limits them, if that is news."""
    if workers is not None:
        return (min(workers, len(devices)) if devices else workers), None
    if devices:
        return len(devices), None
    by_cores = max(1, machine.usable_cores() // threads)
    free = machine.available_memory_bytes()
    parameters = max(int(c.facts["backbone"].get("total_parameters") or 0) for c in cells)
    each = _BYTES_A_PROCESS + _BYTES_A_PARAMETER * parameters
    by_memory = by_cores if free is None else max(1, free // each)
    if by_memory < by_cores:
        return by_memory, (
            f"{by_memory} cells at a time instead of {by_cores}: memory may not hold more "
            f"(about {each / 1e9:.1f} GB each)"
        )
    return by_cores, None


def _foreign(records: Mapping[str, Record], mine: Mapping[str, GridCell]) -> list[str]:
    """Say which records of the folder are not part of this comparison."""
    data = {str(cell.facts["data"]["fingerprint"]) for cell in mine.values()}
    foreign = [record for key, record in records.items() if key not in mine]
    other = [r for r in foreign if str(r.data.get("fingerprint", "")) not in data]
    messages = []
    if other:
        messages.append(
            f"{len(other)} records in the folder were made on other data (another corpus, or other "
            "versions of the installed libraries): kept, and not mixed with these"
        )
    if len(foreign) > len(other):
        messages.append(
            f"{len(foreign) - len(other)} records in the folder belong to cells that this "
            "comparison does not ask for: kept"
        )
    return messages


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
