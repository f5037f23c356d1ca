"""From a run's folder to a folder in another format, which has its name only once it is proven.

The files are written into a hidden folder beside the target, read back, and compared on rows that
the run itself has answered. Only then is the folder renamed, so that what a killed or failed
export leaves never looks whole.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.adapted import ROWS, load_adapted
from peftkit.errors import InvalidInput
from peftkit.record import MANIFEST, write_atomically

if TYPE_CHECKING:
    from peftkit.adapted import AdaptedRun
    from peftkit.formats import Format
    from peftkit.verification import Agreement

ROOM = 2  # the files are written from a model of about this share of their size, twice for ONNX


def export(
    folder: Path | str,
    format: Format,
    out: Path | str,
    *,
    overwrite: bool = False,
    rows: int = ROWS,
    allow_other_base: bool = False,
) -> Agreement:
    """Write a finished run in another format, and prove that it answers as before.

    Args:
        folder: Of the run, or a merged one.
        format: What to write.
        out: Folder to write; it must not exist.
        overwrite: Replace an earlier export in `out`, once the new files are proven.
        rows: How many rows to compare on, at most.
        allow_other_base: As in `peftkit.load_run`.

    Returns:
        How far the answers of the files are from those of the run.

    Raises:
        InvalidInput: The folder is not that of a finished run, `out` exists, or something that
            the format needs is missing.
        Unsupported: The run cannot be written so.
        VerificationFailed: The written files answer otherwise; nothing is left of them.
    """
    folder, out = Path(folder), Path(out)
    format.require()
    check_target(out, folder, overwrite=overwrite)
    from peftkit.saved import read_manifest

    manifest = read_manifest(folder)
    run = load_adapted(folder, rows=rows, allow_other_base=allow_other_base)
    format.check(run)
    require_room(out, run.model)
    with staged(out) as stage:
        format.write(run, stage)
        found = format.verify(run, stage)
        format.accept(run, found)
        own = read_manifest(stage) if (stage / MANIFEST).is_file() else manifest
        write_manifest(stage, own, format, run, found)
    return found


def write_manifest(
    folder: Path,
    manifest: dict[str, Any],
    format: Format,
    run: AdaptedRun,
    found: Agreement,
) -> None:
    """Say in `folder` what it is of, and how well it was found to agree."""
    from peftkit.environment import versions
    from peftkit.parts import name_of

    about = {
        "format": name_of(type(format)),
        "agreement": found.to_dict(),
        "largest_logit": run.scale,
        "rows": run.source,
        "versions": dict(versions()),
        **format.facts(run),
    }
    body = {**manifest, "export": about}
    write_atomically(folder / MANIFEST, json.dumps(body, indent=2) + "\n")


def check_target(out: Path, source: Path, *, overwrite: bool) -> None:
    """Raise unless a folder may be written at `out`.

    Raises:
        InvalidInput: There is something (with `overwrite`: something that is no export), or it is
            the source, or around it, or no folder can be made there.
    """
    whole, own = out.resolve(), source.resolve()
    if whole == own or whole in own.parents:
        raise InvalidInput(
            "the output would take the place of the run itself",
            received=str(out),
            next_step="name another folder with --out",
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not overwrite):
        raise InvalidInput(
            f"{out} already exists",
            next_step="name another folder"
            + ("" if out.is_file() else ", or add --overwrite to replace it"),
        )
    if out.is_dir() and any(out.iterdir()) and not _is_export(out):
        raise InvalidInput(
            f"{out} holds no earlier export, so --overwrite does not delete it",
            received=", ".join(sorted(path.name for path in out.iterdir())[:5]),
            next_step="name another folder, or delete it yourself",
        )
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(dir=whole.parent, prefix=f".{whole.name}-")).rmdir()
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written", received=error.strerror, next_step="name another folder"
        ) from error


def _is_export(folder: Path) -> bool:
    try:
        return "export" in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def require_room(out: Path, model: Any) -> None:
    """Raise unless the disk below `out` has room for the weights of `model`, and some more.

    Raises:
        InvalidInput: It has not.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    free = shutil.disk_usage(out.resolve().parent).free
    if free < ROOM * size:
        raise InvalidInput(
            f"there is too little room on the disk of {out}",
            received=f"{free / 1e9:.1f} GB free",
            allowed=f"{ROOM * size / 1e9:.1f} GB or more",
            next_step="make room, or name a folder on another disk",
        )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Within, an empty folder beside `out`; it becomes `out` unless an error ends the block."""
    whole = out.resolve()
    stage = Path(tempfile.mkdtemp(dir=whole.parent, prefix=f".{whole.name}-"))
    try:
        stage.chmod(0o755)  # temporary folders are private
        yield stage
        if whole.exists():
            old = Path(tempfile.mkdtemp(dir=whole.parent, prefix=f".{whole.name}-old-"))
            whole.rename(old / whole.name)
            stage.rename(whole)
            shutil.rmtree(old)
        else:
            stage.rename(whole)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
