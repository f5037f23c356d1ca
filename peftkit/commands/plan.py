"""`peftkit plan`: what each way of training a backbone would take of a GPU, without one.

Needs the backbone's configuration, and neither weights nor data.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from peftkit import parts
from peftkit.commands._plan_request import EXTRAS, Request, make_request
from peftkit.flags import read_flags
from peftkit.memory import plan

if TYPE_CHECKING:
    from peftkit.memory.plan import Cell, Row, Way
    from peftkit.reporting.planned import Ticker

USAGE = """\
peftkit plan --backbone NAME --gpu SIZE [--batch N] [--length N] [--methods A,B] [OPTIONS]

  --backbone NAME   a hub name (config.json alone is fetched), a folder, a config.json, or bundled
  --gpu SIZE        memory of the card: 24GiB, 80G (GiB too), 24GB (10^9 bytes), or bytes
  --batch N         examples a forward pass (default 8)
  --length N        tokens of every text (default 512, or what the backbone has positions for)
  --methods A,B     methods as in `peftkit compare` (default: all that take gradient steps)
  --precisions A,B  of bf16, nf4, int8, fp32 (default all)
  --task NAME       what is trained (default: by what the backbone reads and writes)
  --json            the rows as JSON, at the end
  --calibrate       measure what this machine's GPU adds to tensors, and keep it for later plans

Needs no GPU, weights or data. Optimizer and all else of a run count as given:
--training.optimizer paged_adamw_8bit, --method options as lora:rank=64.
"""


def plan_command(argv: list[str]) -> None:
    """Print the plan, row by row, or as JSON at the end."""
    changes, own = read_flags(argv, extras=EXTRAS)
    if own.get("calibrate"):
        print(_calibrated(), end="")
        return
    request = make_request(changes, own)
    if own.get("json"):
        print(json.dumps(_as_json(request), indent=2))
    else:
        _print_table(request)


def _calibrated() -> str:
    """Measure the GPU of this machine, keep what was found, and tell it."""
    from peftkit.memory.calibrating import calibrate, told
    from peftkit.memory.device_terms import keep

    terms, observed = calibrate()
    return told(terms, observed, keep(terms))


def _print_table(request: Request) -> None:
    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.planned import PlanTable, Ticker

    table = PlanTable(standard_console(), request.question.limit_bytes)
    table.head(*_heading(request))
    rows: dict[Cell, Row] = {}
    with Ticker() as ticker:
        for row, way in _in_order(request, rows, ticker):
            ticker.clear()
            table.row(row, way)
    table.foot(rows)


def _in_order(
    request: Request, rows: dict[Cell, Row], ticker: Ticker
) -> Iterator[tuple[Row, Way | None]]:
    """Rows in the order of the table, each once it is known how to make it fit.

    Args:
        request: What was asked.
        rows: Where rows are put as they come.
        ticker: Told how many are there.
    """
    from peftkit.memory.fitting import NotYet, cheapest
    from peftkit.memory.pool import forecast_rows

    left, passes = deque(request.cells), request.recipe.training.gradient_accumulation
    rows |= request.refused
    coming: Iterator[Row | None] = chain([None], forecast_rows(request.recipes, request.question))
    for new in coming:
        if new is not None:
            rows[new.cell] = new
        while left and left[0] in rows:
            row = rows[left[0]]
            try:
                way = None if row.outlook is None or row.outlook.fits else cheapest(row, rows, left)
            except NotYet:
                break
            left.popleft()
            if way is not None:  # parts of a batch that was to be one of several
                way = dataclasses.replace(way, accumulation=way.accumulation * passes)
            yield row, way
        ticker.show(len(rows), len(request.cells))


def _heading(request: Request) -> tuple[str, list[str]]:
    recipe, question = request.recipe, request.question
    training = recipe.training
    accumulated = training.gradient_accumulation
    size = question.limit_bytes
    lines = [
        f"batch {question.batch_size}"
        + (f" x {accumulated} accumulated" if accumulated > 1 else "")
        + f", {question.length} tokens, {parts.name_of(type(recipe.task))}, {training.optimizer}",
        "GiB. card: the peak, what the allocator holds beyond it, and CUDA's context "
        f"({question.terms['name']}). peak: W weights + G gradients + O optimizer + A activations. "
        "batch: the largest that fits",
    ]
    shown = f"{size / 2**30:.4g} GiB"
    return f"{recipe.backbone.name} ({question.configuration['model_type']}) on {shown}", lines


def _as_json(request: Request) -> dict[str, Any]:
    from peftkit.environment import versions
    from peftkit.reporting.planned import Ticker

    with Ticker() as ticker:
        rows = [_row_as_json(row, way) for row, way in _in_order(request, {}, ticker)]
    body, question = request.recipe.to_dict(), request.question
    del body["backbone"], body["method"]
    return {
        "backbone": request.recipe.backbone.name,
        "configuration": question.configuration,
        "gpu_bytes": question.limit_bytes,
        "device": question.device,
        "device_terms": question.terms,
        "batch_size": question.batch_size,
        "length": question.length,
        "task": body["task"],
        "training": {k: v for k, v in body["training"].items() if f"training.{k}" not in plan.AXES},
        "versions": versions(),
        "rows": rows,
    }


def _row_as_json(row: Row, way: Way | None) -> dict[str, Any]:
    cell = row.cell
    found = {} if row.outlook is None else dataclasses.asdict(row.outlook)
    found.pop("split", None)
    found.pop("batch_size", None)
    return {
        "method": cell.method,
        "precision": cell.precision,
        "gradient_checkpointing": cell.checkpointing,
        "status": row.status,
        "reason": row.reason,
        **found,
        "way": None if way is None else dataclasses.asdict(way),
    }
