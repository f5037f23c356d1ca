"""The rows of a split, by what they ask and what they answer.

Two rows are the same if their inputs are: the text as `Task.texts` puts it, in lower case and with
single spaces; of an image or a sound its file, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.tasks import Task

LOOKED_AT = 5  # rows that tell which columns are inputs


@dataclass
class Split:
    """The rows of one split, by what they ask.

    Attributes:
        name: Of the split.
        task: What they are rows of.
        rows: The rows.
    """

    name: str
    task: Task
    rows: Dataset

    @cached_property
    def shown(self) -> list[str]:
        """Each row's input: a text, or the name of a file."""
        if self.task.inputs == "text":
            try:
                return self.task.texts(self.rows)
            except (NotImplementedError, Unsupported):  # then rows are the same as a whole or not
                return [str(row) for row in self.rows]
        return [str(value["path"]) for value in self.rows[self.task.inputs]]

    @cached_property
    def keys(self) -> list[str]:
        """What is equal of rows with the same input; empty of one without."""
        if self.task.inputs == "text":
            return [normal(text) for text in self.shown]
        from peftkit.data import content_of

        found = (content_of(value) for value in self.rows[self.task.inputs])
        return [hashlib.sha256(content).hexdigest() for content in found]

    @cached_property
    def first(self) -> dict[str, list[int]]:
        """The rows of each input, empty ones left out."""
        found: dict[str, list[int]] = defaultdict(list)
        for row, key in enumerate(self.keys):
            if key:
                found[key].append(row)
        return dict(found)

    @cached_property
    def texts(self) -> list[str]:
        """Names of the columns of text."""
        kinds = self.rows.features.items()
        return [name for name, kind in kinds if getattr(kind, "dtype", None) == "string"]

    @cached_property
    def answer_columns(self) -> list[str]:
        """Columns that are no part of the input: the label, or what the text does not hold."""
        if "label" in self.rows.column_names:
            return ["label"]
        head = self.rows[:LOOKED_AT]
        return [
            name
            for name, values in head.items()
            if not all(_stands_in(v, k) for v, k in zip(values, self.keys, strict=False))
        ]

    @cached_property
    def _answers(self) -> list[list[Any]]:
        return [self.rows[name][:] for name in self.answer_columns]

    def answers(self, row: int) -> set[str]:
        """The answers of one row: its label, or each of its references."""
        return self.written_answers(row) or {repr([column[row] for column in self._answers])}

    def written_answers(self, row: int) -> set[str]:
        """Those answers of one row that are texts."""
        return {normal(text) for column in self._answers for text in _texts(column[row])}

    def example(self, row: int) -> str:
        """The row's name."""
        return f"{self.name} row {row}"


def normal(text: str) -> str:
    """A text in lower case with single spaces."""
    return " ".join(text.lower().split())


def _stands_in(value: Any, key: str) -> bool:
    """Whether a text, or a list of words, is part of a row's input."""
    words = list(_texts(value)) if isinstance(value, str | list) else []
    return bool(words) and normal(" ".join(words)) in key


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
