"""Many forecasts at once: in a few processes, and remembered on disk.

Forecasts are asked for in the order of the table and come back as they are ready. The processes
fork from a server that has imported torch once, and see no GPU: none is needed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from peftkit.backbones import make_configuration
from peftkit.cache import cache_folder
from peftkit.environment import versions
from peftkit.errors import BackboneNotFound, InvalidInput, Unsupported
from peftkit.memory.device_terms import DeviceTerms, sources
from peftkit.memory.plan import Cell, Outlook, Question, Row, outlook
from peftkit.overrides import parse_label
from peftkit.recipe import Recipe
from peftkit.record import write_atomically
from peftkit.study import machine
from peftkit.study._server import main_module_hidden, start_server
from peftkit.study._worker import die_with_parent, one_line

FORECAST = "peftkit.memory.forecast:forecast"
MOST_WORKERS = 4
_PRELOAD = (
    "torch", "transformers.modeling_utils", "peft",
    "peftkit.memory.forecast", "peftkit.memory.pool",
)  # fmt: skip
_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")


def forecast_rows(
    recipes: Mapping[Cell, Recipe],
    question: Question,
    *,
    forecast: str = FORECAST,
    workers: int | None = None,
) -> Iterator[Row]:
    """A row for each recipe, as soon as it is there; those remembered come first.

    Args:
        recipes: In the order in which they are best computed.
        question: What all have in common.
        forecast: "package.module:name" of what makes the forecasts.
        workers: Processes; none: one a core, at most `MOST_WORKERS`; 0: this process alone.

    Raises:
        BackboneNotFound: transformers cannot use the configuration.
    """
    waiting = {}
    for cell, recipe in recipes.items():
        file = _file(cell, recipe, question, forecast)
        found = _remembered(file)
        if found is None:
            waiting[cell] = (recipe, file)
        else:
            yield _row(cell, found)
    if not waiting:
        return
    jobs = {cell: (forecast, recipe.to_dict(), question) for cell, (recipe, _) in waiting.items()}
    count = min(machine.usable_cores(), MOST_WORKERS) if workers is None else workers
    found_one_by_one = _in_processes(jobs, count) if count else _here(jobs)
    for cell, found in found_one_by_one:
        file = waiting[cell][1]
        if file is not None and "failed" not in found:
            with suppress(OSError):  # a full disk: computed again the next time
                write_atomically(file, json.dumps(found))
        yield _row(cell, found)


def _row(cell: Cell, found: Mapping[str, Any]) -> Row:
    if "broken" in found:
        raise BackboneNotFound(found["broken"])
    if "outlook" in found:
        return Row(cell=cell, outlook=Outlook.from_dict(found["outlook"]))
    if "unsupported" in found:
        return Row(cell=cell, status="unsupported", reason=found["unsupported"])
    return Row(cell=cell, status="failed", reason=found["failed"])


# ---- in a process


def work(job: tuple[str, dict[str, Any], Question]) -> dict[str, Any]:
    """One forecast: an "outlook", or why there is none, "unsupported" or "failed".

    What is wrong with the configuration, and so with every row, is "broken".
    """
    name, recipe, question = job
    try:
        config = make_configuration(question.configuration)
    except BackboneNotFound as error:
        return {"broken": str(error)}
    make, whole = _named(name), Recipe.from_dict(recipe)

    def forecast(recipe: Recipe) -> Any:
        found = make(recipe, config, length=question.length, device=question.device)
        terms = question.terms
        return dataclasses.replace(found, terms=DeviceTerms(**terms)) if terms else found

    def accumulated() -> Any:
        if whole.training.gradient_accumulation > 1:
            return found
        return forecast(whole.override({"training.gradient_accumulation": 2}))

    try:
        found = forecast(whole)
        ahead = outlook(
            found,
            accumulated,
            batch_size=question.batch_size,
            limit_bytes=question.limit_bytes,
        )
    except (Unsupported, InvalidInput) as error:
        return {"unsupported": str(error)}
    except Exception as error:  # a row that could not be told must not end the others
        return {"failed": one_line(error)}
    return {"outlook": dataclasses.asdict(ahead)}


def _named(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _here(jobs: Mapping[Cell, Any]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    for cell, job in jobs.items():
        yield cell, work(job)


def _in_processes(jobs: Mapping[Cell, Any], workers: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    with patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": ""}):  # of the processes
        start_server(preload=_PRELOAD)
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        pool = ProcessPoolExecutor(
            min(workers, len(jobs)),
            mp_context=multiprocessing.get_context("forkserver" if forks else "spawn"),
            initializer=_begin,
        )
        with main_module_hidden():
            futures: dict[Future[dict[str, Any]], Cell] = {
                pool.submit(work, job): cell for cell, job in jobs.items()
            }
    try:
        left = set(futures)
        while left:
            done, left = wait(left, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=list(futures).index):
                yield futures[future], _result(future)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        return {"failed": "the process that computed it was killed; was memory short?"}


def _begin() -> None:
    """Settle a process: it ends with its parent, who alone listens to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


# ---- remembered


def _file(cell: Cell, recipe: Recipe, question: Question, forecast: str) -> Path | None:
    """Where an answer is remembered; None: it rests on a file that is not ours, so nowhere."""
    if ".py" in parse_label(cell.method)[0] or forecast != FORECAST:
        return None
    installed = versions()
    rests_on = [
        recipe.fingerprint(precision=recipe.training.precision),
        dataclasses.asdict(question),
        {name: installed[name] for name in _VERSIONS},
        sources(),
    ]
    key = hashlib.sha256(json.dumps(rests_on, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "forecasts" / f"{key}.json"


def _remembered(file: Path | None) -> dict[str, Any] | None:
    if file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        _row(Cell(method="", precision="bf16", checkpointing=False), found)
    except (OSError, ValueError, TypeError, KeyError, BackboneNotFound):
        return None
    return dict(found)
