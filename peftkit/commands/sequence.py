"""`peftkit sequence`: from flags to stages, and their matrix at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftkit.errors import InvalidInput
from peftkit.flags import read_flags
from peftkit.overrides import changed, merged_file, read_mapping
from peftkit.recipe import Recipe

USAGE = """\
peftkit sequence --tasks A,B,... [--method NAME] [--carry WAY] [--out DIR] [--smoke] [OPTIONS]

  --tasks A,B    tasks or data sets, in the order of the stages
  --method NAME  how each stage adapts the model (default full)
  --carry WAY    full: the whole model; new_adapter: the adapter folded into the backbone, a new one
                 on it; same_adapter: training goes on with it (default: the first that can be)
  --out DIR      stages, matrix.json, matrix.md (default out/sequence); goes on where it stopped
  --smoke        a tiny twin of the backbone, 32 rows, two steps: does it run at all?
"""
OUT = "out/sequence"
EXTRAS: dict[str, Any] = {"tasks": tuple[str, ...], "carry": str, "out": str, "smoke": bool}


def sequence_command(argv: list[str]) -> None:
    """Run a sequence and print its matrix."""
    from peftkit.reporting.progress import run_progress
    from peftkit.stages import sequence
    from peftkit.stages.report import print_matrix

    changes, own = read_flags(argv, extras=EXTRAS)
    recipes = _recipes(changes, own.get("tasks", ()))
    if own.get("smoke"):
        from peftkit.smoke import shrink

        recipes = [shrink(recipe) for recipe in recipes]
    out = Path(own.get("out", OUT))
    with run_progress() as progress:
        matrix = sequence(recipes, carry=own.get("carry"), out=out, progress=progress)
    print_matrix(matrix)


def _recipes(changes: dict[str, Any], tasks: tuple[str, ...]) -> list[Recipe]:
    """One recipe a task, with all other options in common."""
    if not tasks or "task" in changes:
        raise InvalidInput(
            "a sequence is told its tasks by --tasks",
            received="--task" if "task" in changes else None,
            allowed="--tasks A,B,...",
            next_step="list the tasks or data sets of the stages, separated by commas",
        )
    body: dict[str, Any] = {"method": "full"}
    if "config" in changes:
        body = merged_file(body, read_mapping(str(changes.pop("config"))))
    return [Recipe.from_dict(changed(body, {"task": task, **changes})) for task in tasks]
