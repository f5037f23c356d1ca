"""Runs recipes that have no settled record yet, in worker processes, and returns all records."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from peftkit.recipe import Recipe
from peftkit.record import Record
from peftkit.study import machine
from peftkit.study.display import make_display
from peftkit.study.execution import LOCAL, Engine, Execution, Interrupted
from peftkit.study.folder import StudyFolder
from peftkit.study.grid import Facts
from peftkit.study.inputs import Inputs
from peftkit.study.lock import folder_lock
from peftkit.study.models import KeepWeights
from peftkit.study.planning import Plan, make_plan
from peftkit.study.workers import HEAVY_MODULES, start_server

RUN_CELL = "peftkit.study.cell:run_cell"
PRELOAD = (
    *HEAVY_MODULES,
    "transformers.models.bert.modeling_bert",
    "peftkit.pipeline",
    "peftkit.memory.expecting",
)


def run_recipes(
    pairs: Sequence[tuple[str, Recipe]],
    *,
    out: Path | str,
    workers: int | None = None,
    keep_weights: KeepWeights = "best",
    force: bool = False,
    engine: Engine = LOCAL,
    function: str = RUN_CELL,
    facts: Callable[[Recipe], Facts] | None = None,
    preload: Sequence[str] = PRELOAD,
    quiet: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
) -> list[Record]:
    """Run the recipes that have no settled record yet, and return the records of all, in order.

    Args:
        pairs: (label of the method, recipe), as `grid.recipes` returns them.
        out: Output folder; see `StudyFolder`.
        workers: Cells at a time; none: as many as cores (or GPUs) and memory allow.
        keep_weights: See `compare`.
        force: See `compare`.
        engine: What cells are run by.
        function: "package.module:name" that runs a cell in a worker.
        facts: Looks at a recipe's data and weights; none: the pipeline's.
        preload: Modules that workers find imported.
        quiet: Show no progress on stderr.
        on_plan: Told what will be run before any of it is.

    Raises:
        InvalidInput: A size is not available, or the disk is too small.
        FolderBusy: Another comparison writes into the folder.
        FolderUnwritable: The disk is full; finished records are safe.
        Interrupted: Ctrl-C or SIGTERM; finished records are safe.
    """
    folder = StudyFolder(out)
    folder.make()
    with _terminable(), folder_lock(folder.path), make_display(quiet=quiet) as display:
        if cleaned := folder.clean():
            display.message(f"removed {cleaned} half-made files of a comparison that was killed")
        forks = engine.name == "local" and not machine.visible_devices()
        if forks and folder.num_records() < len(pairs):
            start_server(preload=preload)  # it imports while this process reads the data
        display.message("reading data and weights")
        plan = make_plan(
            pairs, folder, facts=facts or Inputs(display.preparing), workers=workers,
            keep_weights=keep_weights,
        )  # fmt: skip
        on_plan(plan)
        Execution(plan, display, keep_weights, force=force).run(
            function, preload, engine, workers=workers
        )
        keys = {id(cell.recipe): cell.key for cell in plan.cells}  # cells hold these very recipes
        return [Record.read(folder.record(keys[id(recipe)])) for _, recipe in pairs]


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end things as orderly as Ctrl-C does (in the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Interrupted("stopped by SIGTERM", number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
