"""What a recipe script ends with: `main(RECIPE)`."""

from __future__ import annotations

import os
import sys
import warnings
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


def quiet_libraries() -> None:
    """No progress bars or advice of libraries between our own lines; idle threads sleep."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    from transformers.utils import logging

    logging.disable_progress_bar()
