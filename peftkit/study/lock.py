"""One comparison at a time in a folder: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from peftkit.errors import FolderBusy

_NO_LOCKS_HERE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK)


@contextlib.contextmanager
def folder_lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold the file `name` of a folder within; file systems without locks are used without one.

    Raises:
        FolderBusy: Another process (or another call in this one) holds it.
    """
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)  # releases it; the file stays, since deleting it would be a race


def _take(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise FolderBusy(
            f"another comparison writes into {folder}",
            received=f"process {holder} holds it",
            allowed="one comparison a folder at a time",
            next_step="wait for it, stop it, or choose another output folder",
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
