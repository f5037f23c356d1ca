"""Results per item from any harness: one JSON file.

    {"items": 3, "methods": ["none", "lora", "full"], "full": "full", "untrained": ["none"],
     "cells": [{"method": "lora", "size": 512, "seed": 0, "correct": [0, 1, 1]}, ...]}

`items` is how many test items there are, or their names. `cells` hold, item by item, whether the
answer was right, or `scores`: numbers whose mean is the metric (lower is better with
`"higher_is_better": false`). `methods` are in the order of cost, cheapest first; without it, the
order of first appearance counts. `full`, `untrained`, `unit` and `name` may be left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from peftkit.errors import InvalidInput
from peftkit.verdict.results import PERCENT, Results

FORMAT = '{"items": 3, "cells": [{"method", "size", "seed", "correct": [0, 1, 1]}, ...]}'


def read_results(path: Path) -> Results:
    """Read a file of results per item.

    Raises:
        InvalidInput: It cannot be read, or a cell does not fit; the cell is named.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read as results", received=str(error), allowed=FORMAT
        ) from error
    if not isinstance(body, dict) or not isinstance(body.get("cells"), list) or not body["cells"]:
        raise InvalidInput(
            f"{path} holds no cells",
            received=f"the keys {', '.join(list(body)[:8]) or 'none'}"
            if isinstance(body, dict)
            else type(body).__name__,
            allowed=FORMAT,
        )
    num_items = _num_items(body, path)
    higher = _higher_is_better(body, path)
    scores: dict[tuple[str, int], dict[int, Any]] = {}
    shares = True
    for number, cell in enumerate(body["cells"]):
        method, size, seed, values, is_share = _cell(cell, number, num_items, path)
        shares = shares and is_share
        seeds = scores.setdefault((method, size), {})
        if seed in seeds:
            raise InvalidInput(
                f"cell {number} of {path} repeats a method, size and seed",
                received=f"{method}, {size}, seed {seed}",
                next_step="leave one of the two out",
            )
        seeds[seed] = values if higher else -values
    methods = _methods(body, scores, path)
    full = body.get("full", "full")
    if full not in methods:
        raise InvalidInput(
            f"{path} has no runs of full fine-tuning",
            received=f"full is {full!r}, and there are {', '.join(methods)}",
            next_step='name the method that trains everything: "full": "..."',
        )
    return Results(
        scores=scores,
        full=full,
        ladder=tuple(method for method in methods if method != full),
        untrained=_untrained(body, methods, path),
        scale=PERCENT if shares else 1.0,
        unit=str(body.get("unit", "points" if shares else "units")),
        less_is_better=not higher,
        name=str(body.get("name", path.name)),
    )


def _higher_is_better(body: dict[str, Any], path: Path) -> bool:
    higher = body.get("higher_is_better", True)
    if not isinstance(higher, bool):
        raise InvalidInput(
            f"{path} does not say whether higher is better",
            received=f"higher_is_better: {higher!r}"[:80],
            allowed="true or false",
            next_step="correct it, or leave it out where higher is better",
        )
    return higher


def _untrained(body: dict[str, Any], methods: list[str], path: Path) -> frozenset[str]:
    named = _names(body, "untrained", [name for name in methods if name == "none"], path)
    if unknown := set(named).difference(methods):
        raise InvalidInput(
            f"{path} names methods as untrained that have no cells",
            received=", ".join(sorted(unknown)),
            allowed=", ".join(methods),
            next_step="leave them out of `untrained`",
        )
    return frozenset(named)


def _num_items(body: dict[str, Any], path: Path) -> int:
    items = body.get("items")
    count = len(items) if isinstance(items, list) else items
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise InvalidInput(
            f"{path} does not say how many test items there are",
            received=f"items: {items!r}"[:80],
            allowed="a number of at least 2, or the names of the items",
        )
    return count


def _cell(
    cell: Any, number: int, num_items: int, path: Path
) -> tuple[str, int, int, np.ndarray, bool]:
    """Method, size, seed, scores, and whether these say right or wrong."""
    where = f"cell {number} of {path}"
    if not isinstance(cell, dict):
        raise InvalidInput(f"{where} is no object", received=repr(cell)[:80], allowed=FORMAT)
    for key, kind in (("method", str), ("size", int), ("seed", int)):
        if not isinstance(cell.get(key), kind) or isinstance(cell[key], bool):
            raise InvalidInput(
                f"{where} has no {key}",
                received=repr(cell.get(key))[:80],
                allowed="text" if kind is str else "a whole number",
            )
    if cell["size"] < 1:
        raise InvalidInput(f"{where} has no size", received=cell["size"], allowed="1 or more")
    share = "correct" in cell
    name = "correct" if share else "scores"
    try:
        values = np.asarray(cell.get(name), dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (num_items,) or not np.isfinite(values).all():
        raise InvalidInput(
            f"{where} does not score every item",
            received=f"{name}: {values.size} numbers",
            allowed=f"{num_items} finite numbers, as many as there are items",
        )
    if share and not np.isin(values, (0, 1)).all():
        raise InvalidInput(
            f"{where} says neither right nor wrong of an item",
            received=f"correct: {values[~np.isin(values, (0, 1))][0]:g}",
            allowed="0 and 1; other numbers go to `scores`",
        )
    return cell["method"], cell["size"], cell["seed"], values, share


def _methods(body: dict[str, Any], scores: dict[tuple[str, int], Any], path: Path) -> list[str]:
    appeared = list(dict.fromkeys(method for method, _ in scores))
    named = _names(body, "methods", appeared, path)
    if sorted(named) != sorted(appeared):
        raise InvalidInput(
            f"the methods of {path} are not those of its cells",
            received=", ".join(named),
            allowed=", ".join(appeared),
            next_step="name each once, cheapest first, or leave `methods` out",
        )
    return named


def _names(body: dict[str, Any], key: str, default: list[str], path: Path) -> list[str]:
    named = body.get(key, default)
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InvalidInput(
            f"{key} in {path} is no list of names",
            received=repr(named)[:80],
            allowed='names of methods, as ["none", "lora"]',
        )
    return named
