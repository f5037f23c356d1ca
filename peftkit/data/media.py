"""Images and sounds as rows hold them: a column of encoded files, each with the name it had.

A column is found by what it holds: bytes with a path (how `datasets` stores images and sounds),
bytes alone, or paths of files. Paths are read at once, so the fingerprint of the data covers what
the files hold. Nothing is decoded before it is needed, except once for a check.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftkit.data._fingerprint import rows_fingerprint
from peftkit.data.answers import known_labels
from peftkit.data.columns import Columns, find_label_column
from peftkit.data.labels import label_names
from peftkit.data.splits import Splits, values_of
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Kind = Literal["image", "audio"]
# Of several columns that could hold it, one of these names wins.
_NAMES: dict[Kind, tuple[str, ...]] = {
    "image": ("image", "img", "picture", "photo"),
    "audio": ("audio", "sound", "speech", "wav"),
}
_PATHS = ("file", "file_name", "path", "filename")
_OF = {"image": "images", "audio": "sounds"}
_FORMATS = {
    "image": "a whole JPEG, PNG or other file that Pillow reads",
    "audio": "a WAV, FLAC, OGG or other file that libsndfile reads, with at least one sample",
}


def find_media_column(rows: Dataset, kind: Kind, named: str | None = None) -> str:
    """Find the column that holds images or sounds, by type and name.

    Raises:
        InvalidInput: A named column is missing or of the wrong type, none fits, or several do.
    """
    fitting = [name for name in rows.column_names if _shape(rows, name) in ("struct", "bytes")]
    paths = [name for name in rows.column_names if _shape(rows, name) == "text"]
    if named is not None:
        if named not in rows.column_names:
            raise UnknownName("column", named, rows.column_names)
        if named not in fitting + paths:
            raise InvalidInput(
                f"column {named!r} holds no {_OF[kind]}",
                received=str(rows.features[named]),
                allowed="bytes, bytes with a path, or paths of files",
            )
        return named
    for group in (
        [name for name in fitting if name.lower() in _NAMES[kind]],
        fitting,
        [name for name in paths if name.lower() in _NAMES[kind]],
        [name for name in paths if name.lower() in _PATHS],
    ):
        if len(group) > 1:
            raise InvalidInput(
                f"several columns may hold the {_OF[kind]}",
                received=", ".join(group),
                next_step=f"name the right one (--task.{kind}-column)",
            )
        if group:
            return str(group[0])
    raise InvalidInput(
        f"no column holds {_OF[kind]}",
        received=", ".join(f"{name}: {feature}" for name, feature in rows.features.items()),
        allowed="a column of bytes, of bytes with a path, or of paths of files",
        next_step=f"name it (--task.{kind}-column)",
    )


def labelled_media(
    splits: Splits, kind: Kind, *, column: str | None, label: str | None, folder: Path | None
) -> tuple[list[str], Splits]:
    """Return class names, and splits of the columns `kind` (bytes and path) and `label`.

    Args:
        splits: Rows as loaded.
        kind: What they hold.
        column: Name of its column; found if left out.
        label: Name of the label column; found if left out.
        folder: Where relative paths start, if the rows are this machine's.

    Raises:
        InvalidInput: See `find_media_column` and `label_names`; a row without content, or a file
            that cannot be read.
    """
    column = find_media_column(splits.train, kind, column)
    label = find_label_column(splits.train, label, taken=(column,))
    parts, read = {}, False
    for name, part in splits.parts().items():
        where = f"the {name} split"
        found, own = _stored(part, column, where=where, folder=folder)
        parts[name] = _with_stored(part, column, found, kind)
        read = read or own
    if read:  # what the files hold counts, not only their names
        splits = dataclasses.replace(splits, fingerprint=rows_fingerprint(parts))
    names, splits = label_names(dataclasses.replace(splits, **parts), label)
    parts = {name: _two_columns(part, kind, label) for name, part in splits.parts().items()}
    return names, dataclasses.replace(splits, **parts)


def known_media(
    rows: Dataset, kind: Kind, names: list[str], *, column: str | None, label: str | None,
    source: Path,
) -> Dataset:  # fmt: skip
    """Rows of another file, with labels numbered as in `names`; see `labelled_media`.

    Raises:
        InvalidInput: Also for a label that is none of `names`.
    """
    column = find_media_column(rows, kind, column)
    label = find_label_column(rows, label, taken=(column,))
    folder = source if source.is_dir() else source.parent
    found, _ = _stored(rows, column, where=str(source), folder=folder)
    rows = _with_stored(rows, column, found, kind)
    columns = Columns(text=kind, second_text=None, label=label)
    return _two_columns(known_labels(rows, columns, names, source=str(source)), kind, label)


def bare_media(paths: Sequence[str], kind: Kind) -> Dataset:
    """Rows of files whose labels are not known (0); read when they are needed."""
    from datasets import Dataset, Features, Value

    struct = {"bytes": Value("large_binary"), "path": Value("string")}
    columns = {
        kind: [{"bytes": None, "path": str(path)} for path in paths],
        "label": [0] * len(paths),
    }
    return Dataset.from_dict(columns, features=Features({kind: struct, "label": Value("int64")}))


def content_of(value: dict[str, Any]) -> bytes:
    """Return the bytes of one image or sound, read from its path if they are not there.

    Raises:
        OSError: The file cannot be read.
    """
    content: bytes | None = value["bytes"]
    return Path(value["path"]).expanduser().read_bytes() if content is None else content


def check_media(
    rows: Dataset, kind: Kind, check: Callable[[bytes], Any], *, where: str,
    numbers: Sequence[int] | None = None, progress: Callable[[int], None] | None = None,
) -> list[Any]:  # fmt: skip
    """Return what `check` makes of each image or sound.

    Args:
        rows: With a column `kind`.
        kind: What they hold.
        check: Raises `ValueError` where it is not sound.
        where: "the test split" or a file, for messages.
        numbers: Numbers of the rows, for messages; None: as they stand.
        progress: Told of rows done.

    Raises:
        InvalidInput: Naming the first row that is not sound.
    """
    found = []
    for place, value in enumerate(rows[kind]):
        try:
            found.append(check(content_of(value)))
        except (ValueError, OSError) as error:
            row = place if numbers is None else numbers[place]
            size = "" if value["bytes"] is None else f", {len(value['bytes'])} bytes"
            raise InvalidInput(
                f"row {row} of {where} has no {'image' if kind == 'image' else 'sound'} that can "
                f"be read in column {kind!r}",
                received=f"{value['path'] or 'no name'}{size}: {error}",
                allowed=_FORMATS[kind],
                next_step="write that file again, or remove the row",
            ) from error
        if progress:
            progress(place + 1)
    return found


def _shape(rows: Dataset, column: str) -> str | None:
    """How a column could hold files: as "struct" (bytes, path), "bytes" or "text" (paths)."""
    import pyarrow as pa

    kind = rows.data.schema.field(column).type
    kind = getattr(kind, "storage_type", kind)
    if pa.types.is_struct(kind):
        return "struct" if {"bytes", "path"} <= {field.name for field in kind} else None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _stored(
    part: Dataset, column: str, *, where: str, folder: Path | None
) -> tuple[list[dict[str, Any]], bool]:
    """Return bytes and name of each row, and whether any came from a file of its own."""
    shape = _shape(part, column)
    found, read = [], False
    for row, value in enumerate(values_of(part, column).to_pylist()):
        if shape == "bytes":
            value = {"bytes": value, "path": None}
        elif shape == "text":
            value = {"bytes": None, "path": value}
        content, path = (value or {}).get("bytes"), (value or {}).get("path")
        if content is None:
            content, read = _read(path, row, column, where, folder), True
        # A folder is this machine's affair; the name is what a reader knows the file by.
        found.append({"bytes": content, "path": Path(path).name if path else None})
    return found, read


def _read(path: str | None, row: int, column: str, where: str, folder: Path | None) -> bytes:
    received: object = path
    if path:
        file = Path(path).expanduser()
        try:
            return (file if file.is_absolute() or folder is None else folder / file).read_bytes()
        except OSError as error:
            received = f"{path}: {error.strerror}"
    raise InvalidInput(
        f"row {row} of {where} has nothing that can be read in column {column!r}",
        received=received or "no value",
        allowed="bytes, or the path of a file, as seen from the folder of the data",
        next_step="correct the path, or remove the row",
    )


def _with_stored(part: Dataset, column: str, found: list[dict[str, Any]], kind: Kind) -> Dataset:
    """Return the same rows with `found` as the column `kind` instead of `column`."""
    import pyarrow as pa
    from datasets import Dataset, Value

    table: pa.Table = part.with_format("arrow")[:]
    table = table.drop_columns(sorted({column, kind} & set(table.column_names)))
    struct = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    table = table.append_column(kind, pa.array(found, struct)).replace_schema_metadata(None)
    info = part.info.copy()
    info.features = part.features.copy()
    for name in {column, kind} & set(info.features):
        del info.features[name]
    info.features[kind] = {"bytes": Value("large_binary"), "path": Value("string")}
    return Dataset(table, info=info)


def _two_columns(rows: Dataset, kind: Kind, label: str) -> Dataset:
    rows = rows.select_columns([kind, label])
    return rows if label == "label" else rows.rename_column(label, "label")
