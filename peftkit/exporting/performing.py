"""From a run's folder to a folder in another format, which has its name only once it is proven.

The files are written into a hidden folder beside the target, read back, and compared on rows that
the run itself has answered. Only then is the folder renamed, so that what a killed or failed
export leaves never looks whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput
from peftkit.exporting.adapted import ROWS, load_adapted
from peftkit.placing import require_free, require_room, whole_folder
from peftkit.record import MANIFEST, write_atomically
from peftkit.saved import GRAPHS

if TYPE_CHECKING:
    from peftkit.exporting.adapted import AdaptedRun
    from peftkit.formats import Format
    from peftkit.verification import Agreement


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
        out: Folder to write; it must be free, as `placing.require_free` says.
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
    require_free(out, [folder], "export", overwrite=overwrite)
    from peftkit.saved import read_manifest

    manifest = read_manifest(folder)
    made = manifest.get("export", {}).get("format")
    if made in GRAPHS:
        raise InvalidInput(
            f"{folder} is an export already, and a graph is written in no other format",
            received=f"format {made}",
            next_step="export the run that it was made of",
        )
    run = load_adapted(folder, rows=rows, allow_other_base=allow_other_base)
    format.check(run)
    require_room(out, format.room(run))
    with whole_folder(out) as stage:
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
    from peftkit.merging.describing import with_own_template
    from peftkit.parts import name_of

    about = {
        "format": name_of(type(format)),
        "agreement": found.to_dict(),
        "largest_logit": run.scale,
        "rows": run.source,
        "versions": dict(versions()),
        **format.facts(run),
    }
    body = json.loads(json.dumps({**manifest, "export": about}))
    if about["format"] in GRAPHS:
        with_own_template(body)
    write_atomically(folder / MANIFEST, json.dumps(body, indent=2) + "\n")
