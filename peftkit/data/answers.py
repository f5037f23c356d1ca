"""Rows of another file, read for a model whose classes are already settled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.data.columns import Columns, companions
from peftkit.data.labels import is_missing, require_texts
from peftkit.data.splits import values_of
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from datasets import Dataset


def read_rows(path: Path) -> Dataset:
    """Read one file, or the test split of a folder.

    Raises:
        InvalidInput: It cannot be read, or a folder has no test split.
    """
    from peftkit.data.local import read_local

    parts = read_local(path)
    found = parts.get("test", parts.get("train") if len(parts) == 1 else None)
    if found is None:
        raise InvalidInput(
            f"{path} has no test split",
            received=", ".join(parts),
            next_step="name one file of it",
        )
    return found


def known_labels(rows: Dataset, columns: Columns, labels: list[str], *, source: str) -> Dataset:
    """Number the labels of `rows` as in `labels`, by name.

    Whole numbers that come without names are taken as positions in `labels`, where these are no
    numbers and begin at 0.

    Raises:
        InvalidInput: A label is none of these, or missing; a text is missing.
    """
    require_texts(rows, columns, source)
    written = _names(rows, columns.label, labels, source)
    codes = {label: code for code, label in enumerate(labels)}
    for row, name in enumerate(written):
        if name not in codes:
            raise InvalidInput(
                f"row {row} of {source} has a label that the model does not know",
                received=repr(name),
                allowed=", ".join(labels[:20]) + (", ..." if len(labels) > 20 else ""),
                next_step="remove the row, or train on data that has this class",
            )
    coded = [codes[name] for name in written]
    return rows.remove_columns(columns.label).add_column(columns.label, coded)


def _names(rows: Dataset, column: str, labels: list[str], source: str) -> list[str]:
    values = values_of(rows, column).to_pylist()
    declared = getattr(rows.features[column], "names", None)
    missing = [row for row, value in enumerate(values) if is_missing(value, declared)]
    if missing:
        raise InvalidInput(
            f"row {missing[0]} of {source} has no label",
            received=f"{values[missing[0]]!r} in column {column!r}, and {len(missing) - 1} more",
            next_step="fill the label in, or remove the row; peftkit predict needs none",
        )
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]  # as in training
    if declared is not None:
        return [declared[value] for value in values]
    for companion in companions(column):
        if companion in rows.column_names and companion != column:
            spelled = [str(value) for value in values_of(rows, companion).to_pylist()]
            if set(spelled) <= set(labels):
                return spelled
    numbered = all(isinstance(value, int) for value in values)
    if numbered and not {str(value) for value in values} <= set(labels):
        if min(values) > 0:
            raise InvalidInput(
                f"what the labels of {source} are called is not clear",
                received=f"whole numbers from {min(values)} on in column {column!r}",
                allowed=f"names, or positions from 0 on: {', '.join(labels[:10])}",
                next_step=f"add a column {column}_text with the names",
            )
        return [labels[v] if 0 <= v < len(labels) else str(v) for v in values]
    return [str(value) for value in values]
