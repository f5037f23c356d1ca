"""peftkit: does a pretrained model need training, is a small adapter enough, or full retraining?

Importing this costs nothing much: torch is imported when something is run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftkit.combining import combine_runs
    from peftkit.errors import PeftkitError
    from peftkit.merging.performing import merge_run
    from peftkit.methods import Method
    from peftkit.pipeline import run
    from peftkit.recipe import Backbone, Recipe, Training
    from peftkit.record import Record, read_records
    from peftkit.reporting import report
    from peftkit.saved import load_run
    from peftkit.sharing import load_runs
    from peftkit.stages import sequence
    from peftkit.study import Study, compare
    from peftkit.tasks import Task

_HOMES = {
    "Backbone": "peftkit.recipe",
    "Method": "peftkit.methods",
    "PeftkitError": "peftkit.errors",
    "Recipe": "peftkit.recipe",
    "Record": "peftkit.record",
    "Study": "peftkit.study",
    "Task": "peftkit.tasks",
    "Training": "peftkit.recipe",
    "combine_runs": "peftkit.combining",
    "compare": "peftkit.study",
    "load_run": "peftkit.saved",
    "load_runs": "peftkit.sharing",
    "merge_run": "peftkit.merging.performing",
    "read_records": "peftkit.record",
    "report": "peftkit.reporting",
    "run": "peftkit.pipeline",
    "sequence": "peftkit.stages",
}

__all__ = [
    "Backbone",
    "Method",
    "PeftkitError",
    "Recipe",
    "Record",
    "Study",
    "Task",
    "Training",
    "combine_runs",
    "compare",
    "load_run",
    "load_runs",
    "merge_run",
    "read_records",
    "report",
    "run",
    "sequence",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'peftkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
