"""What a recipe script ends with: `main(RECIPE)`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from peftkit.recipe import Recipe


def main(recipe: Recipe, argv: Sequence[str] | None = None) -> None:
    """Run a recipe as `peftkit run` does; any field is a command-line override.

    Args:
        recipe: Where the flags start from.
        argv: `--smoke`, `--out DIR`, `--config FILE`, `--method.rank 4` and so on; None: those of
            the process.
    """
    from peftkit.cli import guarded, run_command

    status = guarded(lambda: run_command(list(sys.argv[1:] if argv is None else argv), recipe))
    if status:
        sys.exit(status)
