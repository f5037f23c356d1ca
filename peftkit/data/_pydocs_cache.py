"""Cache files of the bundled corpus: Parquet, written whole or not at all, rebuilt if damaged.

A file's name is a hash over all that its contents depend on, so a file is never updated: it is
there, or it is not. Two processes that build the same one at once both write it, and the second
replaces the first by an equal one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.cache import cache_folder
from peftkit.data._docstrings import Docstring

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = list(Docstring.__dataclass_fields__)


def cache_file(kind: str, contents: Any) -> Path:
    """Name the file of something that depends on `contents` and on the version of Python."""
    key = json.dumps([contents, sys.version_info[:2]], sort_keys=True)
    name = f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.parquet"
    return cache_folder() / "pydocs" / name


def read_docstrings(path: Path) -> list[Docstring] | None:
    """Read docstrings, None if they have to be scanned."""
    table = read_table(path)
    if table is None or table.column_names != _COLUMNS:
        return None
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return [Docstring(*row) for row in rows]


def write_docstrings(docstrings: list[Docstring], path: Path) -> None:
    """Store docstrings."""
    import pyarrow as pa

    columns = {name: [getattr(docstring, name) for docstring in docstrings] for name in _COLUMNS}
    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    write_table(pa.table(columns, schema=schema), path)


def read_table(path: Path) -> pa.Table | None:
    """Read a table, None if its file is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(use_threads=False)
    except (OSError, pa.ArrowException):
        return None


def write_table(table: pa.Table, path: Path) -> None:
    """Store a table; a folder that cannot be written to costs time, not the result."""
    import pyarrow.parquet as pq

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.stem}-{uuid.uuid4().hex}.part")
        try:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"the bundled corpus could not be cached: {error}", stacklevel=2)
