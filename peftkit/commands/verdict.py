"""`peftkit verdict`: is training needed, is an adapter enough, is full fine-tuning warranted?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import InvalidInput
from peftkit.flags import read_options
from peftkit.verdict import decide, read_results
from peftkit.verdict.results import POINT, no_margin, require_margin

if TYPE_CHECKING:
    from peftkit.verdict import Verdict

USAGE = """\
peftkit verdict DIR|FILE.json [--margin 1] [--json]

  DIR          the records of `peftkit study` or `peftkit compare`
  FILE.json    scores of every test item, from any harness:
               {"items": 3, "cells": [{"method", "size", "seed", "correct": [0, 1, 1]}, ...]}
  --margin M   by how much full fine-tuning has to be better for it to count: in points where the
               metric is a share (default 1, or the study's), else in its own unit (no default)
  --json       the verdict as JSON
"""


def verdict_command(argv: list[str]) -> None:
    """Print the verdict on a folder of records, or on a file of results per item."""
    if not argv or argv[0].startswith("-"):
        raise InvalidInput("the folder or file is missing", allowed=USAGE.splitlines()[0])
    own = read_options(argv[1:], {"margin": float, "json": bool})
    margin = own.get("margin")
    require_margin(margin)
    path = Path(argv[0])
    verdicts = [_of_file(path, margin)] if path.is_file() else _of_folder(path, margin)
    if own.get("json"):
        from peftkit.reporting.verdicts import verdict_as_data

        print(json.dumps([verdict_as_data(verdict) for verdict in verdicts], indent=2))
    else:
        _print(verdicts)


def _of_file(path: Path, margin: float | None) -> Verdict:
    results = read_results(path)
    if margin is None and results.scale == 1.0:
        raise no_margin(results.name, results.unit)
    return decide(results, (POINT if margin is None else margin) / results.scale)


def _of_folder(folder: Path, margin: float | None) -> list[Verdict]:
    from peftkit.verdict.from_table import read_judged

    studied = read_judged(folder, margin)
    studied.warn()
    return [verdict for _, verdict in studied.verdicts]


def _print(verdicts: list[Verdict]) -> None:
    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.verdicts import print_verdict

    console = standard_console()
    for verdict in verdicts:
        print_verdict(verdict, console)
