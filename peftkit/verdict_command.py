"""`peftkit verdict`: is training needed, is an adapter enough, is full fine-tuning warranted?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput, UnknownName
from peftkit.flags import read_flags
from peftkit.verdict import DESIGN_FILE, Look, Results, decide, read_results

if TYPE_CHECKING:
    from peftkit.verdict import Verdict

VERDICT_USAGE = """\
peftkit verdict DIR|FILE.json [--margin 1] [--json]

  DIR          the records of `peftkit study` or `peftkit compare`
  FILE.json    scores of every test item, from any harness:
               {"items": 3, "cells": [{"method", "size", "seed", "correct": [0, 1, 1]}, ...]}
  --margin M   by how much full fine-tuning has to be better for it to count: in points where the
               metric is a share (default 1, or the study's), else in its own unit (no default)
  --json       the verdict as JSON
"""
POINT = 1.0


def verdict_command(argv: list[str]) -> None:
    """Print the verdict on a folder of records, or on a file of results per item."""
    if not argv or argv[0].startswith("-"):
        raise InvalidInput("the folder or file is missing", allowed=VERDICT_USAGE.splitlines()[0])
    changes, own = read_flags(argv[1:], extras={"margin": float, "json": bool})
    for name in changes:
        raise UnknownName("option", f"--{name}", ["--margin", "--json"])
    path = Path(argv[0])
    design = _design(path)
    looks = [Look(**look) for look in design.get("looks", ())]
    asked = {"margin": design["margin"], **own} if "margin" in design else own
    verdicts = [decide(found, _margin(found, asked), looks=looks) for found in _results(path)]
    if own.get("json"):
        from peftkit.reporting.verdicts import verdict_as_data

        print(json.dumps([verdict_as_data(verdict) for verdict in verdicts], indent=2))
    else:
        _print(verdicts)


def _design(folder: Path) -> dict[str, Any]:
    """What `peftkit study` was asked for, if the folder is one of its."""
    path = folder / DESIGN_FILE
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _results(path: Path) -> list[Results]:
    if path.is_file():
        return [read_results(path)]
    from peftkit.record import read_records
    from peftkit.reporting.summary import summarise
    from peftkit.verdict.from_table import results_of

    records, problems = read_records(path)
    if not records:
        raise InvalidInput(f"no whole record in {path}", received="; ".join(problems))
    found = [results for table in summarise(records) if (results := results_of(table)) is not None]
    if not found:
        raise InvalidInput(
            f"{path} holds no full fine-tuning beside a cheaper method",
            received=f"the methods {', '.join(sorted({r.method for r in records}))}",
            next_step="peftkit compare --methods none,lora,full --seeds 3 --out DIR",
        )
    return found


def _margin(results: Results, own: dict[str, Any]) -> float:
    if "margin" not in own and results.scale == 1.0:
        raise InvalidInput(
            f"{results.name} is measured in {results.unit}, of which no margin is known",
            allowed="--margin M, by how much full fine-tuning has to be better for it to count",
            next_step="add --margin",
        )
    margin = own.get("margin", POINT)
    if not 0 < margin < float("inf"):
        raise InvalidInput(
            "the margin is nothing to test against",
            received=f"--margin {margin:g}",
            allowed="a number above 0",
        )
    return float(margin / results.scale)


def _print(verdicts: list[Verdict]) -> None:
    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.verdicts import print_verdict

    console = standard_console()
    for verdict in verdicts:
        print_verdict(verdict, console)
