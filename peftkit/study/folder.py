"""The output folder of a comparison.

    OUT/study.json             the grid, the inputs and the versions
    OUT/records/<key>.json     one record a cell, whole or absent
    OUT/models/<key>/          trained weights, as far as they are kept
    OUT/features/              what cells share: features of the frozen backbone, data checks
    OUT/logs/<key>.log         what a cell printed, unless it ended well
    OUT/.lock                  held by the comparison that writes here
    OUT/.study.lock            held by a study from its search to its last look

Everything half-made has a name starting with a dot, and is removed by the next comparison.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from peftkit.errors import InvalidInput, PeftkitError
from peftkit.record import Record, write_atomically

SETTLED = ("done", "unsupported", "diverged")
"""Statuses that running the same cell again would only repeat."""

_HEX = "[0-9a-f]{16,64}"
_KEY = re.compile(_HEX)
_RECORD = re.compile(r"[^.].*\.json")
_LEFTOVER_MODEL = re.compile(rf"\.{_HEX}\.(partial|trash)")
_LEFTOVER_RECORD = re.compile(rf"\.{_HEX}\.json\..+")
_LEFTOVER_FEATURES = re.compile(r"\..+\.(npz|checks\.json\..+)")
_LEFTOVER_FILES = re.compile(r"\.(study|design|learning_rates)\.json\..+|\.ray-.+")


class FolderUnwritable(PeftkitError):
    """The output folder stopped taking files; what it holds is whole, and can be gone on with."""


class StudyFolder:
    """Where things are in an output folder.

    Args:
        path: The folder, which need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().absolute()

    def record(self, key: str) -> Path:
        return self.path / "records" / f"{key}.json"

    def model(self, key: str) -> Path:
        return self.path / "models" / key

    def partial(self, key: str) -> Path:
        return self.path / "models" / f".{key}.partial"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def features(self) -> Path:
        return self.path / "features"

    @property
    def study(self) -> Path:
        return self.path / "study.json"

    def make(self) -> None:
        """Create the folder, and see that it can be written to.

        Raises:
            InvalidInput: It cannot.
        """
        try:
            for name in ("records", "models", "logs"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.path / name) as file:
                    file.write(b"x")
        except OSError as error:
            raise InvalidInput(
                f"the output folder {self.path} cannot be written to",
                received=f"{error.strerror}: {error.filename}",
                next_step="choose another folder, or free space",
            ) from error

    def clean(self) -> int:
        """Remove what killed comparisons left half-made, and return how many such things."""
        leftovers = [
            *_matching(self.path / "records", _LEFTOVER_RECORD),
            *_matching(self.path / "models", _LEFTOVER_MODEL),
            *_matching(self.features, _LEFTOVER_FEATURES),
            *_matching(self.path, _LEFTOVER_FILES),
        ]
        for model in _matching(self.path / "models", _KEY):
            if not self.record(model.name).exists():  # killed between the model and its record
                leftovers.append(model)
        for path in leftovers:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(leftovers)

    def num_records(self) -> int:
        """Return the number of record files, whatever is in them."""
        return len(_matching(self.path / "records", _RECORD))

    def read(self) -> tuple[dict[str, Record], list[str]]:
        """Return the whole records by key, and one message for each file that is none."""
        records: dict[str, Record] = {}
        problems: list[str] = []
        for path in _matching(self.path / "records", _RECORD):
            try:
                record = Record.read(path)
            except (InvalidInput, OSError):
                problems.append(f"{path} is not a whole record and is ignored; its cell runs again")
                continue
            if record.key == path.stem:
                records[record.key] = record
            else:
                problems.append(f"{path} holds the record of another cell ({record.key}): ignored")
        return records, problems

    def discard_model(self, key: str) -> None:
        """Delete a cell's weights: all of them, or, when killed, all of them next time."""
        trash = self.path / "models" / f".{key}.trash"
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.model(key), trash)
        shutil.rmtree(trash, ignore_errors=True)

    def settle_log(self, key: str, *, keep: bool) -> Path | None:
        """Delete a cell's log unless it is to be kept and says something; return what is kept."""
        log = self.logs / f"{key}.log"
        with contextlib.suppress(OSError):
            if keep and log.stat().st_size:
                return log
            log.unlink()
        return None

    def write_study(self, study: dict[str, Any]) -> str | None:
        """Write `study.json`, keeping another study's under another name; return a message."""
        message = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            before = json.loads(self.study.read_text(encoding="utf-8"))
            if before["study"] == study["study"]:
                study = {**study, "cells": {**before["cells"], **study["cells"]}}
            else:
                kept = self.path / f"study-{before['study']}.json"
                os.replace(self.study, kept)
                message = (
                    f"{self.path} holds another study (other data, weights or settings), now "
                    f"described by {kept.name}; its records are kept and not mixed with these"
                )
        write_atomically(self.study, json.dumps(study, indent=1) + "\n")
        return message


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return what a folder holds under names of a pattern, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
