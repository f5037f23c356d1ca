"""Language modelling: which token comes next, or (for encoders) stands behind a mask.

A row: `{"text": "Once upon a time ..."}`. Texts are read in blocks of `max_length` tokens that do
not overlap; a block's first token, if no token of the tokenizer's own stands before it, is not
predicted. Encoders predict 15 % of the tokens, of which 80 % are masked, 10 % replaced and 10 %
left (Devlin et al. 2019, section 3.1); a text's choice is always the same. The metric is bits per
byte of what is predicted, which compares across tokenizers; lower is better, 8 is chance. Also:
nats per token ("loss") and its exponential ("perplexity").
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Ge
from peftkit.errors import InvalidInput
from peftkit.fields import settle
from peftkit.seeds import derive
from peftkit.tasks._task import Example, Predictions, Progress, Reads, Task, TaskData

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone

CHOSEN = 0.15
CHANCE = 8.0  # bits of a byte


@dataclass(frozen=True, kw_only=True)
class LanguageModeling(Task):
    """Predict the tokens of plain text."""

    metric: ClassVar[str] = "bits_per_byte"
    higher_is_better: ClassVar[bool] = False
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForCausalLM", "AutoModelForMaskedLM")
    corpora: ClassVar[tuple[str, ...]] = ("pydocs/text",)
    reads: ClassVar[Reads] = "token"

    size: Annotated[int, Ge(1)] | None = None
    """Training texts, drawn by seed, nested; none: all."""
    max_length: Annotated[int, Ge(8)] = 256
    """Tokens of a block."""
    text_column: str | None = None
    """Column of the text; none: text."""
    neutral_text: str | None = None
    """Text that forgetting is measured on: a file, a folder, a bundled corpus or a data set of the
    hub (validation rows); none: Python's language reference."""

    def __post_init__(self) -> None:
        settle(self, "task")
        self.refuse_label_noise("plain text")

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        splits = self.splits(progress)
        parts = {name: self._plain(rows, f"the {name} split of {splits.source}")
                 for name, rows in splits.parts().items()}  # fmt: skip
        splits = dataclasses.replace(splits, **parts)
        return self.drawn(splits, seed=seed, chance=CHANCE)

    def _plain(self, rows: Dataset, source: str) -> Dataset:
        """The texts alone, none of them empty."""
        name = self.text_column or "text"
        if name not in rows.column_names:
            raise InvalidInput(
                f"{source} has no column {name}",
                received=", ".join(rows.column_names),
                next_step="name the column (--task.text-column)",
            )
        rows = rows.select_columns([name]).rename_columns({name: "text"} if name != "text" else {})
        for row, text in enumerate(rows["text"][:]):
            if not isinstance(text, str) or not text.strip():
                raise InvalidInput(
                    f"row {row} of {source} is empty in column {name!r}",
                    received=f"{text!r:.60}",
                    next_step="fill or remove the row",
                )
        return rows

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import read_rows

        return self._plain(read_rows(file), str(file))

    def rows(self, texts: Sequence[str]) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict({"text": list(texts)})

    def texts(self, rows: Dataset) -> list[str]:
        return list(rows["text"][:])

    # ---- what the model reads

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        from peftkit.evaluate import IGNORED

        if len(rows) == 0:
            return []
        tokenizer = backbone.processor
        before, after = _own_tokens(tokenizer)
        room = max_length - len(before) - len(after)
        texts = rows["text"][:]
        encoded = tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        masked = backbone.auto_class == "AutoModelForMaskedLM"
        examples = []
        seen: Counter[str] = Counter()  # a text that comes again is masked anew
        for row, (text, ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            lengths = _byte_lengths(text, encoded["offset_mapping"][row])
            again = f" {seen[text]}" if seen[text] else ""
            seen[text] += 1
            for start in range(0, len(ids), room):
                block = [*before, *ids[start : start + room], *after]
                sizes = [0] * len(before) + lengths[start : start + room] + [0] * len(after)
                inputs, labels = (block, [*block[1:], IGNORED])  # that of a place: what follows
                if masked:
                    own = range(len(before), len(block) - len(after))
                    inputs, labels = _masked(block, own, tokenizer, f"{start} {text}{again}")
                predicted = sizes if masked else [*sizes[1:], 0]
                examples.append(
                    {
                        "input_ids": inputs,
                        "attention_mask": [1] * len(inputs),
                        "labels": labels,
                        "_row": row,
                        "_bytes": sum(
                            n for n, label in zip(predicted, labels, strict=True)
                            if label != IGNORED
                        ),
                    }
                )  # fmt: skip
        return [example for example in examples if example["_bytes"]]

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        """Mean over the tokens that are predicted."""
        import torch

        from peftkit.evaluate import IGNORED

        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED
        )

    def pick(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`(batch, 2)`: nats of a block, and tokens predicted in it. Logits are not kept."""
        import torch

        from peftkit.evaluate import IGNORED

        nats = torch.nn.functional.cross_entropy(
            values.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        ).sum(dim=1)
        return torch.stack([nats, (labels != IGNORED).sum(dim=1).to(nats.dtype)], dim=1)

    def join(self, answers: list[np.ndarray], examples: Sequence[Example]) -> np.ndarray:
        """`(rows, 3)`: nats, tokens and bytes."""
        import numpy as np

        sums = np.zeros((1 + max((e["_row"] for e in examples), default=-1), 3))
        for answer, example in zip(answers, examples, strict=True):
            sums[example["_row"]] += [*answer, example["_bytes"]]
        return sums

    # ---- how well

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        import numpy as np

        sums = _of_rows(outputs, len(rows))
        kept: Predictions = {
            "item": list(range(len(sums))),
            "nats": [round(float(v), 4) for v in sums[:, 0]],
            "tokens": [int(v) for v in sums[:, 1]],
            "bytes": [int(v) for v in sums[:, 2]],
        }
        nats, tokens, size = sums.sum(axis=0)
        loss = float(nats / tokens)
        metrics = {
            "bits_per_byte": float(nats / size / np.log(2)),
            "loss": loss,
            "perplexity": float(np.exp(loss)),
        }
        return kept, metrics

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        from peftkit.tasks._overlap import jackknife

        both = np.asarray([predictions["nats"], predictions["bytes"]], dtype=np.float64).T
        return jackknife(both, lambda sums: float(sums[0] / sums[1] / np.log(2)))

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        import numpy as np

        return [
            {"bits_per_byte": f"{nats / size / np.log(2):.3f}" if size else "-", "text": text}
            for (nats, _, size), text in zip(
                _of_rows(outputs, len(rows)), rows["text"], strict=True
            )
        ]


def _of_rows(outputs: Any, num_rows: int) -> np.ndarray:
    """`(rows, 3)`, with 0 for the last ones if nothing of them is predicted, as of one token."""
    import numpy as np

    sums = np.zeros((num_rows, 3))
    sums[: len(outputs)] = outputs
    return sums


def _own_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text by itself."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _byte_lengths(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Bytes of each token, the space before it included, which some tokenizers leave out."""
    ends = [0, *(end for _, end in offsets)]
    return [len(text[a:b].encode()) for a, b in pairwise(ends)]


def _masked(
    ids: list[int], own: Sequence[int], tokenizer: Any, place: str
) -> tuple[list[int], list[int]]:
    """Some of the tokens at `own` masked, replaced or left: always the same of a place."""
    import numpy as np

    from peftkit.evaluate import IGNORED

    draw = np.random.default_rng(derive(0, f"mask {place}"))
    inputs, labels = list(ids), [IGNORED] * len(ids)
    for i in draw.permutation(own)[: max(1, round(CHOSEN * len(own)))]:
        labels[i] = ids[i]
        what = draw.random()
        if what < 0.8:
            inputs[i] = tokenizer.mask_token_id
        elif what < 0.9:
            inputs[i] = int(draw.integers(len(tokenizer)))
    return inputs, labels
