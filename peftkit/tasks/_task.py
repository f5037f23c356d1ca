"""What every task is: data, how it is posed to a model, and how answers are scored."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peftkit.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset
    from torch import nn

    from peftkit.backbones import LoadedBackbone
    from peftkit.data import LabelColumn, Splits
    from peftkit.evaluate import Collate

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is being done."""
Example = dict[str, Any]
"""One encoded row, or a part of a long one: lists of token ids and masks (or pixels, or sound), and
"labels". Entries whose names begin with an underscore are the task's own, and reach no model."""
Reads = Literal["text", "word", "span", "token"]
Predictions = dict[str, list[Any]]
"""Columns over test items, "item" first; see `Record.predictions`."""


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's rows for one seed: subset drawn, labels noised, classes numbered.

    Attributes:
        train, validation, test: Rows.
        labels: What the outputs of a head stand for: names of classes, into which a row's label is
            an index, or the name of the one number that is predicted.
        source: Where the rows come from.
        fingerprint: Hash over all rows of the source, before subset and noise.
        notes: What a reader of results must know.
        chance: The metric's value without any knowledge of the input; None: nobody knows.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: list[str]
    source: str
    fingerprint: str
    notes: tuple[str, ...]
    chance: float | None

    @functools.cached_property
    def label_counts(self) -> Counter[int]:
        """Training rows of each class, where each row has one."""
        return Counter(self.train["label"][:])


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data, how it is posed, and how it is scored.

    A subclass lives in a file of its own below `peftkit/tasks` (the file's name is the task's
    name) or anywhere (`path/to/file.py:Class`, or an entry point of the group `peftkit.tasks`).

    Class attributes:
        metric: The metric that tables show and checkpoints are chosen by.
        higher_is_better: Its direction.
        metric_version: Raised whenever the metric's definition changes.
        auto_classes: The transformers classes that put this task's head on a backbone; of several,
            the first that knows the architecture.
        corpora: Names of bundled data posed this way; such a name is itself a task.
        inputs: What a row holds: "text", "image" or "audio".
        reads: What one answer belongs to: a whole "text" (or image, or sound), each "word" of it, a
            "span" of it, or the next "token", which is what backbones are pretrained to answer:
            there is no new head then.
        problem_type: What transformers calls it, whose pipelines would else guess from the number
            of labels what becomes of logits.
        generates: Whether answers are written, token by token.
        against_start: Whether a model is judged by what it became since before training.
        dropout: Whether the backbone's own dropout is on in training.
    """

    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    metric_version: ClassVar[int] = 1
    auto_classes: ClassVar[tuple[str, ...]]
    corpora: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[Literal["text", "image", "audio"]] = "text"
    reads: ClassVar[Reads] = "text"
    problem_type: ClassVar[str | None] = None
    generates: ClassVar[bool] = False
    against_start: ClassVar[bool] = False
    dropout: ClassVar[bool] = True

    data: str
    """A bundled corpus, a local file or folder, or a data set of the hub."""
    size: int | None = None
    """Training examples; none: all."""
    label_noise: float = 0.0
    """Share of training labels replaced by another class."""
    configuration: str | None = None
    """Configuration of a data set of the hub."""
    revision: str | None = None
    """Revision of a data set of the hub."""

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        """Read, check and subset the data.

        Raises:
            InvalidInput: The data does not fit the task, or the subset cannot be drawn.
        """
        raise NotImplementedError

    def splits(self, progress: Progress | None = None, label_column: LabelColumn = None) -> Splits:
        """The three splits of `data`, as `peftkit.data.load_splits` finds them."""
        from peftkit.data import load_splits

        return load_splits(
            self.data,
            configuration=self.configuration,
            revision=self.revision,
            label_column=label_column,
            progress=progress,
        )

    def drawn(self, splits: Splits, *, seed: int, labels: Sequence[str] = (),
              chance: float | None = 0.0) -> TaskData:  # fmt: skip
        """What `load` returns where rows have no class each: `size` rows are drawn by seed."""
        from peftkit.data import subset

        train = splits.train
        if self.size is not None:
            train = train.select(subset([0] * len(train), self.size, seed))
        return TaskData(
            train=train,
            validation=splits.validation,
            test=splits.test,
            labels=list(labels),
            source=splits.source,
            fingerprint=splits.fingerprint,
            notes=tuple(splits.notes),
            chance=chance,
        )

    def refuse_label_noise(self, answers: str) -> None:
        """Raise `InvalidInput` if noise was asked for where `answers` are no classes."""
        if self.label_noise:
            raise InvalidInput(
                f"label noise is not defined for {answers}",
                received=f"task.label_noise {self.label_noise}",
                next_step="leave it out, or use text_classification",
            )

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        """Turn rows into what the backbone reads, unpadded.

        Args:
            rows: As `load` made them.
            backbone: Its processor above all.
            max_length: Tokens that there is room for, at most the task's own `max_length`; 0 where
                the task has none.
        """
        raise NotImplementedError

    def noted(self, examples: Sequence[Example], split: str) -> list[str]:
        """What a reader of results must know of how rows were encoded, such as how many were cut.

        Args:
            examples: What `encode` made of a split.
            split: Its name.
        """
        return []

    def with_shots(self, rows: Dataset, shots: Dataset) -> Dataset:
        """Rows before whose prompts others stand, with their answers.

        Args:
            rows: As `load` made them.
            shots: Likewise.

        Raises:
            Unsupported: Rows are no prompts.
        """
        raise Unsupported(
            f"examples can only stand before a prompt, and the rows of {type(self).__name__} are "
            "none. Next: leave --method.shots out."
        )

    def packed(
        self, examples: list[Example], max_length: int, *, virtual_tokens: int
    ) -> list[Example]:
        """Training examples as they are trained on: here, one a row.

        Args:
            examples: As encoded.
            max_length: As in `encode`.
            virtual_tokens: How many the method puts before each.

        Raises:
            Unsupported: The method does not go with what the task asks for.
        """
        return examples

    def collate(self, backbone: LoadedBackbone) -> Collate:
        """How examples become a batch of tensors: here, padded to the longest."""
        from peftkit.evaluate import collate_padded

        return collate_padded(backbone.processor)

    def length(self, example: Example) -> int:
        """Tokens of an encoded example: batches are made of examples of like length."""
        return len(example["input_ids"])

    def key(self, example: Example) -> int:
        """Examples of different keys never share a batch in evaluation."""
        return 0

    def remarks(self, data: TaskData, backbone: LoadedBackbone) -> list[str]:
        """What a reader of results must know of how rows are posed to this very backbone."""
        return []

    def read(self, file: Path, labels: list[str]) -> Dataset:
        """Rows of another file, their labels numbered as in `labels`.

        Raises:
            InvalidInput: The file does not fit, or a label is none of these.
        """
        raise NotImplementedError

    def rows(self, texts: Sequence[str]) -> Dataset:
        """Rows of bare inputs, whose labels are not known (0)."""
        raise NotImplementedError

    def texts(self, rows: Dataset) -> list[str]:
        """What each row asks, as one string.

        Methods without a tokenizer read it; to the data check rows are the same if these are.
        """
        raise NotImplementedError

    def loss(self, logits: torch.Tensor, labels: Any, data: TaskData) -> torch.Tensor:
        """Mean loss of a batch, in nats; `labels` as `collate` made them."""
        raise NotImplementedError

    def label_shape(self, batch: int, length: int, num_labels: int) -> tuple[tuple[int, ...], bool]:
        """Shape of the labels of a batch, and whether they are no whole numbers.

        For predicting memory where there are no rows.
        """
        shapes = {"text": (batch,), "word": (batch, length), "span": (batch, 2)}
        return shapes.get(self.reads, (batch, length)), False

    def num_items(self, labels: Any) -> int:
        """By how much a batch counts where several make one step: here, all alike."""
        return 1

    def fit_layer(
        self,
        how: Literal["centroids", "probe"],
        features: Sequence[np.ndarray],
        targets: Sequence[Any],
        num_outputs: int,
    ) -> nn.Linear:
        """A linear layer from features to logits, without a step through the backbone.

        Args:
            how: What is fitted: where the answers' features lie, or the least loss.
            features: Of each training row `(hidden,)`, or `(words, hidden)`.
            targets: Of each row, as encoded.
            num_outputs: Logits.
        """
        from peftkit.heads import centroid_layer, probe_layer, units

        make = centroid_layer if how == "centroids" else probe_layer
        x, y = units(features, targets)
        return make(x, y, num_classes=num_outputs)

    def fit_words(
        self, counts: Any, rows: Dataset, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """A linear model from words to logits, where a whole text has one answer.

        Args:
            counts: Weighted counts of words, sparse, `(rows, words)`.
            rows: The training rows.
            num_outputs: Logits.

        Returns:
            Weights `(outputs, words)` and biases `(outputs,)`.
        """
        raise NotImplementedError

    def logits(self, output: Any) -> torch.Tensor:
        """The logits in what a model of `auto_classes` puts out."""
        found: torch.Tensor = output.logits
        return found

    def pick(self, values: torch.Tensor, labels: torch.Tensor) -> Any:
        """Of what a model puts out for a batch, what answers each example.

        Args:
            values: Logits or hidden states.
            labels: Of the batch, as encoded.

        Returns:
            One tensor an example: a tensor over the batch, or a list.
        """
        return values

    def join(self, answers: list[np.ndarray], examples: Sequence[Example]) -> Any:
        """All answers, in the order of the rows, as `score` takes them.

        Args:
            answers: One an example, as `pick` gave them.
            examples: What `encode` made of the rows; empty where there is no backbone.
        """
        import numpy as np

        return np.stack(answers)

    def start(
        self, model: Any, examples: Sequence[Example], backbone: LoadedBackbone, **options: Any
    ) -> None:
        """Note in each example, as "_start", what is to be known of `model`, if `against_start`.

        Args:
            model: As it is before training, the method's adapter switched off.
            examples: As encoded.
            backbone: Its processor above all.
            **options: `precision` and `progress` of `peftkit.evaluate.outputs`.
        """
        raise NotImplementedError

    def write(
        self, model: Any, examples: Sequence[Example], backbone: LoadedBackbone, **options: Any
    ) -> list[Any]:
        """What `model` writes, an example, if the task `generates`.

        Args:
            model: The adapted one.
            examples: As encoded.
            backbone: Its processor above all.
            **options: `precision` and `progress` of `peftkit.generate.generate`.
        """
        raise NotImplementedError

    def written_with(self, backbone: LoadedBackbone) -> Any:
        """The tokenizer of what the model writes."""
        return backbone.processor

    def save_beside(self, backbone: LoadedBackbone, folder: Path) -> None:
        """Write what the task needs of the backbone's folder, beside its processor, to `folder`."""

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        """Predictions per item, and the metrics over them.

        Args:
            outputs: What `join` or `write` made.
            rows: The rows they belong to, in the same order.
        """
        raise NotImplementedError

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        """One number a test item, whose mean is the task's metric; None if there is no such thing.

        Args:
            predictions: As `score` returned them.
        """
        return None

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        """What a user is told about rows without known answers: "text", "label" and the like."""
        raise NotImplementedError
