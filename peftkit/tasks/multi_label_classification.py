"""Multi-label classification: of several labels those that fit a text or a pair, maybe none.

A row: `{"text": "Tea rises as rain stays away.", "labels": ["food", "trade"]}`, the labels as names
or as numbers; or a column of 0 and 1 for each label (`label_columns: food,trade`). Each label is
answered for itself, by a sigmoid and binary cross-entropy, and given where its probability is above
one half. The metric is the F1 over all pairs of row and label (micro-F1); also its mean over the
labels that occur (macro-F1), and the share of rows whose labels are all right (subset accuracy).
Chance is the micro-F1 of the best answer that is the same for every row, by the test rows' labels.

Reference: Tsoumakas and Katakis 2007, "Multi-label classification", section 3.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from peftkit.bounds import Ge
from peftkit.errors import InvalidInput
from peftkit.fields import settle
from peftkit.tasks._task import Example, Predictions, Progress, TaskData
from peftkit.tasks._texts import TextRows

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset
    from torch import nn

    from peftkit.backbones import LoadedBackbone
    from peftkit.data import SetColumns

SHOWN = 10  # labels that a note names


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(TextRows):
    """Any number of labels for a text or a pair of texts."""

    metric: ClassVar[str] = "micro_f1"
    problem_type: ClassVar[str | None] = "multi_label_classification"

    size: Annotated[int, Ge(2)] | None = None
    """Training rows, drawn by seed, nested; none: all."""
    label_column: str | None = None
    """Column of the lists of labels; none: found by name and type."""
    label_columns: tuple[str, ...] | None = None
    """Columns of 0 and 1, one a label; none: there is a column of lists."""

    def __post_init__(self) -> None:
        settle(self, "task")
        self.refuse_label_noise("sets of labels")
        if self.label_column is not None and self.label_columns is not None:
            raise InvalidInput(
                "labels cannot stand in lists and in columns of their own at once",
                received=f"label_column {self.label_column}, label_columns "
                f"{', '.join(self.label_columns)}",
                next_step="give one of them",
            )
        if self.label_columns is not None and len(set(self.label_columns)) < 2:
            raise InvalidInput(
                "there must be two labels or more",
                received=f"label_columns {', '.join(self.label_columns)}",
                next_step="name a column for each label",
            )

    # ---- rows

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        from peftkit.data import label_sets

        names, splits = label_sets(self.splits(progress), self._columns())
        chance = _best_constant(splits.test["label"][:])
        data = self.drawn(splits, seed=seed, labels=names, chance=chance)
        present = {label for row in data.train["label"][:] for label in row}
        unseen = [name for code, name in enumerate(names) if code not in present]
        if not unseen:
            return data
        more = f" and {len(unseen) - SHOWN} more" if len(unseen) > SHOWN else ""
        note = (
            f"no row of the {len(data.train)} drawn has the label {', '.join(unseen[:SHOWN])}{more}"
        )
        return dataclasses.replace(data, notes=(*data.notes, note))

    def _columns(self) -> SetColumns:
        from peftkit.data import SetColumns

        return SetColumns(
            text=self.text_column, second=self.second_text_column,
            label=self.label_column, each=self.label_columns,
        )  # fmt: skip

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import known_label_sets, read_rows

        return known_label_sets(read_rows(file), self._columns(), labels, source=str(file))

    def rows(self, texts: Sequence[str]) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict({"text": list(texts), "label": [[] for _ in texts]})

    # ---- what the model learns

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        there = _zeros_and_ones(rows, backbone.model.config.num_labels)
        # Tuples: a list would be taken for one label a token.
        return self.tokenize(rows, backbone, max_length, [tuple(row) for row in there.tolist()])

    def label_shape(self, batch: int, length: int, num_labels: int) -> tuple[tuple[int, ...], bool]:
        return (batch, num_labels), True

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        """Binary cross-entropy, mean over rows and labels."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits.float(), labels.float())

    def fit_layer(
        self, how: Literal["centroids", "probe"], features: Sequence[np.ndarray],
        targets: Sequence[Any], num_outputs: int,
    ) -> nn.Linear:  # fmt: skip
        import numpy as np

        from peftkit.fitted import label_centroids, label_probe

        make = label_centroids if how == "centroids" else label_probe
        return make(np.stack(features), np.asarray(targets))

    def fit_words(
        self, counts: Any, rows: Dataset, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from peftkit.fitted import label_words

        return label_words(counts, _zeros_and_ones(rows, num_outputs))

    # ---- how well

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        import numpy as np
        from sklearn.metrics import f1_score

        found = np.asarray(outputs) > 0
        there = _zeros_and_ones(rows, found.shape[1]).astype(bool)
        kept: Predictions = {
            "item": list(range(len(there))),
            "label": [np.flatnonzero(row).tolist() for row in there],
            "predicted": [np.flatnonzero(row).tolist() for row in found],
            "matched": (there & found).sum(1).tolist(),
            "found": found.sum(1).tolist(),
            "present": there.sum(1).tolist(),
        }
        occurs = np.flatnonzero((there | found).any(axis=0))
        options = {"labels": occurs, "zero_division": 0.0}
        metrics = {
            f"{average}_f1": float(f1_score(there, found, average=average, **options))
            if len(occurs) else 0.0
            for average in ("micro", "macro")
        }  # fmt: skip
        return kept, {**metrics, "subset_accuracy": float((there == found).all(axis=1).mean())}

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        from peftkit.tasks._spans import f1_of_items

        return f1_of_items(predictions)

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        import numpy as np
        from scipy.special import expit

        answers = []
        for logits, text in zip(np.asarray(outputs), self.shown(rows), strict=True):
            order = [k for k in np.argsort(-logits, kind="stable") if logits[k] > 0]
            given = [{"label": labels[k], "probability": round(float(expit(logits[k])), 4)}
                     for k in order]  # fmt: skip
            answers.append({"labels": given, "text": text})
        return answers


def _zeros_and_ones(rows: Dataset, num_labels: int) -> np.ndarray:
    """`(rows, labels)`: 1 where a row has a label."""
    import numpy as np

    there = np.zeros((len(rows), num_labels), dtype=np.int64)
    for row, labels in enumerate(rows["label"][:]):
        there[row, labels] = 1
    return there


def _best_constant(sets: Sequence[Sequence[int]]) -> float:
    """The micro-F1 of the k commonest labels, given to every row, at the best k."""
    counts = sorted(Counter(label for each in sets for label in each).values(), reverse=True)
    total = sum(counts)
    return max(2 * sum(counts[:k]) / (k * len(sets) + total) for k in range(1, len(counts) + 1))
