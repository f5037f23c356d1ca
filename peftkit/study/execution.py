"""Carries out the plan of a comparison: hands out cells, and deals with what becomes of them."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from peftkit.errors import InvalidInput, UnknownName
from peftkit.record import Record
from peftkit.study.cell import UNWRITABLE, is_disk_full, record_crash
from peftkit.study.display import Display, Watch
from peftkit.study.folder import FolderUnwritable
from peftkit.study.grid import GridCell
from peftkit.study.models import KeepWeights, KeptModels
from peftkit.study.planning import Plan, describe_study
from peftkit.study.workers import Cell, Crashed, Event, Finished, Progressed, Started, run_cells


class Interrupted(KeyboardInterrupt):
    """A comparison was stopped by Ctrl-C or SIGTERM; its finished records are safe.

    Args:
        message: How far it came, and how to go on.
        signal_number: What stopped it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """What cells are run by.

    Attributes:
        name: "local", the processes of this machine, or "ray".
        address: Of a Ray cluster; none: one on this machine.
    """

    name: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UnknownName("engine", self.name, ENGINES)
        if self.address is not None and self.name != "ray":
            raise InvalidInput(
                "only a Ray cluster has an address",
                received=f"--address {self.address} with --engine {self.name}",
                next_step="add --engine ray, or leave the address out",
            )


LOCAL = Engine()


class Execution:
    """A plan being carried out."""

    def __init__(
        self, plan: Plan, display: Display, keep_weights: KeepWeights, *, force: bool = False
    ) -> None:
        self._force = force
        self._plan, self._display, self._keep_weights = plan, display, keep_weights
        self._folder = plan.folder
        self._cells = {cell.key: cell for cell in plan.cells}
        self._models = KeptModels(keep_weights, plan.folder)
        self._watch = Watch(display, plan.waiting, plan.timings, plan.slots)
        self._num_settled = len(plan.settled)

    def run(
        self,
        function: str,
        preload: Sequence[str],
        engine: Engine = LOCAL,
        *,
        workers: int | None = None,
    ) -> None:
        plan = self._plan
        try:
            message = self._folder.write_study(describe_study(plan.cells, self._keep_weights))
            for text in [*plan.messages, *([message] if message else [])]:
                self._display.message(text)
            for cell in plan.cells:
                if record := plan.settled.get(cell.key):
                    self._models.offer(cell, validation_value(record, cell))
            self._display.begin(len(plan.cells), len(plan.settled))
            self._run_cells(function, preload, engine, workers)
        except KeyboardInterrupt as stop:
            number = getattr(stop, "exit_code", 128 + signal.SIGINT) - 128
            raise Interrupted(f"stopped: {self._so_far()}", number) from None
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._unwritable(str(error))

    def _run_cells(
        self, function: str, preload: Sequence[str], engine: Engine, workers: int | None
    ) -> None:
        plan = self._plan
        cells = [Cell(cell.key, self._payload(cell)) for cell in plan.waiting]
        common: dict[str, Any] = {
            "on_event": self._on_event,
            "threads": plan.threads,
            "logs": self._folder.logs,
        }
        if engine.name == "ray":
            from peftkit.study.ray_engine import run_cells_on_ray

            if cells:
                run_cells_on_ray(cells, function, address=engine.address, workers=workers, **common)
            return
        run_cells(
            cells, function, slots=plan.slots, devices=plan.devices, preload=preload, **common
        )

    def _payload(self, cell: GridCell) -> dict[str, Any]:
        return {
            "key": cell.key,
            "recipe": cell.recipe.to_dict(),
            "facts": cell.recipe.facts,
            "out": str(self._folder.path),
            "save_weights": self._keep_weights != "none",
            "force": self._force,
            "data": {**cell.facts["data"], "num_train": cell.num_train},
            "backbone": dict(cell.facts["backbone"]),
            "neighbours": self._plan.slots - 1,
        }

    def _on_event(self, event: Event) -> None:
        match event:
            case Started():
                self._watch.started(event.key)
            case Progressed():
                self._watch.progressed(event.key, event.step, event.total, event.what)
            case Finished():
                self._finished(event.key, event.result)
            case Crashed():
                self._crashed(event)

    def _finished(self, key: str, result: dict[str, Any]) -> None:
        if result["status"] == UNWRITABLE:
            self._unwritable(result["error"])
        self._num_settled += 1
        if result["status"] == "done":
            self._models.offer(self._cells[key], result.get("value"))
        log = self._folder.settle_log(key, keep=result["status"] != "done")
        if log is not None and result["status"] == "failed":
            result = {**result, "error": f"{result['error']} (see {log})"}
        self._watch.ended(key, result)

    def _crashed(self, event: Crashed) -> None:
        reason = event.reason
        if event.out_of_memory and self._plan.slots > 1:
            reason += f", with {self._plan.slots} cells at a time (fewer workers leave it more)"
        payload = self._payload(self._cells[event.key])
        record = record_crash(payload, reason, out_of_memory=event.out_of_memory)
        self._finished(event.key, {"status": record.status, "error": record.error})

    def _unwritable(self, error: str) -> NoReturn:
        raise FolderUnwritable(
            f"{self._folder.path} takes no more files. Received: {error}. Next: free space; "
            f"{self._so_far()}."
        )

    def _so_far(self) -> str:
        return (
            f"{self._num_settled} of {len(self._cells)} cells have their records in "
            f"{self._folder.path}; run the same command again to go on"
        )


def validation_value(record: Record, cell: GridCell) -> float | None:
    """Return a record's main metric on the validation split."""
    return record.metrics.get("validation", {}).get(cell.recipe.task.metric)
