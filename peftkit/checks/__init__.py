"""The data check: what is wrong with rows before anything is trained on them.

Each check counts and names an example. What would make a training pointless is an error and stops
it; what a reader of its results must know is a warning, and a note of the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.checks._examples import check_examples
from peftkit.checks._finding import Finding, Level, refuse
from peftkit.checks._rows import check_rows

if TYPE_CHECKING:
    from peftkit.workbench import Workbench

__all__ = ["Finding", "Level", "check_data", "check_examples", "check_rows", "refuse"]


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
