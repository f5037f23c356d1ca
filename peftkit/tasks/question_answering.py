"""Extractive question answering: which words of a text answer a question, if any do.

A row: `{"question": "What is the default of axis?", "context": "axis : int, default 0", "answers":
{"text": ["0"], "answer_start": [20]}}`; no texts: the context holds no answer. Contexts too long
are read in overlapping windows; a window without the answer is taught to point at its first token,
and so is every window of a question without one (Devlin et al. 2019, section 4.3). The metric is
the F1 of words. Chance is the share of test questions without an answer: that of answering none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Ge
from peftkit.errors import InvalidInput
from peftkit.fields import settle
from peftkit.tasks._answers import exact_match, word_f1
from peftkit.tasks._task import Example, Predictions, Progress, Reads, Task, TaskData

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone

COLUMNS = ("question", "context", "answers")
BEST = 20  # starts and ends that are combined, as in the scripts of BERT


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """Find the words of a text that answer a question."""

    metric: ClassVar[str] = "f1"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForQuestionAnswering",)
    corpora: ClassVar[tuple[str, ...]] = ("pydocs/defaults",)
    reads: ClassVar[Reads] = "span"

    size: Annotated[int, Ge(1)] | None = None
    """Training questions, drawn by seed, nested; none: all."""
    max_length: Annotated[int, Ge(16)] = 384
    """Tokens of a window, question included; 384 is BERT's on SQuAD."""
    stride: Annotated[int, Ge(0)] = 128
    """Tokens that two windows share, at most a third of `max_length`."""
    max_answer_length: Annotated[int, Ge(1)] = 30
    """Tokens of an answer, at most."""

    def __post_init__(self) -> None:
        settle(self, "task")
        self.refuse_label_noise("answers")

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        splits = self.splits(progress)
        parts = {name: _checked(rows, f"the {name} split of {splits.source}")
                 for name, rows in splits.parts().items()}  # fmt: skip
        splits = dataclasses.replace(splits, **parts)
        unanswered = [not each["text"] for each in splits.test["answers"][:]]
        chance = sum(unanswered) / len(unanswered)
        return self.drawn(splits, seed=seed, labels=["start", "end"], chance=chance)

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import read_rows

        return _checked(read_rows(file), str(file))

    def rows(self, texts: Sequence[str]) -> Dataset:
        """Questions and contexts, parted by the first question mark."""
        from datasets import Dataset

        asked = [text.partition("?") for text in texts]
        return Dataset.from_dict(
            {
                "question": [question + mark for question, mark, _ in asked],
                "context": [context.strip() for _, _, context in asked],
                "answers": [{"text": [], "answer_start": []} for _ in asked],
            }
        )

    def texts(self, rows: Dataset) -> list[str]:
        return [f"{q}\n{c}" for q, c in zip(rows["question"], rows["context"], strict=True)]

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        if len(rows) == 0:
            return []
        tokenizer = backbone.processor
        room = max_length // 2  # a question takes at most half
        whole = tokenizer(
            rows["question"][:], add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        questions = [
            question if len(spans) <= room else question[: spans[room - 1][1]]
            for question, spans in zip(rows["question"][:], whole, strict=True)
        ]
        # Windows must be longer than what they share; a cut question may be a few tokens longer.
        left = max_length - room - tokenizer.num_special_tokens_to_add(pair=True) - 2
        encoded = tokenizer(
            questions,
            rows["context"][:],
            truncation="only_second",
            max_length=max_length,
            stride=max(0, min(self.stride, max_length // 3, left - 1)),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        columns = [name for name in encoded if name in tokenizer.model_input_names]
        answers = rows["answers"][:]
        examples = []
        for i, row in enumerate(encoded["overflow_to_sample_mapping"]):
            inside = [part == 1 for part in encoded.sequence_ids(i)]
            offsets = encoded["offset_mapping"][i]
            spans = [span if own else None for span, own in zip(offsets, inside, strict=True)]
            examples.append(
                {
                    **{name: encoded[name][i] for name in columns},
                    "labels": _target(answers[row], spans),
                    "_row": row,
                    "_spans": spans,
                }
            )
        return examples

    def logits(self, output: Any) -> torch.Tensor:
        """`(batch, seq, 2)`: of being the first and the last token of the answer."""
        import torch

        return torch.stack([output.start_logits, output.end_logits], dim=-1)

    def pick(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return values

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        """Mean of the cross-entropies of both ends; padding has little probability to lose."""
        from torch.nn.functional import cross_entropy

        both = [cross_entropy(logits[..., k].float(), labels[:, k]) for k in (0, 1)]
        return (both[0] + both[1]) / 2

    def join(self, answers: list[np.ndarray], examples: Sequence[Example]) -> list[Any]:
        """Of each row the best span over its windows, `(score over no answer, first, after)`."""
        found: dict[int, tuple[float, int, int]] = {}
        nulls: dict[int, float] = {}
        for logits, example in zip(answers, examples, strict=True):
            n, row = len(example["input_ids"]), example["_row"]
            best = _best_span(logits[:n], example["_spans"], self.max_answer_length)
            null = float(logits[0].sum())
            if row in found:
                null = min(null, nulls[row])
                best = max(best, found[row])
            found[row], nulls[row] = best, null
        return [(found[r][0] - nulls[r], *found[r][1:]) for r in sorted(found)]

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        import numpy as np

        answerable = any(not each["text"] for each in rows["answers"][:])
        kept: Predictions = {name: [] for name in ("item", "predicted", "f1", "exact_match")}
        for item, (best, context, answers) in enumerate(
            zip(outputs, rows["context"][:], rows["answers"][:], strict=True)
        ):
            text = _text(best, context, may_be_none=answerable)
            true = list(answers["text"])
            values = (item, text, word_f1(text, true), exact_match(text, true))
            for column, value in zip(kept.values(), values, strict=True):
                column.append(value)
        metrics = {name: float(np.mean(kept[name])) for name in ("f1", "exact_match")}
        return kept, metrics

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        return np.asarray(predictions["f1"], dtype=np.float64)

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        return [
            {"answer": _text(best, context, may_be_none=True) or "-", "text": question}
            for best, context, question in zip(
                outputs, rows["context"], rows["question"], strict=True
            )
        ]


def _checked(rows: Dataset, source: str) -> Dataset:
    """The three columns, after checking that every answer stands where it says.

    Raises:
        InvalidInput: A column is missing, a row is not as in SQuAD, or an answer is not in its
            context.
    """
    missing = [name for name in COLUMNS if name not in rows.column_names]
    if missing:
        raise InvalidInput(
            f"{source} has no column {missing[0]}",
            received=", ".join(rows.column_names),
            allowed=f"{', '.join(COLUMNS)}, as in SQuAD",
            next_step="rename the columns",
        )
    rows = rows.select_columns(list(COLUMNS))
    columns = (rows[name][:] for name in COLUMNS)
    for row, (question, context, answers) in enumerate(zip(*columns, strict=True)):
        if not (isinstance(question, str) and isinstance(context, str) and _are_answers(answers)):
            raise InvalidInput(
                f"row {row} of {source} is not as in SQuAD",
                received=f"{question!r:.40}, {context!r:.40}, {answers!r:.80}",
                allowed='two texts, and answers: {"text": ["..."], "answer_start": [17]}, both '
                "lists empty where there is no answer",
                next_step="correct or remove the row (CSV files cannot hold answers)",
            )
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            if context[start : start + len(text)] != text:
                raise InvalidInput(
                    f"an answer of row {row} of {source} does not stand where it says",
                    received=f"{text!r:.60} at character {start}",
                    allowed="answer_start counts the characters of the context before the answer",
                    next_step="correct or remove the row",
                )
    return rows


def _are_answers(value: Any) -> bool:
    """Whether a value is a list of texts and, as long, one of where they begin."""
    if not isinstance(value, Mapping):
        return False
    texts, starts = value.get("text"), value.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return False
    return all(isinstance(text, str) for text in texts) and all(type(n) is int for n in starts)


def _target(answers: Mapping[str, Any], spans: Sequence[tuple[int, int] | None]) -> tuple[int, int]:
    """First and last token of the first true answer; 0 and 0 if it is not whole in the window."""
    if not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    end = begin + len(answers["text"][0])
    first = [i for i, s in enumerate(spans) if s and s[0] <= begin < s[1]]
    last = [i for i, s in enumerate(spans) if s and s[0] < end <= s[1]]
    return (first[0], last[-1]) if first and last else (0, 0)


def _best_span(
    logits: np.ndarray, spans: Sequence[tuple[int, int] | None], longest: int
) -> tuple[float, int, int]:
    """Score, first character and the one after the last, of the likeliest span of a window."""
    import numpy as np

    inside = np.asarray([i for i, span in enumerate(spans) if span and span[1] > span[0]])
    if len(inside) == 0:
        return -np.inf, 0, 0
    starts = inside[np.argsort(-logits[inside, 0], kind="stable")[:BEST]]
    ends = inside[np.argsort(-logits[inside, 1], kind="stable")[:BEST]]
    pairs = [(s, e) for s in starts for e in ends if 0 <= e - s < longest]
    if not pairs:
        s = int(starts[0])
        pairs = [(s, s)]
    score, s, e = max((float(logits[s, 0] + logits[e, 1]), -s, -e) for s, e in pairs)
    first, last = spans[-s], spans[-e]
    assert first is not None
    assert last is not None
    return score, first[0], last[1]


def _text(best: tuple[float, int, int], context: str, *, may_be_none: bool) -> str:
    score, first, after = best
    return "" if may_be_none and score <= 0 else context[first:after]
