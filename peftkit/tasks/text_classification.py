"""Text classification: one text, or a pair, one label.

A row: `{"text": "Return the sum of array elements.", "label": 3, "label_text": "numpy"}`; with
`second_text_column` a pair such as premise and hypothesis. Chance is the share of the commonest
class among the test rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from peftkit.bounds import Ge, Lt
from peftkit.fields import settle
from peftkit.tasks._task import Example, Predictions, Progress, Task, TaskData

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone
    from peftkit.data import Columns


@dataclass(frozen=True, kw_only=True)
class TextClassification(Task):
    """One label for a text or a pair of texts."""

    metric: ClassVar[str] = "accuracy"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSequenceClassification",)
    corpora: ClassVar[tuple[str, ...]] = ("pydocs/library",)

    size: Annotated[int, Ge(2)] | None = None
    """Training examples, drawn by seed, stratified, nested; none: all."""
    label_noise: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of training labels replaced by another class."""
    max_length: Annotated[int, Ge(8)] = 128
    """Tokens of a text (or pair); longer ones are cut."""
    text_column: str | None = None
    """Column of the text; none: found by name and type."""
    second_text_column: str | None = None
    """Column of the second text of a pair; none: found by name, or there is none."""
    label_column: str | None = None
    """Column of the label; none: found by name and type."""
    configuration: str | None = None
    """Configuration of a data set of the hub."""
    revision: str | None = None
    """Revision of a data set of the hub."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight of a class in the loss: equal, or inverse to its share of the training rows."""

    def __post_init__(self) -> None:
        settle(self, "task")

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        from peftkit.data import flip_labels, labelled, load_splits, subset

        splits = load_splits(
            self.data,
            configuration=self.configuration,
            revision=self.revision,
            label_column=lambda rows: self._columns(rows).label,
            progress=progress,
        )
        names, splits = labelled(
            splits,
            text=self.text_column,
            second=self.second_text_column,
            label=self.label_column,
        )
        train = splits.train
        if self.size is not None:
            train = train.select(subset(train["label"][:], self.size, seed))
        notes = list(splits.notes)
        if self.label_noise:
            noisy = flip_labels(train["label"][:], len(names), self.label_noise, seed)
            train = train.remove_columns("label").add_column("label", noisy)
            notes.append(f"{self.label_noise:.0%} of the training labels are wrong on purpose")
        counts = Counter(splits.test["label"][:])
        return TaskData(
            train=train,
            validation=splits.validation,
            test=splits.test,
            labels=names,
            source=splits.source,
            fingerprint=splits.fingerprint,
            notes=tuple(notes),
            chance=max(counts.values()) / len(splits.test),
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

    def texts(self, rows: Dataset) -> list[str]:
        if "second_text" not in rows.column_names:
            return list(rows["text"][:])
        return [f"{a}\n{b}" for a, b in zip(rows["text"], rows["second_text"], strict=True)]

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        tokenizer = backbone.processor
        pair = (rows["second_text"][:],) if "second_text" in rows.column_names else ()
        encoded = tokenizer(
            rows["text"][:], *pair, truncation=True, max_length=max_length, padding=False
        )
        columns = [name for name in encoded if name in tokenizer.model_input_names]
        return [
            {**{name: encoded[name][i] for name in columns}, "labels": int(label)}
            for i, label in enumerate(rows["label"][:])
        ]

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        import torch

        weight = None
        if self.class_weights == "balanced":
            counts, classes = Counter(data.train["label"][:]), range(len(data.labels))
            share = [len(classes) * counts[c] / len(data.train) for c in classes]
            weight = torch.tensor([1 / s if s else 0.0 for s in share], device=logits.device)
        return torch.nn.functional.cross_entropy(logits.float(), labels, weight=weight)

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        if not {"label", "predicted"} <= predictions.keys():
            return None
        hits = np.asarray(predictions["label"]) == np.asarray(predictions["predicted"])
        scores: np.ndarray = hits.astype(np.float64)
        return scores

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        import numpy as np

        from peftkit.tasks._classes import predict_classes

        found = predict_classes(outputs, np.zeros(len(rows), dtype=int))
        answers = zip(rows["text"], found["predicted"], found["confidence"], strict=True)
        return [
            {"label": labels[label], "probability": float(probability), "text": text}
            for text, label, probability in answers
        ]

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        import numpy as np

        from peftkit.tasks._classes import class_metrics, predict_classes

        predicted = predict_classes(outputs, np.asarray(rows["label"][:]))
        kept: Predictions = {
            "item": list(range(len(rows))),
            "label": predicted["label"].tolist(),
            "predicted": predicted["predicted"].tolist(),
            "confidence": [round(float(v), 5) for v in predicted["confidence"]],
            "loss": [round(float(v), 5) for v in predicted["loss"]],
        }
        return kept, class_metrics(predicted)


def _plain_columns(rows: Dataset, columns: Columns) -> Dataset:
    """The same rows with columns "text", "second_text" (if there is one) and "label" alone."""
    names = {columns.text: "text", columns.label: "label"}
    if columns.second_text:
        names[columns.second_text] = "second_text"
    rows = rows.select_columns(list(names))
    return rows.rename_columns({old: new for old, new in names.items() if old != new})
