"""What one run of a recipe yielded, and the folder of such records.

A record is enough to check us: the recipe, quality per item, costs per phase, versions, and
fingerprints of data and weights. One JSON file a record, written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftkit.errors import InvalidInput

Status = Literal["done", "diverged", "out_of_memory", "unsupported", "failed"]
FORMAT = 1
MANIFEST = "peftkit.json"
"""File of a run's folder that says what is needed to use it again."""
CONTINUED = "backbone"
"""Folder in that of a run, of a backbone whose own pretraining was continued there."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run of one recipe.

    Attributes:
        key: Hash over recipe, data and weights; the name of the record's file.
        recipe: The recipe as a plain dictionary (`Recipe.to_dict`).
        facts: What its parts say of themselves (`Recipe.facts`); older records have none.
        status: How the run ended.
        error: Why it did not end well; empty when status is "done".
        metrics: Split name -> metric name -> value; splits are "validation" and "test".
        predictions: Per test item: "item" (row in the test split), "label", "predicted" (class
            indices) and "loss" (nats: minus log probability of the true label).
        history: Logged points of training: step, loss, learning_rate, validation metrics.
        costs: Counts, bytes and seconds by name, units in the names; see `peftkit.cost`.
        data: source, fingerprint, notes, num_train, num_validation, num_test, num_classes, chance;
            checks: what the data check warned of ("check", "count", "note").
        backbone: name, family, fingerprint of the weights, total_parameters.
        environment: versions, device, threads, precision, neighbours.
        notes: What a reader of the numbers must know.
        created: UTC time, ISO 8601.
    """

    key: str
    recipe: dict[str, Any]
    status: Status
    error: str = ""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    predictions: dict[str, list[Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    costs: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    created: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return str(self.recipe["method"]["name"])

    @property
    def size(self) -> int:
        """Training examples used (0 if the run ended before the data was read)."""
        return int(self.data.get("num_train") or self.recipe["task"].get("size") or 0)

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])

    def write(self, path: Path | str) -> None:
        """Write the record as JSON to `path`, atomically."""
        body = {"format": FORMAT, **dataclasses.asdict(self)}
        write_atomically(Path(path), json.dumps(body, indent=None, allow_nan=True) + "\n")

    @classmethod
    def read(cls, path: Path | str) -> Record:
        """Read a record.

        Raises:
            InvalidInput: The file is not a whole record of this format.
        """
        path = Path(path)
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            if body.pop("format") != FORMAT:
                raise KeyError("format")
            for part in ("backbone", "method", "task"):
                body["recipe"][part]["name"]
            return cls(**body)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
            raise InvalidInput(
                f"{path} is not a whole record",
                received=f"{type(e).__name__}: {e}",
                allowed=f"a record of format {FORMAT}",
                next_step="delete the file and run the same command again: only this cell is rerun",
            ) from e


def record_key(recipe_fingerprint: str, data_fingerprint: str, weights_fingerprint: str) -> str:
    """Name of the record of a recipe on given data and weights: 16 hexadecimal digits."""
    whole = "|".join((recipe_fingerprint, data_fingerprint, weights_fingerprint))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def read_records(folder: Path | str) -> tuple[list[Record], list[str]]:
    """Read every record in `folder/records`, or else that of a run's folder.

    Args:
        folder: Output folder of a comparison or a run.

    Returns:
        The records in the order of their file names, and one message for each file that could
        not be read (such files are otherwise ignored).

    Raises:
        InvalidInput: There is no such folder, or no record in it.
    """
    folder = Path(folder)
    paths = sorted((folder / "records").glob("*.json")) or sorted(folder.glob("record.json"))
    if not paths:
        within = sorted(path.parent.name for path in folder.glob("*/records"))
        raise InvalidInput(
            f"no records in {folder}",
            received=f"studies in it: {', '.join(within)}" if within else None,
            allowed="the --out folder of `peftkit run` or `peftkit compare`",
            next_step=f"name one or more of these, such as {folder / within[0]}"
            if within
            else "check the folder's name, or run `peftkit compare --out DIR` first",
        )
    records, problems = [], []
    for path in paths:
        try:
            records.append(Record.read(path))
        except InvalidInput as error:
            problems.append(str(error))
    return records, problems


def _umask() -> int:
    """The process's mask of file permissions, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that `path` holds either the old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # temporary files are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
