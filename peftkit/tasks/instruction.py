"""Instruction tuning: write what should follow a prompt. Only that is learned, not the prompt.

A row: `{"prompt": "Name a prime number.", "completion": "7"}`, or `instruction`, `input` and
`output`, or `question` and `answer`, or a chat, whose last message is what is learned:
`{"messages": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]}`.

The metric is the mean loss of the completions' tokens in nats; lower is better. It compares
methods, not tokenizers. Of the first `num_written` rows the answer is also written, greedily, and
compared with the true one: "exact_match" (of the number behind the last "####", if the true answer
has one, as in GSM8K, Cobbe et al. 2021, arXiv:2110.14168; else of the normalised text, as SQuAD
does) and "rougeL" (Lin 2004). Batches, tokens and loss are those of TRL's `SFTTrainer`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Ge
from peftkit.errors import Unsupported
from peftkit.tasks._prompted import PromptedTask, token_nats
from peftkit.tasks._task import Example, Predictions, Progress, TaskData

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone

NUMBER = re.compile(r"####\s*(-?[\d.,]*\d)")


@dataclass(frozen=True, kw_only=True)
class Instruction(PromptedTask):
    """Answer a prompt."""

    metric: ClassVar[str] = "completion_loss"
    higher_is_better: ClassVar[bool] = False

    packing: bool = False
    """Train on several rows in one sequence, none of which sees another: less padding. A step then
    holds more rows."""
    num_written: Annotated[int, Ge(0)] | None = 32
    """Rows of a split whose answers are written, the first ones; none: all, 0: none."""
    prompt_column: str | None = None
    """Column of the prompt; none: found by name."""
    completion_column: str | None = None
    """Column of the completion; none: found by name."""

    # ---- rows

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        if self.num_written != 0:
            from peftkit.tasks._overlap import require_metrics

            require_metrics()
        splits = self.splits(progress)
        parts = {
            name: self._known(rows, f"the {name} split of {splits.source}")
            for name, rows in splits.parts().items()
        }
        notes = list(splits.notes)
        if self.num_written is not None and 0 < self.num_written < len(parts["test"]):
            notes.append(f"exact_match and rougeL: of the first {self.num_written} rows of a split")
        splits = dataclasses.replace(splits, **parts, notes=tuple(notes))
        return self.drawn(splits, seed=seed, chance=None)

    def _known(self, rows: Dataset, source: str) -> Dataset:
        from peftkit.data import known_prompts

        found = known_prompts(
            rows, source=source, prompt=self.prompt_column, completion=self.completion_column
        )
        self.require_template(found, source)
        return found

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import read_rows

        return self._known(read_rows(file), str(file))

    def rows(self, texts: Sequence[str]) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict({"prompt": list(texts), "completion": [""] * len(texts)})

    def _right(self, rows: Dataset) -> list[str]:
        return list(rows["completion"][:])

    # ---- what the model reads

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        from peftkit.evaluate import IGNORED

        if len(rows) == 0:
            return []
        written = len(rows) if self.num_written is None else self.num_written
        examples = []
        found = self.tokens(rows, ["completion"], backbone, max_length)
        for row, (each, true) in enumerate(zip(found, self._right(rows), strict=True)):
            target = each.sides[0] if each.sides else []
            ids = each.prompt + target
            example: Example = {
                "input_ids": ids,
                "attention_mask": [1] * len(ids),
                # Of a position: the token that follows it.
                "labels": [*([IGNORED] * len(each.prompt) + target)[1:], IGNORED],
                "_cut": each.cut,
            }
            if row < written or not true:
                self.ask(example, each, max_length, backbone.processor)
            examples.append(example)
        return examples

    def packed(
        self, examples: list[Example], max_length: int, *, virtual_tokens: int
    ) -> list[Example]:
        """Several examples in one, by TRL's best-fit-decreasing packing."""
        if not self.packing:
            return examples
        if virtual_tokens:
            raise Unsupported(
                "rows in one sequence are told apart by their positions, which PEFT drops behind "
                "virtual tokens and prefixes. Next: leave --task.packing out, or choose lora."
            )
        from datasets import Dataset
        from trl.data_utils import pack_dataset

        names = ("input_ids", "labels")
        rows = Dataset.from_dict({name: [e[name] for e in examples] for name in names})
        return [
            {
                **{name: row[name] for name in names},
                "position_ids": [i for n in row["seq_lengths"] for i in range(n)],
            }
            for row in pack_dataset(rows, max_length)
        ]

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        """Mean over the tokens of the completions."""
        import torch

        from peftkit.evaluate import IGNORED

        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED
        )

    def num_items(self, labels: torch.Tensor) -> int:
        """A step is the mean over all of its tokens, as in TRL and transformers."""
        from peftkit.evaluate import IGNORED

        return int((labels != IGNORED).sum())

    # ---- how well

    def write(
        self, model: Any, examples: Sequence[Example], backbone: LoadedBackbone, **options: Any
    ) -> list[tuple[float, float, str | None]]:
        """Nats and tokens of each completion, and what is written in its place, if anything is."""
        import torch

        from peftkit.evaluate import IGNORED, outputs

        def read(output: Any, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
            text = self.logits(output)[:, -inputs["input_ids"].shape[1] :]  # none of virtual tokens
            nats = token_nats(text, labels).sum(dim=1)
            return torch.stack([nats, (labels != IGNORED).sum(dim=1)], dim=1)

        sums = outputs(model, examples, self.collate(backbone), read=read, **options)
        asked = [row for row, example in enumerate(examples) if "_asked" in example]
        answers = self.reply(model, [examples[i]["_asked"] for i in asked], backbone, **options)
        texts = dict(zip(asked, answers, strict=True))
        return [(float(n), float(t), texts.get(row)) for row, (n, t) in enumerate(sums)]

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        import numpy as np

        nats, tokens, texts = zip(*outputs, strict=True)
        kept: Predictions = {
            "item": list(range(len(rows))),
            "nats": [round(value, 4) for value in nats],
            "tokens": [int(value) for value in tokens],
        }
        metrics = {self.metric: float(np.sum(nats) / np.sum(tokens))}
        if self.num_written == 0:
            return kept, metrics
        from peftkit.tasks._overlap import rouge

        pairs = list(zip(texts, self._right(rows), strict=True))
        kept["predicted"] = list(texts)
        kept["exact_match"] = [None if t is None else same_answer(t, true) for t, true in pairs]
        kept["rougeL"] = [None if t is None else rouge(t, [true])["rougeL"] for t, true in pairs]
        for name in ("exact_match", "rougeL"):
            metrics[name] = float(np.mean([value for value in kept[name] if value is not None]))
        return kept, metrics

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        from peftkit.tasks._overlap import jackknife

        both = np.asarray([predictions["nats"], predictions["tokens"]], dtype=np.float64).T
        return jackknife(both, lambda sums: float(sums[0] / sums[1]))

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        return [
            {"answer": answer, "text": text}
            for (_, _, answer), text in zip(outputs, self.texts(rows), strict=True)
        ]


def same_answer(predicted: str, true: str) -> float:
    """1 if the final answers agree, else 0: numbers behind "####" if `true` has one, else texts."""
    from peftkit.tasks._answers import exact_match

    number = final_number(true)
    if number is None:
        return float(exact_match(predicted, [true]))
    return float(final_number(predicted) == number)


def final_number(text: str) -> float | None:
    """The number behind the last "####" of a worked solution; None if there is none."""
    found = NUMBER.findall(text)
    try:
        return float(found[-1].replace(",", "")) if found else None
    except ValueError:  # such as 1.2.3
        return None
