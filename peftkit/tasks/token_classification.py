"""Token classification: one tag for each word of a text, such as the entities named in it.

A row: `{"tokens": ["Visit", "New", "York"], "tags": ["O", "B-location", "I-location"]}`, split into
words, tagged in BIO or BIOES. A word's tag is read at its first token. Words beyond `max_length`
tokens are not read, and count as `O`. The metric is the F1 of exact spans, as seqeval has it by
default. Chance is 0: without knowledge of the input the best guess is that there is nothing.

Reference: Tjong Kim Sang and De Meulder 2003 (CoNLL-2003), section 2.3; seqeval (Nakayama 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Ge
from peftkit.fields import settle
from peftkit.tasks._spans import f1_of_items, precision_recall_f1, scheme_of, spans
from peftkit.tasks._task import Example, Predictions, Progress, Reads, Task, TaskData

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone

OUTSIDE = "O"


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """One tag for each word of a text; scored by exact spans."""

    metric: ClassVar[str] = "f1"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForTokenClassification",)
    corpora: ClassVar[tuple[str, ...]] = ("pydocs/parameters",)
    reads: ClassVar[Reads] = "word"

    size: Annotated[int, Ge(1)] | None = None
    """Training rows, drawn by seed, nested; none: all."""
    max_length: Annotated[int, Ge(8)] = 128
    """Tokens of a text; the words beyond are not read."""
    tokens_column: str | None = None
    """Column of the words; none: tokens or words."""
    tags_column: str | None = None
    """Column of the tags; none: tags, ner_tags or labels."""

    def __post_init__(self) -> None:
        settle(self, "task")
        self.refuse_label_noise("tags")

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        from peftkit.data import tagged

        names, splits = tagged(
            self.splits(progress), tokens=self.tokens_column, tags=self.tags_column
        )
        return self.drawn(splits, seed=seed, labels=names)

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import known_tags, read_rows

        rows = read_rows(file)
        return known_tags(
            rows, labels, tokens=self.tokens_column, tags=self.tags_column, source=str(file)
        )

    def rows(self, texts: Sequence[str]) -> Dataset:
        """Words are what stands between spaces."""
        from datasets import Dataset

        words = [text.split() for text in texts]
        return Dataset.from_dict({"tokens": words, "label": [[0] * len(each) for each in words]})

    def texts(self, rows: Dataset) -> list[str]:
        return [" ".join(words) for words in rows["tokens"]]

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        from peftkit.evaluate import IGNORED

        if len(rows) == 0:
            return []
        tokenizer = backbone.processor
        cut = {"is_split_into_words": True, "truncation": True, "max_length": max_length}
        texts = [words or [""] for words in rows["tokens"][:]]
        encoded = tokenizer(texts, padding=False, **cut)
        lost = [_stand_in(texts, i, encoded.word_ids(i), tokenizer) for i in range(len(texts))]
        if any(lost):
            encoded = tokenizer(texts, padding=False, **cut)
        columns = [name for name in encoded if name in tokenizer.model_input_names]
        examples = []
        for i, tags in enumerate(rows["label"][:]):
            words = encoded.word_ids(i)
            first = [
                w is not None and w < len(tags) and (j == 0 or words[j - 1] != w)
                for j, w in enumerate(words)
            ]
            labels = [int(tags[w]) if f else IGNORED for w, f in zip(words, first, strict=True)]
            examples.append({**{name: encoded[name][i] for name in columns}, "labels": labels})
        return examples

    def pick(self, values: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        """Logits at the first token of each word, `(words, classes)` an example."""
        from peftkit.evaluate import IGNORED

        return [v[own != IGNORED] for v, own in zip(values, labels, strict=True)]

    def join(self, answers: list[np.ndarray], examples: Sequence[Example]) -> list[np.ndarray]:
        return answers

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        import torch

        from peftkit.evaluate import IGNORED

        if logits.ndim == 3:
            logits = logits.flatten(0, 1)
        return torch.nn.functional.cross_entropy(
            logits.float(), labels.flatten(), ignore_index=IGNORED
        )

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        names = rows.features["label"].feature.names
        outside = names.index(OUTSIDE)
        scheme = scheme_of(names)
        kept: Predictions = {
            name: [] for name in ("item", "label", "predicted", "matched", "found", "present")
        }
        counts: dict[str, list[int]] = {}
        strict = [0, 0, 0]
        right = words = 0
        for item, (logits, label) in enumerate(zip(outputs, rows["label"][:], strict=True)):
            predicted = [int(v) for v in logits.argmax(-1)] if len(logits) else []
            predicted += [outside] * (len(label) - len(predicted))
            tags, guess = [names[v] for v in label], [names[v] for v in predicted]
            present, found = spans(tags), spans(guess)
            for place, each in enumerate((present & found, found, present)):
                for kind, *_ in each:
                    counts.setdefault(kind, [0, 0, 0])[place] += 1
            exact = [spans(each, strict=True, scheme=scheme) for each in (tags, guess)]
            for place, each in enumerate((exact[0] & exact[1], exact[1], exact[0])):
                strict[place] += len(each)
            right += sum(a == b for a, b in zip(label, predicted, strict=True))
            words += len(label)
            row = (item, list(label), predicted, len(present & found), len(found), len(present))
            for column, value in zip(kept.values(), row, strict=True):
                column.append(value)
        return kept, _metrics(counts, strict, right / max(1, words))

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        return f1_of_items(predictions)

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        found = []
        for words, logits in zip(rows["tokens"], outputs, strict=True):
            tags = [labels[v] for v in logits.argmax(-1)] if len(logits) else []
            entities = [
                {"type": kind, "words": " ".join(words[a:b])}
                for kind, a, b in sorted(spans(tags), key=lambda span: span[1])
            ]
            found.append({"entities": entities, "text": " ".join(words)})
        return found


def _stand_in(
    texts: list[list[str]], row: int, words: Sequence[int | None], tokenizer: Any
) -> bool:
    """Put the unknown token in the place of words that have no token, such as a zero-width joiner.

    Else the answers of the words behind them would count for these.

    Returns:
        Whether there were any before the last word that is read.
    """
    read = {word for word in words if word is not None}
    lost = set(range(max(read, default=0))) - read
    if lost:
        unknown = tokenizer.unk_token or "?"
        texts[row] = [unknown if i in lost else word for i, word in enumerate(texts[row])]
    return bool(lost)


def _metrics(
    counts: dict[str, list[int]], strict: list[int], word_accuracy: float
) -> dict[str, float]:
    """Micro-averages over spans of all types, the strict F1, and the F1 of each type."""
    total = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0, 0]
    precision, recall, f1 = precision_recall_f1(*total)
    return {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "f1_strict": precision_recall_f1(*strict)[2],
        "word_accuracy": word_accuracy,
        **{f"f1_{kind}": precision_recall_f1(*counts[kind])[2] for kind in sorted(counts)},
    }
