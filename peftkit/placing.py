"""Output folders: never overwritten unasked, and either whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from peftkit.errors import InvalidInput
from peftkit.quantities import size_in_bytes
from peftkit.record import MANIFEST

Made = Literal["combined", "merged", "export"]
"""What a folder says in its peftkit.json of how it came to be."""
_WORDS: dict[Made, str] = {"combined": "combination", "merged": "merge", "export": "export"}


def require_free(out: Path, sources: Sequence[Path], made: Made, *, overwrite: bool) -> None:
    """Refuse an output folder that holds something.

    Args:
        out: To be written.
        sources: Folders that are read, which it must neither be nor hold.
        made: What it will be; with `overwrite` an earlier one of the same kind may go.
        overwrite: Whether it may.

    Raises:
        InvalidInput: It must not be written.
    """
    target = out.resolve()
    if any(source.resolve().is_relative_to(target) for source in sources):
        raise InvalidInput(
            "the output would take the place of what it is made of",
            received=f"--out {out}",
            next_step="name another folder",
        )
    around = next(parent for parent in target.parents if parent.exists())
    if not around.is_dir() or not os.access(around, os.W_OK):
        raise InvalidInput(f"{out} cannot be written", next_step="name another folder")
    if target == Path.cwd() or os.path.ismount(target):
        raise InvalidInput(
            f"{out} cannot be put in place at once, as a folder that is ready takes its name",
            received="the folder that peftkit was called from" if target == Path.cwd()
            else "a disk of its own",
            next_step="name a folder within it",
        )  # fmt: skip
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise InvalidInput(f"{out} is no folder", next_step="name another folder")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise InvalidInput(
            f"{out} already exists", next_step="name another folder, or add --overwrite"
        )
    if not _was_made(out, made):
        raise InvalidInput(
            f"{out} holds no earlier {_WORDS[made]}, so --overwrite does not delete it",
            received=", ".join(sorted(path.name for path in out.iterdir())[:5]),
            next_step="name another folder, or delete it yourself",
        )


def _was_made(folder: Path, made: Made) -> bool:
    """Whether a folder is of this kind; an export says, too, what it was exported from."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return made in manifest and (made == "export" or "export" not in manifest)


def require_room(out: Path, num_bytes: float) -> None:
    """Refuse to begin where the disk has too little room.

    Args:
        out: To be written; its nearest folder that exists is looked at.
        num_bytes: What will be written, at most.

    Raises:
        InvalidInput: There is less.
    """
    around = next(parent for parent in out.resolve().parents if parent.exists())
    free = shutil.disk_usage(around).free
    if num_bytes > free:
        raise InvalidInput(
            f"there is too little room for {out}",
            received=f"{size_in_bytes(free)} are free",
            allowed=f"{size_in_bytes(num_bytes)} or more",
            next_step="free some space, or name a folder on another disk",
        )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which takes its place if nothing is raised within.

    Raises:
        InvalidInput: The folder around it cannot be written.
    """
    out = out.resolve() if not out.is_symlink() else out
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
