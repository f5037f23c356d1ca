"""Numbers as labels: column "label" of finite numbers, beside texts that are all there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.data.columns import Columns, find_text_columns
from peftkit.data.labels import require_texts
from peftkit.data.splits import Splits, values_of
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

# Earlier groups win; within a group there must be one hit.
_VALUES = (
    ("label", "labels"),
    ("score", "similarity", "similarity_score", "value", "target", "rating", "stars"),
)
# Distinct whole numbers up to which a carved split gets its share of each.
_FEW = 20


def find_value_column(rows: Dataset, named: str | None, *, taken: Sequence[str | None] = ()) -> str:
    """Find the column of the number to predict, by name and type.

    Args:
        rows: Training rows.
        named: Its name; found if left out.
        taken: Columns that play another part.

    Raises:
        InvalidInput: The named column is missing or holds no numbers, none fits, or several do.
    """
    numbers = [n for n in rows.column_names if n not in taken and _is_number(rows, n)]
    if named is not None:
        if named not in rows.column_names:
            raise UnknownName("column", named, rows.column_names)
        if named not in numbers:
            raise InvalidInput(
                f"column {named!r} holds no numbers",
                received=str(rows.features[named]),
                allowed=f"a column of numbers: {', '.join(numbers) or 'there is none'}",
                next_step="name another --task.label-column, or --task text_classification",
            )
        return named
    floats = [name for name in numbers if _is_float(rows, name)]
    for group in (*([n for n in numbers if n.lower() in names] for names in _VALUES), floats):
        if len(group) > 1:
            raise InvalidInput(
                "several columns may be the number to predict",
                received=", ".join(group),
                next_step="name the right one (--task.label-column)",
            )
        for name in group:
            return str(name)
    raise InvalidInput(
        "no column looks like a number to predict",
        received=", ".join(f"{name}: {kind}" for name, kind in rows.features.items()),
        allowed="a column of numbers named "
        f"{', '.join(name for names in _VALUES for name in names)}, or the only one of floats",
        next_step="name it (--task.label-column)",
    )


def strata_of_values(rows: Dataset, column: str) -> str | None:
    """The column, unless it holds so many whole numbers that each would have a share of its own."""
    import pyarrow.compute as pc

    few = pc.count_distinct(values_of(rows, column)).as_py() <= _FEW
    return column if few or _is_float(rows, column) else None


def valued(
    splits: Splits, *, text: str | None = None, second: str | None = None, label: str | None = None
) -> tuple[str, Splits]:
    """Return the name of the label's column, and splits of `text`, `second_text` and `label`.

    Args:
        splits: Rows as loaded.
        text: Name of the text column; found if left out.
        second: Name of the second text column; found with the first if left out.
        label: Name of the column of numbers; found if left out.

    Raises:
        InvalidInput: A number is missing or not finite; those of the training rows, or of the test
            rows, are all the same; see also `find_value_column` and `find_text_columns`.
    """
    columns = value_columns(splits.train, text, second, label)
    parts, notes = {}, list(splits.notes)
    for name, part in splits.parts().items():
        where = f"the {name} split of {splits.source}"
        parts[name] = known_values(part, columns, source=where)
        first, *others = parts[name].unique("label")
        if others:
            continue
        if name != "validation":
            raise InvalidInput(
                f"all numbers of {where} are the same, so there is nothing to predict",
                received=f"column {columns.label!r} holds {first!r} only",
                allowed="at least two different numbers",
                next_step="add rows, or name another column (--task.label-column)",
            )
        notes.append(f"all numbers of {where} are the same: its correlations say nothing")
    return columns.label, dataclasses.replace(splits, **parts, notes=tuple(notes))


def value_columns(
    rows: Dataset, text: str | None, second: str | None, label: str | None
) -> Columns:
    """Find the columns of the texts and of the number; see `valued` for arguments and errors."""
    label = find_value_column(rows, label, taken=(text, second))
    return find_text_columns(rows, text, second, label)


def known_values(rows: Dataset, columns: Columns, *, source: str) -> Dataset:
    """Rows with columns "text", "second_text" (of pairs) and "label".

    Raises:
        InvalidInput: A number is missing or not finite; the first such row is named.
    """
    import numpy as np
    import pyarrow as pa

    require_texts(rows, columns, source)
    numbers = _numbers(rows, columns.label)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        more = f" (and {len(bad) - 1} more rows)" if len(bad) > 1 else ""
        raise InvalidInput(
            f"row {bad[0]} of {source} has no number in column {columns.label!r}{more}",
            received=repr(values_of(rows, columns.label)[int(bad[0])].as_py()),
            allowed="a finite number in every row (rows are counted from 0)",
            next_step="fill the number in, or remove the row",
        )
    return texts_beside(rows, columns, pa.array(numbers))


def texts_beside(rows: Dataset, columns: Columns, label: pa.Array) -> Dataset:
    """The texts of `rows` in columns "text" and, of pairs, "second_text", and `label`."""
    from datasets import Dataset

    names = {columns.text: "text"}
    if columns.second_text:
        names[columns.second_text] = "second_text"
    table = rows.select_columns(list(names)).with_format("arrow")[:].combine_chunks()
    table = table.rename_columns(list(names.values())).append_column("label", label)
    return Dataset(table.replace_schema_metadata(None))


def _numbers(rows: Dataset, column: str) -> np.ndarray:
    """float64, not a number where there is none."""
    import numpy as np
    import pyarrow as pa

    stored = values_of(rows, column).cast(pa.float64())
    numbers: np.ndarray = stored.to_numpy().astype(np.float64)
    return numbers


def _dtype(rows: Dataset, column: str) -> str:
    return str(getattr(rows.features[column], "dtype", ""))


def _is_float(rows: Dataset, column: str) -> bool:
    return _dtype(rows, column).startswith(("float", "double"))


def _is_number(rows: Dataset, column: str) -> bool:
    declared = getattr(rows.features[column], "names", None) is not None
    kinds = ("int", "uint", "float", "double", "decimal")
    return not declared and _dtype(rows, column).startswith(kinds)
