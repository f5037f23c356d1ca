"""Tagged words: columns "tokens" and "label", the tags as numbers that know their names.

A tag is `O`, or a position in a span and its type: `B-person`. In BIO, a span that begins with `I-`
(after `O`, another type, or at the start) is read as beginning with `B-`, as the script of
CoNLL-2003 does; how many there were is noted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.data.splits import Splits
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from datasets import Dataset

_TOKENS = ("tokens", "words")
_TAGS = ("tags", "ner_tags", "labels")
OUTSIDE = "O"
POSITIONS = frozenset("BIESLU")


def split_tag(tag: str) -> tuple[str, str]:
    """Position and type of a tag, `_` where only a position is given; of others "O" and nothing."""
    position, _, kind = tag.partition("-")
    return (position, kind or "_") if position in POSITIONS else (OUTSIDE, "")


def tagged(
    splits: Splits, *, tokens: str | None = None, tags: str | None = None
) -> tuple[list[str], Splits]:
    """Return the tags, `O` first, and splits of the columns "tokens" and "label".

    Args:
        splits: Rows with a list of words and a list of tags each, tags as text or as ClassLabel.
        tokens: Name of the column of words; found if left out.
        tags: Name of the column of tags; found if left out.

    Raises:
        InvalidInput: A row with more or fewer tags than words, a word or tag that is missing, or
            no tag that is part of a span.
        UnknownName: There is no such column, or a tag that no training row has.
    """
    names: list[str] | None = None
    parts: dict[str, Dataset] = {}
    notes = list(splits.notes)
    for split, rows in splits.parts().items():  # train comes first, and knows the tags
        words, written = _columns(rows, tokens, tags, f"the {split} split of {splits.source}")
        broken = _repair(written)
        if broken:
            notes.append(
                f"{len(broken)} spans of the {split} split began with I-, the first in row "
                f"{broken[0]}, and are read as beginning with B-"
            )
        if names is None:
            names = _names(written, splits.source)
        parts[split] = _coded(words, written, names, f"the {split} split of {splits.source}")
    assert names is not None
    return names, dataclasses.replace(splits, **parts, notes=tuple(notes))


def known_tags(
    rows: Dataset,
    names: list[str],
    *,
    tokens: str | None = None,
    tags: str | None = None,
    source: str,
) -> Dataset:
    """Rows of another file, with tags numbered as in `names`; see `tagged` for what is raised."""
    words, written = _columns(rows, tokens, tags, source)
    _repair(written)
    return _coded(words, written, names, source)


def _columns(
    rows: Dataset, tokens: str | None, tags: str | None, source: str
) -> tuple[list[list[str]], list[list[str]]]:
    """Words and tags of each row, as written."""
    token_column = _column(rows, tokens, _TOKENS, source)
    tag_column = _column(rows, tags, _TAGS, source)
    words, found = rows[token_column][:], rows[tag_column][:]
    for row, (a, b) in enumerate(zip(words, found, strict=True)):
        if not isinstance(a, list) or not isinstance(b, list) or len(a) != len(b):
            raise InvalidInput(
                f"row {row} of {source} does not have one tag a word",
                received=f"{a!r:.60} and {b!r:.60}",
                allowed="two lists of the same length",
                next_step="correct the row, or name other columns "
                "(--task.tokens-column, --task.tags-column)",
            )
    declared = _declared(rows.features[tag_column])
    for row, (a, b) in enumerate(zip(words, found, strict=True)):
        wrong = [word for word in a if not isinstance(word, str)]
        wrong += [tag for tag in b if not _is_tag(tag, declared)]
        if wrong:
            raise InvalidInput(
                f"row {row} of {source} lacks a word or a tag",
                received=repr(wrong[0]),
                allowed="texts, and for tags the numbers of declared classes",
                next_step="correct or remove the row",
            )
    if declared:
        found = [[declared[tag] for tag in each] for each in found]
    return words, [[str(tag) for tag in each] for each in found]


def _is_tag(value: Any, declared: Sequence[str] | None) -> bool:
    if declared:
        return isinstance(value, int) and 0 <= value < len(declared)
    return bool(value.strip()) if isinstance(value, str) else type(value) is int


def _declared(feature: Any) -> Sequence[str] | None:
    return getattr(getattr(feature, "feature", None), "names", None)


def _column(rows: Dataset, named: str | None, usual: tuple[str, ...], source: str) -> str:
    if named is not None:
        if named not in rows.column_names:
            raise UnknownName(f"column of {source}", named, rows.column_names)
        return named
    found = [name for name in usual if name in rows.column_names]
    if not found:
        raise InvalidInput(
            f"{source} has no column called {' or '.join(usual)}",
            received=", ".join(rows.column_names),
            next_step="name it (--task.tokens-column, --task.tags-column)",
        )
    return found[0]


def _repair(tags: list[list[str]]) -> list[int]:
    """Let every span of BIO begin with `B-`, in place.

    Returns:
        The row of each span that did not. BIOES says more, and is left as it is.
    """
    if any(split_tag(tag)[0] in "ESLU" for each in tags for tag in each):
        return []
    broken = []
    for row, each in enumerate(tags):
        for i, tag in enumerate(each):
            position, kind = split_tag(tag)
            if position == "I" and split_tag(each[i - 1] if i else OUTSIDE)[1] != kind:
                each[i] = f"B{tag[1:]}"
                broken.append(row)
    return broken


def _names(tags: list[list[str]], source: str) -> list[str]:
    found = sorted({tag for each in tags for tag in each} - {OUTSIDE})
    if not found:
        raise InvalidInput(
            f"no word of the training rows of {source} has a tag but {OUTSIDE}",
            next_step="name another column (--task.tags-column)",
        )
    if not any(split_tag(tag)[1] for tag in found):
        raise InvalidInput(
            f"no tag of the training rows of {source} is part of a span, so there is none to find",
            received=", ".join(found[:8]),
            allowed="B-person, I-person and the like; numbers only where their names are declared",
            next_step="write the tags in BIO, or name another column (--task.tags-column)",
        )
    return [OUTSIDE, *found]


def _coded(words: list[list[str]], tags: list[list[str]], names: list[str], source: str) -> Dataset:
    from datasets import ClassLabel, Dataset, Features, List, Value

    codes = {name: code for code, name in enumerate(names)}
    unknown = next((t for each in tags for t in each if t not in codes), None)
    if unknown is not None:
        raise UnknownName(f"tag in {source}:", unknown, names)
    features = Features({"tokens": List(Value("string")), "label": List(ClassLabel(names=names))})
    rows = {"tokens": words, "label": [[codes[tag] for tag in each] for each in tags]}
    return Dataset.from_dict(rows, features=features)
