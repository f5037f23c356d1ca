"""One data file read into a table in memory: CSV, TSV, JSON Lines, JSON, Parquet.

CSV and TSV hold no types. Every cell is read as text, an empty cell as a missing value, and a
column becomes numbers only if all its cells are written the way numbers are: `7` is one, `007`
stays text. The words NA, None and null are text. Quoting is RFC 4180, also in TSV; a quote that is
never closed is an error, not a very long cell. Text files are UTF-8, with or without a byte order
mark.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

# Integers that int64 holds and that are written the same way when printed again.
_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
# At most 16 digits before the point: longer ones are identifiers that a float would round.
_FLOAT = r"^-?(0|[1-9][0-9]{0,15})(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
# What pandas leaves in Parquet where a table had row names.
_ROW_NAMES = re.compile(r"__index_level_\d+__")


def read_file(path: Path) -> pa.Table:
    """Read one file, choosing the reader by suffix.

    Raises:
        InvalidInput: Unknown suffix, a file that cannot be read, or one without rows.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(
            f"{path} is of no known format",
            received=f"suffix {path.suffix!r}",
            allowed=", ".join(READERS),
            next_step="convert the file, or rename it if its suffix is wrong",
        )
    try:
        table = reader(path)
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    if not table.num_rows:
        raise InvalidInput(
            f"{path} has no rows",
            received=f"{path.stat().st_size} bytes, columns {table.column_names}",
            next_step="check how the file was written",
        )
    return table


def _unreadable(
    path: Path, why: str, line: int | None = None, step: str | None = None
) -> InvalidInput:
    where = f" at line {line}" if line else ""
    return InvalidInput(
        f"{path} cannot be read{where}",
        received=why,
        allowed=f"a whole {path.suffix.lower()} file",
        next_step=step or ("repair that line" if line else "write the file again"),
    )


def _read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without its byte order mark."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        why = f"bytes that are not UTF-8 text ({error.reason})"
        save = f"save it as UTF-8: `iconv -f LATIN1 -t UTF-8 {path.name} > utf8{path.suffix}`"
        raise _unreadable(path, why, line, save) from error


# ---- CSV and TSV


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a cell, which documents exceed."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, delimiter: str = ",") -> pa.Table:
    import pyarrow as pa

    reader = csv.reader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter, strict=True)
    begins = 1
    with _cells_of_any_length():
        try:
            header = _header(path, next(reader, []), delimiter)
            rows = []
            begins = reader.line_num + 1
            for row in reader:
                if row and len(row) != len(header):
                    why = f"{len(row)} cells, the header has {len(header)}"
                    raise _unreadable(path, why, begins)
                if row:
                    rows.append(row)
                begins = reader.line_num + 1
        except csv.Error as error:
            why = f"{error}, line {reader.line_num}; the row begins at line {begins}"
            raise _unreadable(path, why, begins) from error
    cells = zip(*rows, strict=True) if rows else [()] * len(header)
    return pa.table(dict(zip(header, map(_typed, cells), strict=True)))


def _header(path: Path, cells: Sequence[str], delimiter: str) -> list[str]:
    """Return the column names; unnamed columns are called after their position."""
    names = [name.strip() or f"column_{i}" for i, name in enumerate(cells, start=1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidInput(
            f"{path} has two columns of one name",
            received=twice[0],
            next_step="rename one of them in the first line",
        )
    others = [mark for mark in ";\t," if mark != delimiter and mark in names[0]] if names else []
    if len(names) == 1 and others:
        raise InvalidInput(
            f"the columns of {path} are not separated the way its suffix says",
            received=f"one column named {names[0]!r}",
            allowed="commas in .csv, tabs in .tsv",
            next_step=f"write {delimiter!r} between the cells, or correct the suffix",
        )
    return names


def _typed(cells: Sequence[str]) -> pa.Array:
    """Return text cells as integers, floats or text, whichever loses nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.array([cell or None for cell in cells], pa.string())
    if text.null_count == len(text):
        return text
    for pattern, type_ in ((_INTEGER, pa.int64()), (_FLOAT, pa.float64())):
        if pc.all(pc.match_substring_regex(text, pattern)).as_py():
            return text.cast(type_)
    return text


def _read_tsv(path: Path) -> pa.Table:
    return _read_csv(path, "\t")


# ---- JSON


def _read_json_lines(path: Path) -> pa.Table:
    return _parse_lines(path, _read_text(path))


def _parse_lines(path: Path, text: str) -> pa.Table:
    rows, places = [], []
    # Not splitlines: U+2028 and its like are allowed inside JSON strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, RecursionError) as error:
            raise _unreadable(path, f"not a JSON object: {error}", number) from error
        places.append(f"line {number}")
    return _table(path, rows, places)


def _read_json(path: Path) -> pa.Table:
    """Read a list of objects; a file that opens with `{` is read as JSON Lines."""
    text = _read_text(path)
    if text.lstrip().startswith("{"):
        return _parse_lines(path, text)
    try:
        rows = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        raise _unreadable(path, error.msg, error.lineno) from error
    except RecursionError as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(rows, list):
        raise _unreadable(path, f"{type(rows).__name__}, not a list of objects")
    return _table(path, rows, [f"item {i}" for i in range(len(rows))])


def _table(path: Path, rows: Sequence[Any], places: Sequence[str]) -> pa.Table:
    """Return objects as a table; a key that an object lacks is a missing value."""
    import pyarrow as pa

    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise _unreadable(path, f"{place} is a {type(row).__name__}, not an object")
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        try:
            column = pa.array(values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            why = f"column {name!r}{_odd_one_out(values, places)}: {error}"
            raise _unreadable(path, why) from error
        columns[name] = column.cast(pa.string()) if pa.types.is_null(column.type) else column
    return pa.table(columns)


def _odd_one_out(values: Sequence[Any], places: Sequence[str]) -> str:
    """Say where a column's kind of value changes; nothing if it does not."""
    kinds = [None if value is None else type(value).__name__ for value in values]
    first = next((kind for kind in kinds if kind), None)
    for kind, place in zip(kinds, places, strict=True):
        if kind and kind != first and {kind, first} != {"int", "float"}:
            return f" holds {first} first and {kind} at {place}"
    return ""


# ---- Parquet


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except pa.ArrowException as error:
        raise _unreadable(path, str(error)) from error
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise _unreadable(path, f"several columns named {twice[0]!r}")
    table = table.drop_columns([c for c in table.column_names if _ROW_NAMES.fullmatch(c)])
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table[i].cast(field.type.value_type))
    return table


READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
