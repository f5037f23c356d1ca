"""Studies: recipes over a grid, run in worker processes, and what their records say together."""

from __future__ import annotations

from peftkit.study.comparison import Comparison, compare
from peftkit.study.execution import Interrupted
from peftkit.study.folder import FolderUnwritable
from peftkit.study.grid import GridCell
from peftkit.study.planning import Plan
from peftkit.study.study import Study

__all__ = [
    "Comparison",
    "FolderUnwritable",
    "GridCell",
    "Interrupted",
    "Plan",
    "Study",
    "compare",
]
