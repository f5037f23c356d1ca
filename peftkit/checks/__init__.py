"""The data check: what is wrong with rows before anything is trained on them.

Each check counts and names an example. What would make a training pointless is an error and stops
it; what a reader of its results must know is a warning, and a note of the record.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from peftkit.checks._examples import check_examples
from peftkit.checks._finding import Finding, Level, refuse
from peftkit.checks._rows import check_rows

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.workbench import Workbench

__all__ = [
    "Finding",
    "Level",
    "check_data",
    "check_examples",
    "check_rows",
    "refuse",
    "warnings_of",
]


def check_data(bench: Workbench, *, near: bool = False) -> list[Finding]:
    """Check the rows on a bench, and what its backbone (if there is one) reads of them.

    Args:
        bench: Recipe, rows and backbone.
        near: Also look for near-duplicates between splits.
    """
    findings = check_rows(bench.recipe.task, bench.data, near=near)
    broken = any(found.level == "error" for found in findings)
    if broken or not bench.recipe.method.needs_backbone:
        return findings
    return findings + check_examples(bench)


def warnings_of(bench: Workbench, *, kept_in: Path | None = None) -> list[dict[str, Any]]:
    """Check the data before training, once for all runs that share the folder `kept_in`.

    Returns:
        Warnings: "check", "count" and "note".

    Raises:
        InvalidInput: There are errors.
    """
    from peftkit.backbones import locate
    from peftkit.record import write_atomically

    recipe = bench.recipe
    inputs = [recipe.to_dict()["task"], recipe.seed, bench.data.fingerprint]
    if recipe.method.needs_backbone:
        inputs += [locate(recipe.backbone).fingerprint, bench.max_length]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
    kept = kept_in and kept_in / f"{digest}.checks.json"
    if kept and kept.is_file():
        found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    findings = check_data(bench)
    refuse(findings)
    found = [
        {"check": each.check, "count": each.count, "note": each.note}
        for each in findings
        if each.level == "warning"
    ]
    if kept:
        write_atomically(kept, json.dumps(found))
    return found
