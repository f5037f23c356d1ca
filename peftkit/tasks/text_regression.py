"""Text regression: a number for a text or a pair, such as how alike two sentences are.

A row: `{"sentence1": "A man plays.", "sentence2": "A man is playing.", "score": 4.6}`. The model
learns by squared error what is left of a number once the mean of the training rows is taken off,
in units of their standard deviation, so that numbers of any size are learned at the same rates;
answers and metrics are in the numbers' own units. The metric is Pearson's correlation; also
Spearman's, and the mean squared error. A correlation that is not defined, as all numbers are the
same, counts as 0, and so chance is 0: without knowledge of the input the best guess is a constant.

Reference: STS-B (Cer et al. 2017, SemEval task 1), whose metric Pearson's correlation is.
"""

from __future__ import annotations

import dataclasses
import re
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


@dataclass(frozen=True, kw_only=True)
class TextRegression(TextRows):
    """A number for a text or a pair of texts."""

    metric: ClassVar[str] = "pearson"
    problem_type: ClassVar[str | None] = "regression"

    size: Annotated[int, Ge(2)] | None = None
    """Training rows, drawn by seed, nested; none: all."""
    label_column: str | None = None
    """Column of the number; none: found by name and type."""

    def __post_init__(self) -> None:
        settle(self, "task")
        self.refuse_label_noise("numbers")

    # ---- rows

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        import numpy as np

        from peftkit.data import find_value_column, strata_of_values, valued

        splits = self.splits(
            progress,
            lambda rows: strata_of_values(rows, find_value_column(rows, self.label_column)),
        )
        column, splits = valued(
            splits, text=self.text_column, second=self.second_text_column, label=self.label_column
        )
        data = self.drawn(splits, seed=seed, chance=0.0)
        numbers = np.asarray(data.train["label"][:], dtype=np.float64)
        scale = _Scale(column, float(numbers.mean()), float(numbers.std()))
        if scale.deviation == 0:
            raise InvalidInput(
                f"the training rows drawn have the same number in column {column!r}",
                received=f"{numbers[0]} in each of {len(numbers)}",
                next_step="ask for a larger size, or take another seed",
            )
        note = (
            f"{column} is learned in standard deviations ({scale.deviation:.4g}) from the mean "
            f"({scale.mean:.4g}) of the training rows"
        )
        return dataclasses.replace(data, labels=[str(scale)], notes=(*data.notes, note))

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import known_values, read_rows, value_columns

        rows = read_rows(file)
        columns = value_columns(rows, self.text_column, self.second_text_column, self.label_column)
        return known_values(rows, columns, source=str(file))

    def rows(self, texts: Sequence[str]) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict({"text": list(texts), "label": [0.0] * len(texts)})

    # ---- what the model learns

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        scale = _Scale.parse(backbone.model.config.id2label[0])
        examples = self.tokenize(
            rows, backbone, max_length, [scale.learned(value) for value in rows["label"][:]]
        )
        return [{**example, "_scale": scale} for example in examples]

    def label_shape(self, batch: int, length: int, num_labels: int) -> tuple[tuple[int, ...], bool]:
        return (batch,), True

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        """Mean squared error; 1 is that of the training rows' mean."""
        import torch

        return torch.nn.functional.mse_loss(logits[:, 0].float(), labels)

    def fit_layer(
        self, how: Literal["centroids", "probe"], features: Sequence[np.ndarray],
        targets: Sequence[Any], num_outputs: int,
    ) -> nn.Linear:  # fmt: skip
        import numpy as np

        from peftkit.fitted import covariance_layer, ridge_layer

        make = covariance_layer if how == "centroids" else ridge_layer
        return make(np.stack(features), np.asarray(targets))

    def fit_words(
        self, counts: Any, rows: Dataset, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from peftkit.fitted import number_words

        return number_words(counts, rows["label"][:])

    # ---- how well

    def join(self, answers: list[np.ndarray], examples: Sequence[Example]) -> np.ndarray:
        """`(rows,)`, in the numbers' own units, as a model that knows no examples has them."""
        import numpy as np

        values = np.stack(answers)[:, 0].astype(np.float64)
        return examples[0]["_scale"].own(values) if examples else values

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        import numpy as np
        from scipy.stats import rankdata

        label = np.asarray(rows["label"][:], dtype=np.float64)
        predicted = np.asarray(outputs, dtype=np.float64)
        kept: Predictions = {
            "item": list(range(len(label))),
            "label": label.tolist(),
            "predicted": predicted.tolist(),
        }
        metrics = {
            "pearson": _correlation(label, predicted),
            "spearman": _correlation(rankdata(label), rankdata(predicted)),
            "mean_squared_error": float(np.square(label - predicted).mean()),
        }
        return kept, metrics

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        """Pearson's correlation is a function of sums over items: its jackknife."""
        import numpy as np

        from peftkit.tasks._overlap import jackknife

        both = [np.asarray(predictions[n], dtype=np.float64) for n in ("label", "predicted")]
        x, y = (values - values.mean() for values in both)  # the sums stay small
        return jackknife(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1), _of_sums)

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        return [
            {"value": float(value), "text": text}
            for value, text in zip(outputs, self.shown(rows), strict=True)
        ]


@dataclass(frozen=True)
class _Scale:
    """What the one output of a head stands for; `(score - 2.5) / 1.4` is its name in the model."""

    column: str
    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"({self.column} - {self.mean!r}) / {self.deviation!r}"

    @classmethod
    def parse(cls, name: str) -> _Scale:
        """Read what `str` wrote."""
        found = re.fullmatch(r"\((.*) - (\S+)\) / (\S+)", name, re.DOTALL)
        assert found, name
        return cls(found[1], float(found[2]), float(found[3]))

    def learned(self, value: float) -> float:
        return (value - self.mean) / self.deviation

    def own(self, values: np.ndarray) -> np.ndarray:
        return values * self.deviation + self.mean


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation (of ranks: Spearman's); 0 where one of them is constant."""
    from scipy.stats import pearsonr

    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return 0.0
    return float(pearsonr(x, y).statistic)


def _of_sums(sums: np.ndarray) -> float:
    """Pearson's correlation of n, sum x, sum y, sum x^2, sum y^2, sum x y."""
    n, x, y, xx, yy, xy = (float(v) for v in sums)
    spread = (n * xx - x * x) * (n * yy - y * y)
    return (n * xy - x * y) / spread**0.5 if spread > 0 else 0.0
