"""Output folders: never overwritten unasked, and either whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peftkit.errors import InvalidInput
from peftkit.record import MANIFEST


def require_free(out: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse an output folder that holds something.

    Args:
        out: To be written.
        sources: Folders that are read, which it must neither be, hold, nor stand in.
        overwrite: Whether it may be replaced, if it is one that peftkit wrote.

    Raises:
        InvalidInput: It must not be written.
    """
    target = out.resolve()
    for source in (each.resolve() for each in sources):
        if source.is_relative_to(target) or target.is_relative_to(source):
            raise InvalidInput(
                f"{out} would be written over {source}, or into it",
                next_step="name a folder apart from the runs",
            )
    around = next(parent for parent in target.parents if parent.exists())
    if not os.access(around, os.W_OK):
        raise InvalidInput(f"{around} cannot be written", next_step="name another folder")
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise InvalidInput(f"{out} is no folder", next_step="name another folder")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise InvalidInput(
            f"{out} already holds something", next_step="name another folder, or add --overwrite"
        )
    if not (out / MANIFEST).is_file():
        raise InvalidInput(
            f"{out} holds what peftkit did not write, so it is not overwritten",
            received=", ".join(sorted(path.name for path in out.iterdir())[:5]),
            next_step="name another folder",
        )


def require_room(out: Path, num_bytes: int) -> None:
    """Refuse to write more than the disk has room for.

    Args:
        out: To be written.
        num_bytes: What it will hold, at least.

    Raises:
        InvalidInput: There is too little room.
    """
    around = next(parent for parent in out.resolve().parents if parent.exists())
    free = shutil.disk_usage(around).free
    if num_bytes > free:
        raise InvalidInput(
            f"there is too little room for {out}",
            received=f"{free:,} bytes are free",
            allowed=f"{num_bytes:,} bytes or more",
            next_step="free some space, name a folder on another disk, or ask for a lower --rank",
        )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which takes its place if nothing is raised within.

    Raises:
        InvalidInput: The folder around it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written", received=error.strerror, next_step="name another folder"
        ) from error
    before = made / "before"
    try:
        folder = made / "new"  # of usual permissions, which temporary folders do not have
        folder.mkdir()
        yield folder
        if out.exists():
            os.replace(out, before)
        os.replace(folder, out)
    finally:
        if before.exists() and not out.exists():
            os.replace(before, out)
        shutil.rmtree(made, ignore_errors=True)
