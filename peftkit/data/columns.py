"""Which columns hold the text and which the label.

A column is taken by its name if its type fits, else because it is the only one of a fitting type.
Where two fit equally well the user is asked: a guess would train on the wrong column without a
word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.data.splits import values_of
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from datasets import Dataset

_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("sentence_a", "sentence_b"),
    ("query", "document"),
    ("query", "passage"),
    ("question", "sentence"),
    ("question", "context"),
    ("question", "passage"),
    ("question", "answer"),
)
# Earlier groups win; within a group there must be one hit.
_TEXTS = (
    ("text",),
    ("sentence", "content", "review", "utterance", "comment", "tweet", "message", "document"),
    ("question", "query", "body", "passage", "article", "description", "headline", "title"),
)
_TEXT_NAMES = frozenset(name for group in (*_PAIRS, *_TEXTS) for name in group)
_LABELS = (
    ("label", "labels"),
    ("intent", "category", "class", "target", "sentiment", "topic", "emotion"),
)
_LABEL_ENDINGS = ("_label", "_class", "_category", "_intent")
_NAME_ENDINGS = ("_text", "_name")
_ROW_NUMBERS = ("id", "idx", "index", "guid", "uid", "row")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns that a classification task reads.

    Attributes:
        text: The text, or the first of two.
        second_text: The second text of a pair.
        label: The class.
    """

    text: str
    second_text: str | None
    label: str


def find_text_columns(
    dataset: Dataset,
    text: str | None = None,
    second: str | None = None,
    label: str | None = None,
) -> Columns:
    """Find the columns of a text classification task, by name and type.

    Args:
        dataset: Training rows.
        text: Name of the text column; found if left out.
        second: Name of the second text column; if left out, found only together with the first.
        label: Name of the label column; found if left out.

    Raises:
        InvalidInput: A named column is missing or of the wrong type, none fits, or several do.
    """
    for name in (text, second, label):
        if name is not None and name not in dataset.column_names:
            raise UnknownName("column", name, dataset.column_names)
    for name in (text, second):
        if name is not None and not _is_text(dataset, name):
            raise InvalidInput(
                f"column {name!r} holds no text",
                received=str(dataset.features[name]),
                allowed=f"a column of text: {', '.join(_texts(dataset)) or 'there is none'}",
            )
    taken = [name for name in (text, second, label) if name is not None]
    if len(set(taken)) < len(taken):
        raise InvalidInput("one column cannot play two parts", received=", ".join(taken))
    if label is None:
        label = _find_label(dataset, taken)
    if text is None:
        text, second = _find_text(dataset, second, label)
    return Columns(text=text, second_text=second, label=label)


def pair_of(names: Sequence[str], first: str | None = None) -> tuple[str, str] | None:
    """The columns of a pair of texts by their usual names, if there is one such pair.

    Args:
        names: Of columns.
        first: That of the first text; none: any.
    """
    lower = {name.lower(): name for name in names}
    found = [(lower[a], lower[b]) for a, b in _PAIRS if {a, b} <= lower.keys()]
    found = [pair for pair in found if first in (None, pair[0])]
    return found[0] if len(found) == 1 else None


def _is_text(dataset: Dataset, column: str) -> bool:
    return getattr(dataset.features[column], "dtype", None) in ("string", "large_string")


def _texts(dataset: Dataset) -> list[str]:
    return [name for name in dataset.column_names if _is_text(dataset, name)]


def _is_declared(dataset: Dataset, column: str) -> bool:
    return getattr(dataset.features[column], "names", None) is not None


def _is_class_like(dataset: Dataset, column: str) -> bool:
    """Whether values repeat as classes do: whole numbers, truth values, few distinct texts."""
    dtype = str(getattr(dataset.features[column], "dtype", ""))
    return dtype.startswith(("int", "uint", "bool")) or (
        _is_text(dataset, column) and 2 * _num_distinct(dataset, column) <= dataset.num_rows
    )


def _num_distinct(dataset: Dataset, column: str) -> int:
    import pyarrow.compute as pc

    return int(pc.count_distinct(values_of(dataset, column)).as_py())


def _is_row_number(column: str) -> bool:
    name = column.lower()
    return name in _ROW_NUMBERS or name.endswith("_id") or name.startswith("column_")


def companions(label: str) -> list[str]:
    """Return the names of columns that may spell out the classes of a label column."""
    return list(dict.fromkeys([label + ending for ending in _NAME_ENDINGS] + ["label_text"]))


def _one(found: Sequence[str], part: str, option: str) -> str | None:
    """Return the only column found, None if there is none."""
    if len(found) > 1:
        raise InvalidInput(
            f"several columns may be the {part}",
            received=", ".join(found),
            next_step=f"name the right one ({option})",
        )
    return found[0] if found else None


def _named(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [column for column in columns if column.lower() in names]


def find_label_column(dataset: Dataset, named: str | None, *, taken: Sequence[str]) -> str:
    """Find the column of the class, by name and type.

    Args:
        dataset: Training rows.
        named: Its name; found if left out.
        taken: Columns that play another part.

    Raises:
        InvalidInput: The named column is missing or taken, none fits, or several do.
    """
    if named is None:
        return _find_label(dataset, taken)
    if named not in dataset.column_names:
        raise UnknownName("column", named, dataset.column_names)
    if named in taken:
        raise InvalidInput("one column cannot play two parts", received=named)
    return named


def _find_label(dataset: Dataset, taken: Sequence[str]) -> str:
    spelled_out = {name + end for name in dataset.column_names for end in _NAME_ENDINGS}
    columns = [n for n in dataset.column_names if n not in taken and n not in spelled_out]
    like = [name for name in columns if _is_class_like(dataset, name)]
    for group in (
        _named(columns, _LABELS[0]),
        _named(like, _LABELS[1]),
        [n for n in columns if _is_declared(dataset, n) or n.lower().endswith(_LABEL_ENDINGS)],
        [n for n in like if not _is_row_number(n) and n.lower() not in _TEXT_NAMES],
    ):
        found = _one(group, "label", "label_column")
        if found is not None:
            return found
    raise InvalidInput(
        "no column looks like a label",
        received=", ".join(dataset.column_names),
        allowed=f"a column named {', '.join(_LABELS[0] + _LABELS[1])}, or one whose values repeat",
        next_step="name it (--task.label-column)",
    )


def _find_text(dataset: Dataset, second: str | None, label: str) -> tuple[str, str | None]:
    """Return the text column, and the second one if they come as a pair."""
    aside = {label, second, *companions(label)}
    columns = [name for name in _texts(dataset) if name not in aside]
    lower = {name.lower(): name for name in columns}
    pairs = [] if second else [(lower[a], lower[b]) for a, b in _PAIRS if {a, b} <= lower.keys()]
    single = _named(columns, _TEXTS[0] + ("sentence",))
    if len(pairs) == 1 and not [name for name in single if name not in pairs[0]]:
        return pairs[0]
    if pairs:
        both = dict.fromkeys([name for pair in pairs for name in pair] + single)
        _one(list(both), "text", "text_column, second_text_column")
    rest = [name for name in columns if not _is_row_number(name)]
    long = [name for name in rest if not _is_class_like(dataset, name)]
    for group in (*(_named(columns, names) for names in _TEXTS), long, rest):
        found = _one(group, "text", "text_column")
        if found is not None:
            return found, second
    raise InvalidInput(
        "no column looks like text",
        received=", ".join(f"{name}: {kind}" for name, kind in dataset.features.items()),
        allowed="a column of text beside the label",
        next_step="name it (--task.text-column)",
    )
