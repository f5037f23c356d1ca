"""Where tables are printed."""

from __future__ import annotations

import os

from rich.console import Console

_WIDTH_OF_A_FILE = 120


def standard_console() -> Console:
    """A console on standard output; 120 columns where that is a file or a pipe."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_WIDTH_OF_A_FILE)
    return console
