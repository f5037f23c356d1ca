"""What all classification tasks share: subset and label noise, loss, scores, answers.

Kinds of rows differ only in how they are read and encoded. Chance is the share of the commonest
class among the test rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from peftkit.bounds import Ge, Lt
from peftkit.fields import settle
from peftkit.tasks._task import Predictions, Progress, Task, TaskData

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.data import Splits


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One label for a whole row."""

    metric: ClassVar[str] = "accuracy"
    problem_type: ClassVar[str | None] = "single_label_classification"

    size: Annotated[int, Ge(2)] | None = None
    """Training examples, drawn by seed, stratified, nested; none: all."""
    label_noise: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of training labels replaced by another class."""
    label_column: str | None = None
    """Column of the label; none: found by name and type."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight of a class in the loss: equal, or inverse to its share of the training rows."""

    def __post_init__(self) -> None:
        settle(self, "task")

    def find_label(self, rows: Dataset) -> str:
        """Name of the column of the label, before rows have their final columns."""
        raise NotImplementedError

    def label(self, splits: Splits) -> tuple[list[str], Splits]:
        """Class names, and splits whose "label" is an index into them, in their final columns."""
        raise NotImplementedError

    def check(
        self, parts: Mapping[str, Dataset], drawn: Sequence[int] | None, progress: Progress | None
    ) -> list[str]:
        """Look at every row that will be used, and return what a reader must know of them.

        Args:
            parts: Rows of each split, of the training split those that were drawn.
            drawn: Their numbers in the whole split; None: all of it, in order.
            progress: Told of rows done.

        Raises:
            InvalidInput: A row cannot be read.
        """
        return []

    def shown(self, rows: Dataset) -> list[str]:
        """Each row as a user would name it."""
        return self.texts(rows)

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        import numpy as np

        from peftkit.data import flip_labels, subset

        splits = self.splits(progress, self.find_label)
        names, splits = self.label(splits)
        train, drawn = splits.train, None
        if self.size is not None:
            drawn = subset(train["label"][:], self.size, seed)
            train = train.select(drawn)
        notes = list(splits.notes)
        notes += self.check({**splits.parts(), "train": train}, drawn, progress)
        if self.label_noise:
            labels = train["label"][:]
            # A row is called by its turn in the subsets, so that all sizes treat it alike.
            turns = np.argsort(subset(labels, len(labels), seed)).tolist()
            noisy = flip_labels(
                labels, len(names), self.label_noise, seed, rows=turns if drawn is None else None
            )
            train = train.remove_columns("label").add_column("label", noisy)
            wrong = sum(a != b for a, b in zip(labels, noisy, strict=True))
            notes.append(f"{wrong} of {len(labels)} training labels are wrong on purpose")
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

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        import torch

        weight = None
        if self.class_weights == "balanced":
            counts, classes = data.label_counts, range(len(data.labels))
            share = [len(classes) * counts[c] / len(data.train) for c in classes]
            weight = torch.tensor([1 / s if s else 0.0 for s in share], device=logits.device)
        return torch.nn.functional.cross_entropy(logits.float(), labels, weight=weight)

    def fit_words(
        self, counts: Any, rows: Dataset, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from peftkit.fitted import class_words

        return class_words(counts, rows["label"][:], num_classes=num_outputs)

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
        answers = zip(self.shown(rows), found["predicted"], found["confidence"], strict=True)
        return [
            {"label": labels[label], "probability": float(probability), self.inputs: name}
            for name, label, probability in answers
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
