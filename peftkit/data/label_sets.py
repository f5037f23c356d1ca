"""Several labels a row, or none: column "label" of sorted class numbers, beside the texts.

They come as one column of lists, of names or of numbers, or as a column of 0 and 1 for each label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.data.columns import Columns, find_text_columns
from peftkit.data.labels import check_texts, require_texts
from peftkit.data.splits import Splits, values_of
from peftkit.data.values import texts_beside
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from datasets import Dataset

_NAMES = ("label", "labels", "tags", "categories", "classes", "topics", "genres", "emotions")
Sets = list[list[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetColumns:
    """Where texts and labels stand.

    Attributes:
        text: Name of the text column; none: found by name and type.
        second: Name of the second text column; none: found with the first.
        label: Name of the column of lists; none: found by name and type.
        each: Names of columns of 0 and 1, one a label; none: a column of lists is read.
    """

    text: str | None = None
    second: str | None = None
    label: str | None = None
    each: tuple[str, ...] | None = None

    def found(self, rows: Dataset) -> tuple[Columns, list[str]]:
        """The texts' columns, and those of the labels.

        Raises:
            InvalidInput: A column does not fit, none does, or several do.
            UnknownName: There is no column of a name given.
        """
        labels = list(self.each) if self.each else [_list_column(rows, self.label)]
        for name in labels:
            if name not in rows.column_names:
                raise UnknownName("column", name, rows.column_names)
        return find_text_columns(rows, self.text, self.second, labels[0]), labels


def label_sets(splits: Splits, columns: SetColumns) -> tuple[list[str], Splits]:
    """Return the names of the labels, and splits of `text`, `second_text` and `label`.

    Labels are those of the training rows: in the order of their ClassLabel if the column declares
    one, else in that of `columns.each`, else sorted. Rows without any label are noted, and so are
    rows that name one twice.

    Raises:
        InvalidInput: A row without a list, a label that no training row has, values that are no
            labels, fewer than two labels, or labels that all rows have alike.
    """
    names: list[str] | None = None
    parts: dict[str, Dataset] = {}
    notes = list(splits.notes)
    found, _ = columns.found(splits.train)
    check_texts(splits, found)
    for split, rows in splits.parts().items():  # train comes first, and knows the labels
        where = f"the {split} split of {splits.source}"
        sets, declared = _written(rows, columns, where)
        notes += _remarks(sets, where)
        if names is None:
            names = _in_order(sets, declared, where)
            unused = [name for name in declared or () if name not in names]
            if unused:
                notes.append(f"labels without training rows left out: {', '.join(unused)}")
        parts[split] = _coded(rows, found, sets, names, where)
    assert names is not None
    if not any(parts["test"]["label"]):
        raise InvalidInput(
            f"no test row of {splits.source} has a label, so there is nothing to find",
            next_step="check the column, or give another test split",
        )
    return names, dataclasses.replace(splits, **parts, notes=tuple(notes))


def known_label_sets(
    rows: Dataset, columns: SetColumns, names: list[str], *, source: str
) -> Dataset:
    """Rows of another file, with labels numbered as in `names`; see `label_sets` for errors.

    Numbers that come without names are taken as positions in `names` unless they are names.
    """
    found, _ = columns.found(rows)
    require_texts(rows, found, source)
    sets, declared = _written(rows, columns, source)
    numbered = declared is None and all(isinstance(v, int) for each in sets for v in each)
    if numbered and not {str(v) for each in sets for v in each} <= set(names):
        sets = [[names[v] if 0 <= v < len(names) else str(v) for v in each] for each in sets]
    return _coded(rows, found, sets, names, source)


def _list_column(rows: Dataset, named: str | None) -> str:
    lists = [name for name in rows.column_names if hasattr(rows.features[name], "feature")]
    if named is not None:
        if named in rows.column_names and named not in lists:
            raise InvalidInput(
                f"column {named!r} holds no lists of labels",
                received=str(rows.features[named]),
                allowed="a list of names or numbers in every row; or a column of 0 and 1 a label",
                next_step="name the columns of 0 and 1 (label_columns), or "
                "--task text_classification for one label a row",
            )
        return named
    for group in ([name for name in lists if name.lower() in _NAMES], lists):
        if len(group) > 1:
            raise InvalidInput(
                "several columns may hold the labels",
                received=", ".join(group),
                next_step="name the right one (--task.label-column)",
            )
        for name in group:
            return str(name)
    raise InvalidInput(
        "no column holds lists of labels",
        received=", ".join(f"{name}: {kind}" for name, kind in rows.features.items()),
        next_step="name the columns of 0 and 1, one a label (label_columns)",
    )


def _written(rows: Dataset, columns: SetColumns, source: str) -> tuple[Sets, Sequence[str] | None]:
    """The labels of each row, as names or as numbers without names; and all that are declared."""
    if columns.each:
        return _of_columns(rows, columns.each, source), columns.each
    _, (column,) = columns.found(rows)
    sets: Sets = values_of(rows, column).to_pylist()
    declared = getattr(getattr(rows.features[column], "feature", None), "names", None)
    for row, each in enumerate(sets):
        if each is None or not all(_is_label(value, declared) for value in each):
            raise InvalidInput(
                f"row {row} of {source} has no list of labels in column {column!r}",
                received=f"{each!r:.80}",
                allowed="names or whole numbers; a list without any where no label fits",
                next_step="correct or remove the row",
            )
    if declared is not None:
        return [[declared[value] for value in each] for each in sets], declared
    _refuse_indicators(sets, column, source)
    return sets, None


def _is_label(value: Any, declared: Sequence[str] | None) -> bool:
    if declared is not None:
        return isinstance(value, int) and 0 <= value < len(declared)
    return bool(value.strip()) if isinstance(value, str) else type(value) is int


def _refuse_indicators(sets: Sets, column: str, source: str) -> None:
    """[0, 1, 0, 0] would be read as the labels 0 and 1."""
    lengths, values = {len(each) for each in sets}, {value for each in sets for value in each}
    doubled = any(len(set(each)) < len(each) for each in sets)
    if len(lengths) == 1 and max(lengths) > 1 and values <= {0, 1} and doubled:
        raise InvalidInput(
            f"column {column!r} of {source} holds 0 and 1 for each label, and their names nowhere",
            received=f"{sets[0]!r:.80} in row 0",
            allowed="lists of the labels that a row has; or a column of 0 and 1 a label",
            next_step="write a column a label, and name them (label_columns)",
        )


def _of_columns(rows: Dataset, names: Sequence[str], source: str) -> Sets:
    columns = []
    for name in names:
        values = values_of(rows, name).to_pylist()
        wrong = [row for row, value in enumerate(values) if value not in (0, 1)]
        if wrong:
            more = f" (and {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""
            raise InvalidInput(
                f"row {wrong[0]} of {source} is neither 0 nor 1 in column {name!r}{more}",
                received=repr(values[wrong[0]]),
                allowed="0, 1, false or true in every row (rows are counted from 0)",
                next_step="correct or remove the row, or leave the column out of label_columns",
            )
        columns.append(values)
    return [[n for n, v in zip(names, row, strict=True) if v] for row in zip(*columns, strict=True)]


def _in_order(sets: Sets, declared: Sequence[str] | None, source: str) -> list[str]:
    """The labels that training rows have, by name."""
    present = {value for each in sets for value in each}
    kinds = {type(value) for value in present}
    if len(present) < 2 or len(kinds) > 1:
        raise InvalidInput(
            f"{source} has too few labels, or labels of two kinds",
            received=", ".join(repr(value) for value in present) or "no label at all",
            allowed="two labels or more, all names or all whole numbers",
            next_step="name another column (label_column, label_columns)",
        )
    if all(len(set(each)) == len(present) for each in sets):
        raise InvalidInput(
            f"every row of {source} has all labels, so there is nothing to tell apart",
            received=", ".join(str(value) for value in sorted(present)),
            next_step="name another column (label_column, label_columns)",
        )
    return [str(v) for v in (declared or sorted(present)) if v in present]


def _remarks(sets: Sets, where: str) -> list[str]:
    empty = sum(not each for each in sets)
    twice = sum(len(set(each)) < len(each) for each in sets)
    notes = [f"{empty} of {len(sets)} rows of {where} have no label"] if empty else []
    return notes + ([f"{twice} rows of {where} name a label twice"] if twice else [])


def _coded(
    rows: Dataset, columns: Columns, sets: Sets, names: Sequence[str], source: str
) -> Dataset:
    import pyarrow as pa

    codes = {name: code for code, name in enumerate(names)}
    for row, each in enumerate(sets):
        unknown = [str(value) for value in each if str(value) not in codes]
        if unknown:
            raise InvalidInput(
                f"row {row} of {source} has a label that no training row has",
                received=repr(unknown[0]),
                allowed=", ".join(names[:20]) + (", ..." if len(names) > 20 else ""),
                next_step="remove the row, or train on data that has this label",
            )
    found = [sorted({codes[str(value)] for value in each}) for each in sets]
    return texts_beside(rows, columns, pa.array(found, pa.list_(pa.int64())))
