"""Rows of another file, read for a model whose classes are already settled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.data.columns import Columns, companions
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

    Whole numbers that come without names are taken as positions in `labels`.

    Raises:
        InvalidInput: A label is none of these.
    """
    written = _names(rows, columns.label, labels)
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


def _names(rows: Dataset, column: str, labels: list[str]) -> list[str]:
    values = values_of(rows, column).to_pylist()
    declared = getattr(rows.features[column], "names", None)
    if declared is not None:
        return [declared[value] for value in values]
    for companion in companions(column):
        if companion in rows.column_names and companion != column:
            spelled = [str(value) for value in values_of(rows, companion).to_pylist()]
            if set(spelled) <= set(labels):
                return spelled
    numbered = all(isinstance(value, int) for value in values)
    if numbered and not {str(value) for value in values} <= set(labels):
        return [labels[v] if 0 <= v < len(labels) else str(v) for v in values]
    return [str(value) for value in values]
