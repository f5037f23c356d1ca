"""The one folder outside the output folder that peftkit writes into."""

from __future__ import annotations

import hashlib
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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, "missing" where there is none.

    Remembered by path, size and modification time: weights may be large.
    """
    if not path.is_file():
        return "missing"
    stat = path.stat()
    mark = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memory = cache_folder() / "sha256" / hashlib.sha256(mark.encode()).hexdigest()
    if memory.is_file():
        found = memory.read_text(encoding="ascii")
        if len(found) == 64:
            return found
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    from peftkit.record import write_atomically

    write_atomically(memory, found)
    return found
