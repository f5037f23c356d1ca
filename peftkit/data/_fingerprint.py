"""A hash over rows that does not depend on how they are stored.

The same rows give the same hash whether they came from CSV, JSON, Parquet or a saved dataset, in
one file or ten, on any machine: column order, chunks, and the width of integers and strings play
no part. Values are hashed in their written form (1 as "1"), so that text and number of the same
look agree. The order of rows counts. The names of declared classes count; nothing else in the
metadata does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

# Raised whenever the rule below changes, so that old and new hashes never agree by accident.
_VERSION = b"peftkit rows 1"
_BATCH = 8192


def rows_fingerprint(parts: Mapping[str, Dataset]) -> str:
    """Return the hash over all rows of all splits, 32 hexadecimal digits."""
    total = _hash(_VERSION)
    for name in sorted(parts):
        dataset = parts[name]
        total.update(f"|split {name} {dataset.num_rows}".encode())
        columns: dict[str, _Column] = {}
        for batch in dataset.with_format("arrow").iter(batch_size=_BATCH):
            # Chosen rows come as one chunk each.
            whole = batch.combine_chunks()
            for column in whole.column_names:
                for chunk in whole[column].chunks:
                    _feed(columns, column, chunk)
        for path in sorted(columns):
            total.update(f"|column {path} ".encode() + columns[path].digest())
        for column, feature in sorted(dataset.features.items()):
            names = getattr(feature, "names", None)
            if names is not None:
                total.update(f"|classes {column} {json.dumps(list(names))}".encode())
    return str(total.hexdigest())


def _hash(start: bytes = b"") -> Any:
    return hashlib.blake2b(start, digest_size=16)


class _Column:
    """Two running hashes of one flat column: lengths (-1 for missing) and contents."""

    def __init__(self) -> None:
        self.lengths = _hash()
        self.content = _hash()

    def digest(self) -> bytes:
        return bytes(self.lengths.digest() + self.content.digest())


def _feed(columns: dict[str, _Column], path: str, array: pa.Array) -> None:
    """Add the values of `array` to the column at `path`, or to the columns that it nests."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        _feed(columns, path, array.storage)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.cast(pc.list_value_length(array), pa.int64()), -1)
        column = columns.setdefault(path, _Column())
        column.lengths.update(np.asarray(lengths).astype("<i8").tobytes())
        _feed(columns, path + "[]", array.flatten())
    elif pa.types.is_struct(kind):
        column = columns.setdefault(path, _Column())
        column.lengths.update(np.asarray(array.is_null()).astype("<i8").tobytes())
        for child in sorted(field.name for field in kind):
            _feed(columns, f"{path}.{child}", pc.struct_field(array, child))
    else:
        _feed_flat(columns.setdefault(path, _Column()), _written(array))


def _written(array: pa.Array) -> pa.Array:
    """Return the values in their written form, as an array of bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.cast(kind.value_type)
    elif pa.types.is_boolean(kind):
        # As Python and pandas write them, hence as they stand in CSV files.
        array = pc.if_else(array, "True", "False")
    elif not (_is_bytes(kind) or _is_text(kind)):
        try:
            array = array.cast(pa.string())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            array = pa.array([None if v is None else repr(v) for v in array.to_pylist()])
    if not _is_bytes(array.type):
        array = array.cast(pa.large_string())
    return array.cast(pa.large_binary())


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _feed_flat(column: _Column, array: pa.Array) -> None:
    """Add an array of type large_binary."""
    import numpy as np
    import pyarrow.compute as pc

    if not len(array):
        return
    missing = np.asarray(array.is_null())
    array = pc.fill_null(array, b"")  # what lies under a missing value is arbitrary
    offsets = np.frombuffer(array.buffers()[1], "<i8")[array.offset : array.offset + len(array) + 1]
    column.lengths.update(np.where(missing, -1, np.diff(offsets)).astype("<i8").tobytes())
    if array.buffers()[2] is not None:
        column.content.update(memoryview(array.buffers()[2])[offsets[0] : offsets[-1]])
