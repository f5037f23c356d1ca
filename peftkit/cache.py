"""The one folder outside the output folder that peftkit writes into."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder, which need not exist yet.

    Returns:
        `$PEFTKIT_CACHE` if it is set, else `$XDG_CACHE_HOME/peftkit`, else `~/.cache/peftkit`.
        As the XDG specification asks, a relative `XDG_CACHE_HOME` is ignored.
    """
    if chosen := os.environ.get("PEFTKIT_CACHE"):
        return Path(chosen).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "peftkit"
