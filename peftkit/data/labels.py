"""Labels as numbers 0 to C - 1 with the names of the classes, and texts that are all there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.data.columns import Columns, companions, find_text_columns
from peftkit.data.splits import Splits, values_of
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_MAX_NAMES = 10
_MAX_COPIED_BYTES = 2**30


def label_names(splits: Splits, label_column: str) -> tuple[list[str], Splits]:
    """Return the names of the classes, and the splits with labels 0 to C - 1.

    The classes are the values found in training rows: in the order of their ClassLabel if the
    column declares one, else sorted, numbers by value. They are called by that ClassLabel, else by
    a column that spells them out one to one (`<label>_text`, `<label>_name`, `label_text`), else as
    written. A declared class that no split uses is left out, with a note.

    Args:
        splits: Rows with labels as they came.
        label_column: The column that holds them.

    Raises:
        InvalidInput: A missing label, a label that no training row has, values that are no classes,
            or fewer than two classes.
    """
    parts = splits.parts()
    for part in parts.values():
        if label_column not in part.column_names:
            raise UnknownName(f"column of {splits.source}", label_column, part.column_names)
    declared = getattr(splits.train.features[label_column], "names", None)
    values = {name: _values(parts[name], name, label_column, declared) for name in parts}
    classes = sorted(set(values["train"]))
    if len(classes) < 2:
        raise InvalidInput(
            f"the training rows of {splits.source} are all of one class",
            received=f"column {label_column!r} holds {classes[0]!r} only",
            allowed="two classes or more",
            next_step="add rows of another class, or name another column (--task.label-column)",
        )
    names, notes = _names(splits.train, values["train"], classes, label_column, declared)
    codes = {value: code for code, value in enumerate(classes)}
    for name in ("validation", "test"):
        _require_known(parts[name], name, label_column, values[name], names, codes)
    coded = {
        name: _with_labels(part, label_column, [codes[value] for value in values[name]], names)
        for name, part in parts.items()
    }
    return names, dataclasses.replace(splits, **coded, notes=splits.notes + notes)


def labelled(
    splits: Splits,
    *,
    text: str | None = None,
    second: str | None = None,
    label: str | None = None,
) -> tuple[list[str], Splits]:
    """Return class names, and splits of the columns `text`, `second_text` (of pairs) and `label`.

    Finds the columns, checks that every row has its text, and numbers the labels.

    Args:
        splits: Rows as loaded.
        text: Name of the text column; found if left out.
        second: Name of the second text column; found with the first if left out.
        label: Name of the label column; found if left out.

    Raises:
        InvalidInput: See `find_text_columns`, `check_texts` and `label_names`.
    """
    columns = find_text_columns(splits.train, text, second, label)
    check_texts(splits, columns)
    names, splits = label_names(splits, columns.label)
    roles = {columns.text: "text"}
    if columns.second_text:
        roles[columns.second_text] = "second_text"
    roles[columns.label] = "label"
    parts = {
        name: part.select_columns(list(roles)).rename_columns(roles)
        for name, part in splits.parts().items()
    }
    return names, dataclasses.replace(splits, **parts)


def check_texts(splits: Splits, columns: Columns) -> None:
    """Refuse rows without a text; an empty text is one.

    Raises:
        InvalidInput: Naming the first such row and its column.
    """
    for name, part in splits.parts().items():
        require_texts(part, columns, f"the {name} split")


def require_texts(rows: Dataset, columns: Columns, where: str) -> None:
    """Refuse rows without a text; see `check_texts`."""
    for column in (columns.text, columns.second_text):
        if column is not None:
            values = values_of(rows, column)
            if values.null_count:
                row = values.is_null().to_pylist().index(True)
                raise _lacks(rows, where, column, row, values.null_count)


def _lacks(part: Dataset, where: str, column: str, row: int, count: int) -> InvalidInput:
    more = f" (and {count - 1} more rows)" if count > 1 else ""
    return InvalidInput(
        f"row {row} of {where} has no value in column {column!r}{more}",
        received=_shown(part, row),
        allowed="a value in every row (an empty cell of a CSV or TSV file counts as missing)",
        next_step="fill the value in, or remove the row; or name another column",
    )


def _shown(part: Dataset, row: int) -> str:
    """Return a row, cut short: after carving, its number says little about its place in a file."""
    values = part.select_columns(_plain(part)).with_format("arrow")[row : row + 1].to_pylist()[0]
    short = {name: v[:60] + "..." if _is_long(v) else v for name, v in values.items()}
    return f"{short} (rows are counted from 0)"


def _plain(part: Dataset) -> list[str]:
    from datasets import ClassLabel, Value

    return [name for name, kind in part.features.items() if isinstance(kind, ClassLabel | Value)]


def _is_long(value: object) -> bool:
    return isinstance(value, str | bytes) and len(value) > 60


def _values(part: Dataset, split: str, column: str, declared: Sequence[str] | None) -> list[Any]:
    """Return the labels, all there and all of one kind that sorts."""
    import pyarrow as pa

    stored = values_of(part, column)
    values: list[Any] = stored.to_pylist()
    missing = [is_missing(value, declared) for value in values]
    if any(missing):
        raise _lacks(part, f"the {split} split", column, missing.index(True), sum(missing))
    if pa.types.is_integer(stored.type) or pa.types.is_boolean(stored.type):
        return values
    if pa.types.is_string(stored.type) or pa.types.is_large_string(stored.type):
        return values
    if pa.types.is_floating(stored.type) and all(value.is_integer() for value in values):
        return [int(value) for value in values]
    raise InvalidInput(
        f"column {column!r} holds no classes",
        received=f"{stored.type} in the {split} split, such as {values[0]!r}",
        allowed="whole numbers, truth values or texts, one a row",
        next_step=f"name another column (--task.label-column){_other_task(stored.type)}",
    )


def _other_task(kind: pa.DataType) -> str:
    """The task that a column of this type belongs to, if there is one."""
    import pyarrow as pa

    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return ", or to predict a number use --task text_regression"
    return ", or for several labels a row use --task multi_label_classification"


def is_missing(value: Any, declared: Sequence[str] | None) -> bool:
    """Whether a label is missing: null, NaN, blank, or -1 where classes are declared."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value or (declared is not None and value == -1)


def _names(
    train: Dataset,
    values: Sequence[Any],
    classes: Sequence[Any],
    column: str,
    declared: Sequence[str] | None,
) -> tuple[list[str], tuple[str, ...]]:
    """Return what the classes are called, and notes."""
    if declared is not None and classes[0] >= 0 and classes[-1] < len(declared):
        unused = [name for code, name in enumerate(declared) if code not in set(classes)]
        note = (f"declared classes without training rows left out: {', '.join(unused)}",)
        return [declared[code] for code in classes], note if unused else ()
    for companion in companions(column):
        if companion in train.column_names and companion != column:
            spelled = values_of(train, companion).to_pylist()
            pairs = dict(zip(values, spelled, strict=True))
            one_to_one = len(set(zip(values, spelled, strict=True))) == len(set(spelled))
            if one_to_one and len(pairs) == len(set(spelled)) and _all_texts(pairs.values()):
                return [pairs[value] for value in classes], ()
            return [str(value) for value in classes], (
                f"classes are called as in column {column}: {companion} does not name them "
                "one to one",
            )
    return [str(value) for value in classes], ()


def _all_texts(names: Any) -> bool:
    return all(isinstance(name, str) and name.strip() for name in names)


def _require_known(
    part: Dataset,
    split: str,
    column: str,
    values: Sequence[Any],
    names: Sequence[str],
    codes: Mapping[Any, int],
) -> None:
    unknown = [row for row, value in enumerate(values) if value not in codes]
    if not unknown:
        return
    row, more = unknown[0], f" (and {len(unknown) - 1} more rows)" if len(unknown) > 1 else ""
    label, declared = values[row], getattr(part.features[column], "names", None)
    if declared is not None and 0 <= label < len(declared):
        label = declared[label]
    cut = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    raise InvalidInput(
        f"row {row} of the {split} split has a label that no training row has{more}",
        received=f"{label!r} in column {column!r} of {_shown(part, row)}",
        allowed=f"the classes of the training rows: {', '.join(names[:_MAX_NAMES])}{cut}",
        next_step=f"add training rows of this class, or remove it from the {split} split",
    )


def _with_labels(part: Dataset, column: str, codes: list[int], names: list[str]) -> Dataset:
    """Return the same rows with another label column."""
    import pyarrow as pa
    from datasets import ClassLabel, Dataset

    declared = getattr(part.features[column], "names", None)
    if declared == names:
        return part
    table = part.with_format("arrow")[:]
    if table.nbytes < _MAX_COPIED_BYTES:
        table = table.combine_chunks()  # chosen rows come as one chunk each, slow to read
    index = table.column_names.index(column)
    table = table.set_column(index, column, pa.array(codes, pa.int64()))
    info = part.info.copy()
    info.features = part.features.copy()
    info.features[column] = ClassLabel(names=names)
    return Dataset(table.replace_schema_metadata(None), info=info)
