"""`peftkit check`: the data check alone, and rows as the backbone reads them."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput, Unsupported
from peftkit.flags import parse_flags

if TYPE_CHECKING:
    from peftkit.checks import Finding
    from peftkit.checks.shown import ShownRow
    from peftkit.recipe import Recipe

USAGE = """\
peftkit check --task NAME [--backbone NAME] [--show N] [--json] [OPTIONS]

  --show N   N training rows (or parts of long ones) token by token, what is trained on marked
  --json     the findings as JSON

Status 0: fine, or warnings alone; 1: errors, which would stop a run before training.
"""
NO_METHOD = "full"  # any that has a backbone: the check is the same


def check_command(argv: list[str]) -> int:
    """Check data, report it, and return the exit status."""
    from peftkit.reporting.checked import print_findings, print_rows
    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.progress import run_progress

    if not any(flag.split("=")[0] in ("--method", "--config") for flag in argv):
        argv = ["--method", NO_METHOD, *argv]
    recipe, own = parse_flags(argv, extras={"show": int, "json": bool})
    if own.get("show", 1) < 1:
        raise InvalidInput("there is nothing to show", received=own["show"], allowed="1 or more")
    with run_progress() as progress:
        findings, notes, rows = examine(recipe, show=own.get("show", 0), progress=progress)
    console = standard_console()
    if own.get("json"):
        found = [dataclasses.asdict(finding) for finding in findings]
        body = {"task": recipe.to_dict()["task"], "backbone": recipe.backbone.name,
                "findings": found, "notes": notes}  # fmt: skip
        print(json.dumps(body, indent=2))
    else:
        heading = f"{recipe.task.data} as {recipe.backbone.name} reads it"
        print_findings(heading, findings, notes, console)
        if rows:
            print_rows(rows, console)
    return 1 if any(finding.level == "error" for finding in findings) else 0


def examine(
    recipe: Recipe, *, show: int = 0, progress: Any = None
) -> tuple[list[Finding], list[str], list[ShownRow]]:
    """Check the data of a recipe, near-duplicates too, without reading any weights.

    Args:
        recipe: Its method does not matter.
        show: Training rows to return.
        progress: Told how far the reading is.

    Returns:
        Findings, what a reader must know of how rows came about, and rows.
    """
    from peftkit.checks import Finding, check_examples, check_rows
    from peftkit.checks.shown import shown_rows
    from peftkit.workbench import Workbench

    try:
        data = recipe.task.load(seed=recipe.seed, progress=progress)
    except InvalidInput as error:
        return [Finding(check="rows", level="error", text=str(error))], [], []
    findings, notes = check_rows(recipe.task, data, near=True), list(data.notes)
    rows: list[ShownRow] = []
    if any(finding.level == "error" for finding in findings):
        return findings, notes, rows
    with tempfile.TemporaryDirectory(prefix="peftkit-") as folder:
        bench = Workbench(recipe, data, Path(folder))
        try:
            bench.load_without_weights()
        except Unsupported as error:
            text = f"tokens were not checked: {error}"
            return [*findings, Finding(check="tokens", level="skipped", text=text)], notes, rows
        findings += check_examples(bench)
        notes += recipe.task.remarks(data, bench.backbone)
        if show:
            rows = list(islice(shown_rows(bench, show), show))
    return findings, notes, rows
