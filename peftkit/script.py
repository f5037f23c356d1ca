"""What a recipe script ends with: `main(RECIPE)`, or `walk(main)` if it has a main of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from peftkit.recipe import Recipe


def main(recipe: Recipe, argv: Sequence[str] | None = None) -> None:
    """Run a recipe as `peftkit run` does; any field is a command-line override.

    Args:
        recipe: Where the flags start from.
        argv: `--smoke`, `--out DIR`, `--config FILE`, `--method.rank 4` and so on; None: those of
            the process.
    """
    from peftkit.cli import run_command

    _end(lambda: run_command(list(sys.argv[1:] if argv is None else argv), recipe))


def walk(steps: Callable[[list[str]], None]) -> None:
    """Do the steps of a script, given the arguments of the process; errors become one message."""

    def work() -> int:
        steps(sys.argv[1:])
        return 0

    _end(work)


def _end(work: Callable[[], int]) -> None:
    from peftkit.cli import guarded

    if status := guarded(work):
        sys.exit(status)
