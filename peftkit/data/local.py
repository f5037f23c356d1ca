"""Data from this machine: one file, a folder with a file per split, or a saved dataset.

Or images or sounds in a folder a class.

Everything is read into memory (a saved dataset stays mapped from its folder) and nothing is
written, no cache beside the data either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.data._files import READERS, read_file
from peftkit.data.folders import read_class_folders
from peftkit.data.splits import SPLIT_NAMES, detach, require_same_columns, split_of, splits_by_name
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

# "train.csv", "dev.tsv", "test_3.jsonl", "train-00000-of-00002.parquet" (or with a hash behind).
_FILE = re.compile(
    r"(?P<split>[a-z]+)"
    r"([-_.](?P<shard>\d+)([-_]of[-_](?P<count>\d+)(-[0-9a-f]+)?)?)?"
    r"(?P<suffix>\.[a-z]+)",
    re.IGNORECASE,
)
_MAX_LISTED = 12


def read_local(path: Path) -> dict[str, Dataset]:
    """Read what `path` holds, by split; a single file or dataset counts as `train`.

    Raises:
        InvalidInput: Nothing is there, or it cannot be read, or it is no data.
    """
    from datasets import Dataset

    if path.is_file():
        return {"train": Dataset(read_file(path))}
    if not path.is_dir():
        raise _missing(path)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_saved(path)
    return _read_folder(path)


def _missing(path: Path) -> InvalidInput:
    parent = next(folder for folder in path.absolute().parents if folder.is_dir())
    return InvalidInput(
        f"there is no file or folder {path}",
        allowed=f"{parent} holds {_listing(parent)}",
        next_step="check the spelling; relative paths start at the folder peftkit was called from",
    )


def _listing(folder: Path) -> str:
    """Return what a folder holds, cut short."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        return f"what cannot be listed ({error.strerror})"
    more = len(names) - _MAX_LISTED
    return (", ".join(names[:_MAX_LISTED]) or "nothing") + (f" and {more} more" if more > 0 else "")


def _read_saved(folder: Path) -> dict[str, Dataset]:
    """Read what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import pyarrow as pa
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(folder)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InvalidInput(
            f"{folder} looks like a saved dataset but cannot be read",
            received=f"{type(error).__name__}: {error}",
            allowed="a whole folder written by save_to_disk",
            next_step="save the dataset again",
        ) from error
    if not isinstance(saved, DatasetDict):
        return {"train": detach(saved)}
    named = splits_by_name(saved, str(folder))
    found = {name: detach(saved[own]) for name, own in named.items()}
    if not found:
        raise InvalidInput(
            f"{folder} holds no split that peftkit knows",
            received=", ".join(saved),
            allowed=", ".join(SPLIT_NAMES),
            next_step="rename the splits before saving",
        )
    return found


# ---- a folder with a file per split


def _read_folder(folder: Path) -> dict[str, Dataset]:
    from datasets import Dataset

    files = {name: _in_order(folder, name, paths) for name, paths in _split_files(folder).items()}
    if not files:
        if classes := read_class_folders(folder):
            return classes
        raise InvalidInput(
            f"the folder {folder} has no file of a split",
            received=_listing(folder),
            allowed=f"train.*, validation.* (or valid, val, dev), test.*; {', '.join(READERS)}; "
            "a folder written by save_to_disk; or images or sounds in a folder a class",
            next_step="rename the files, or give one file: splits are then carved from it",
        )
    tables = {path.name: read_file(path) for paths in files.values() for path in paths}
    require_same_columns({name: Dataset(table) for name, table in tables.items()}, str(folder))
    tables = _of_same_types(tables, folder)
    return {name: _join([tables[path.name] for path in paths]) for name, paths in files.items()}


def _split_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split by the split's own name."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None or not path.is_file() or path.suffix.lower() not in READERS:
            continue
        name = split_of(match["split"])
        if name is not None:
            files.setdefault(name, []).append(path)
    return {name: files[name] for name in SPLIT_NAMES if name in files}


def _in_order(folder: Path, name: str, paths: Sequence[Path]) -> list[Path]:
    """Return the files of one split in the order of their numbers, none missing, none twice."""
    matches = {path: _FILE.fullmatch(path.name) for path in paths}
    keys = {path: (m["split"].lower(), m["suffix"].lower()) for path, m in matches.items() if m}
    numbers = {path: int(m["shard"] or -1) for path, m in matches.items() if m}
    counts = {int(m["count"]) for m in matches.values() if m and m["count"]}
    distinct = len(set(keys.values())) == 1 and len(set(numbers.values())) == len(paths)
    if not distinct or (len(paths) > 1 and -1 in numbers.values()):
        raise InvalidInput(
            f"it is unclear which files of {folder} make up the {name} split",
            received=", ".join(path.name for path in paths),
            allowed="one file, or numbered parts of one file",
            next_step="move the files that do not belong away",
        )
    if counts and counts != {len(paths)}:
        raise InvalidInput(
            f"parts of the {name} split are missing in {folder}",
            received=", ".join(path.name for path in paths),
            allowed=f"{max(counts)} parts, as the file names say",
            next_step="copy or download the missing parts",
        )
    return sorted(paths, key=lambda path: numbers[path])


def _join(tables: Sequence[pa.Table]) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    return Dataset(pa.concat_tables(tables) if len(tables) > 1 else tables[0])


def _of_same_types(tables: Mapping[str, pa.Table], folder: Path) -> dict[str, pa.Table]:
    """Return the tables with the first one's column order and one type for each column.

    Files without types disagree innocently: labels 1, 2 in one and 1, x in the other.
    """
    import pyarrow as pa

    first = next(iter(tables.values())).schema
    fields = []
    for field in first:
        types = {name: table.schema.field(field.name).type for name, table in tables.items()}
        shared = _shared_type(list(types.values()))
        if shared is None:
            raise InvalidInput(
                f"column {field.name!r} is not of one kind in the files of {folder}",
                received=", ".join(f"{type_} in {name}" for name, type_ in types.items()),
                next_step="write the files with the same types",
            )
        fields.append(pa.field(field.name, shared))
    schema = pa.schema(fields, metadata=first.metadata)
    return {name: table.select(schema.names).cast(schema) for name, table in tables.items()}


def _shared_type(types: Sequence[pa.DataType]) -> pa.DataType | None:
    """Return a type that all values can be written in, or None."""
    import pyarrow as pa

    known = [type_ for type_ in dict.fromkeys(types) if not pa.types.is_null(type_)]
    if len(known) <= 1:
        return known[0] if known else pa.string()
    if all(map(pa.types.is_integer, known)):
        return pa.int64()
    if all(pa.types.is_integer(type_) or pa.types.is_floating(type_) for type_ in known):
        return pa.float64()
    if all(pa.types.is_primitive(type_) or _is_text(type_) for type_ in known):
        return pa.string()
    return None


def _is_text(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))
