"""Text classification: one text, or a pair, one label.

A row: `{"text": "Return the sum of array elements.", "label": 3, "label_text": "numpy"}`; with
`second_text_column` a pair such as premise and hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftkit.tasks._classification import Classification
from peftkit.tasks._task import Example
from peftkit.tasks._texts import TextRows

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone
    from peftkit.data import Columns, Splits


@dataclass(frozen=True, kw_only=True)
class TextClassification(TextRows, Classification):
    """One label for a text or a pair of texts."""

    corpora: ClassVar[tuple[str, ...]] = ("pydocs/library",)

    def find_label(self, rows: Dataset) -> str:
        return self._columns(rows).label

    def label(self, splits: Splits) -> tuple[list[str], Splits]:
        from peftkit.data import labelled

        return labelled(
            splits,
            text=self.text_column,
            second=self.second_text_column,
            label=self.label_column,
        )

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import known_labels, read_rows

        rows = read_rows(file)
        columns = self._columns(rows)
        return _plain_columns(known_labels(rows, columns, labels, source=str(file)), columns)

    def rows(self, texts: Sequence[str]) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)})

    def _columns(self, rows: Dataset) -> Columns:
        from peftkit.data import find_text_columns

        return find_text_columns(
            rows,
            text=self.text_column,
            second=self.second_text_column,
            label=self.label_column,
        )

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        targets = [int(label) for label in rows["label"][:]]
        return self.tokenize(rows, backbone, max_length, targets)


def _plain_columns(rows: Dataset, columns: Columns) -> Dataset:
    """The same rows with columns "text", "second_text" (if there is one) and "label" alone."""
    names = {columns.text: "text", columns.label: "label"}
    if columns.second_text:
        names[columns.second_text] = "second_text"
    rows = rows.select_columns(list(names))
    return rows.rename_columns({old: new for old, new in names.items() if old != new})
