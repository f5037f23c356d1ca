"""A merged folder in a fresh process: `python -m peftkit.merging.check FOLDER ROWS OUT.npz`.

What is on disk is all that this process knows, so nothing that was left in the memory of the merge
can make up for what was not written.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import VerificationFailed

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.merging.observing import Observed


def check(folder: Path, rows: Dataset, *, fresh: bool = True) -> Observed:
    """Observe the model in `folder` on some rows.

    Args:
        folder: Of a merged model, with its `peftkit.json`.
        rows: As the task reads them.
        fresh: False: in this process.

    Raises:
        VerificationFailed: It cannot be loaded, or fails on the rows.
    """
    if not fresh:
        return _observe(folder, rows)
    import torch

    from peftkit.merging.observing import Observed

    if torch.cuda.is_available():  # the other process loads the model beside what is kept here
        gc.collect()
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory(prefix="peftkit-check-") as temporary:
        there, out = Path(temporary) / "rows", Path(temporary) / "observed.npz"
        rows.save_to_disk(str(there))
        done = subprocess.run(
            [sys.executable, "-m", "peftkit.merging.check", str(folder), str(there), str(out)],
            env=_environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0 or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise VerificationFailed(
                f"the merged model cannot be used in a fresh process, which said: {last}. Next: "
                "see that memory and disk have room for the model once more; else report this "
                "with what `peftkit doctor` prints."
            )
        return Observed.read(out)


def _environment() -> dict[str, str]:
    """This process's, and where it found peftkit."""
    home = str(Path(__file__).parents[2])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _observe(folder: Path, rows: Dataset) -> Observed:
    from peftkit.merging.observing import observe
    from peftkit.saved import load_run

    return observe(load_run(folder), rows)


def main(argv: list[str]) -> int:
    """Observe, and write what was seen."""
    import torch
    from datasets import load_from_disk

    from peftkit.environment import quiet_libraries
    from peftkit.saved import read_manifest

    folder, rows, out = map(Path, argv)
    quiet_libraries()
    torch.set_num_threads(int(read_manifest(folder)["recipe"]["training"].get("threads") or 1))
    _observe(folder, load_from_disk(str(rows))).write(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
