"""What tasks have in common that read a whole text, or a pair of texts, and write nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Ge
from peftkit.tasks._task import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class TextRows(Task):
    """One answer for a text or a pair of texts."""

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSequenceClassification",)

    max_length: Annotated[int, Ge(8)] = 128
    """Tokens of a text (or pair); longer ones are cut."""
    text_column: str | None = None
    """Column of the text; none: found by name and type."""
    second_text_column: str | None = None
    """Column of the second text of a pair; none: found by name, or there is none."""

    def shown(self, rows: Dataset) -> list[str]:
        """Each row as a user would name it."""
        return list(rows["text"][:])

    def texts(self, rows: Dataset) -> list[str]:
        if "second_text" not in rows.column_names:
            return list(rows["text"][:])
        return [f"{a}\n{b}" for a, b in zip(rows["text"], rows["second_text"], strict=True)]

    def tokenize(
        self, rows: Dataset, backbone: LoadedBackbone, max_length: int, targets: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """Examples of `rows`, whose "labels" are `targets`."""
        tokenizer = backbone.processor
        pair = (rows["second_text"][:],) if "second_text" in rows.column_names else ()
        encoded = tokenizer(
            rows["text"][:], *pair, truncation=True, max_length=max_length, padding=False
        )
        columns = [name for name in encoded if name in tokenizer.model_input_names]
        return [
            {**{name: encoded[name][i] for name in columns}, "labels": target}
            for i, target in enumerate(targets)
        ]
