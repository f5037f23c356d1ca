"""Preference tuning: of two answers to a prompt, the better one should become likelier (DPO).

A row: `{"prompt": "Name a prime number.", "chosen": "7", "rejected": "8"}`; the prompt may be
messages, and so may the sides. The loss is `-log sigmoid(margin)` with `margin = beta * [log
p(chosen) / q(chosen) - log p(rejected) / q(rejected)]`, where q is the model as it was before
training: an adapter switched off, so nothing is held twice (Rafailov et al. 2023, arXiv:2305.18290,
equation 7). What q makes of a row is computed once, before training.

The metric is the share of rows whose margin is above 0, those at 0 counted half, so that an
untrained model has exactly 50 %. Also: the mean "reward_margin", and the "loss". Batches, tokens
and loss are those of TRL's `DPOTrainer`, and as there the backbone's dropout is off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Gt
from peftkit.tasks._prompted import PromptedTask, token_nats
from peftkit.tasks._task import Example, Predictions, Progress, TaskData

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone
    from peftkit.evaluate import Collate

SIDES = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class Preference(PromptedTask):
    """Prefer the better of two answers."""

    metric: ClassVar[str] = "preference_accuracy"
    against_start: ClassVar[bool] = True
    dropout: ClassVar[bool] = False

    beta: Annotated[float, Gt(0)] = 0.1
    """How dear it is to move away from the untrained model; Rafailov et al.: 0.1 to 0.5."""

    # ---- rows

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        from peftkit.data import equal_sides

        splits = self.splits(progress)
        parts = {
            name: self._known(rows, f"the {name} split of {splits.source}")
            for name, rows in splits.parts().items()
        }
        notes = list(splits.notes)
        for name, rows in parts.items():
            if same := equal_sides(rows):
                notes.append(
                    f"{len(same)} of {len(rows)} {name} rows have equal sides: nothing to learn, "
                    f"and half right (first: row {same[0]})"
                )
        splits = dataclasses.replace(splits, **parts, notes=tuple(notes))
        return self.drawn(splits, seed=seed, chance=0.5)

    def _known(self, rows: Dataset, source: str) -> Dataset:
        from peftkit.data import known_preferences

        found = known_preferences(rows, source=source)
        self.require_template(found, source)
        return found

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import read_rows

        return self._known(read_rows(file), str(file))

    def rows(self, texts: Sequence[str]) -> Dataset:
        """Prompts, which are answered."""
        from datasets import Dataset

        nothing = {side: [""] * len(texts) for side in SIDES}
        return Dataset.from_dict({"prompt": list(texts), **nothing})

    def _right(self, rows: Dataset) -> list[str]:
        return list(rows["chosen"][:])

    # ---- what the model reads

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        if len(rows) == 0:
            return []
        examples = []
        for each in self.tokens(rows, SIDES, backbone, max_length):
            example: Example = {"prompt_ids": each.prompt, "_cut": each.cut}
            if each.sides:
                example |= dict(zip(("chosen_ids", "rejected_ids"), each.sides, strict=True))
            else:
                self.ask(example, each, max_length, backbone.processor)
            examples.append(example)
        return examples

    def length(self, example: Example) -> int:
        sides = (example.get("chosen_ids", ()), example.get("rejected_ids", ()))
        return sum(len(example["prompt_ids"]) + len(side) for side in sides)

    def collate(self, backbone: LoadedBackbone) -> Collate:
        """The chosen sides, then the rejected ones; labels, and log q of both sides of each."""
        import torch
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        from peftkit.evaluate import IGNORED

        pad = DataCollatorForPreference(pad_token_id=backbone.processor.pad_token_id)

        def collate(examples: list[Example]) -> dict[str, Any]:
            batch = pad(examples)
            labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
            labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
            start = torch.tensor([example.get("_start", (0.0, 0.0)) for example in examples])
            return {**batch, "labels": (labels, start)}

        return collate

    def loss(self, logits: torch.Tensor, labels: Any, data: TaskData) -> torch.Tensor:
        """Mean over the pairs."""
        from torch.nn.functional import logsigmoid

        labels, start = labels
        gained = _log_likelihoods(logits, labels) - start
        return -logsigmoid(self.beta * (gained[:, 0] - gained[:, 1])).mean()

    # ---- how well

    def start(
        self, model: Any, examples: Sequence[Example], backbone: LoadedBackbone, **options: Any
    ) -> None:
        """Note log q of both sides of each pair in it."""
        pairs = [example for example in examples if "chosen_ids" in example]
        found = self._both(model, pairs, backbone, **options)
        for example, values in zip(pairs, found, strict=True):
            example["_start"] = values.tolist()

    def _both(
        self, model: Any, pairs: Sequence[Example], backbone: LoadedBackbone, **options: Any
    ) -> list[np.ndarray]:
        from peftkit.evaluate import outputs

        def read(output: Any, inputs: dict[str, Any], labels: Any) -> torch.Tensor:
            text = self.logits(output)[:, -inputs["input_ids"].shape[1] :]  # none of virtual tokens
            return _log_likelihoods(text, labels[0])

        collate = self.collate(backbone)
        return outputs(model, pairs, collate, read=read, length=self.length, **options)

    def write(
        self, model: Any, examples: Sequence[Example], backbone: LoadedBackbone, **options: Any
    ) -> list[Any]:
        """Rewards of both sides of each pair; of a prompt alone, an answer to it."""
        import numpy as np

        pairs = [row for row, example in enumerate(examples) if "chosen_ids" in example]
        asked = [row for row, example in enumerate(examples) if "_asked" in example]
        both = self._both(model, [examples[i] for i in pairs], backbone, **options)
        rewards = [
            self.beta * (values - np.asarray(examples[row]["_start"], dtype=values.dtype))
            for row, values in zip(pairs, both, strict=True)
        ]
        answers = self.reply(model, [examples[i]["_asked"] for i in asked], backbone, **options)
        found: dict[int, Any] = dict(zip([*pairs, *asked], [*rewards, *answers], strict=True))
        return [found[row] for row in range(len(examples))]

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        import numpy as np

        chosen, rejected = np.stack(outputs).astype(np.float64).T
        margins = chosen - rejected
        correct = np.where(margins == 0, 0.5, margins > 0)
        kept: Predictions = {
            "item": list(range(len(rows))),
            "correct": correct.tolist(),
            **{
                name: [round(float(v), 5) for v in values]
                for name, values in (("chosen_reward", chosen), ("rejected_reward", rejected))
            },
        }
        return kept, {
            self.metric: float(correct.mean()),
            "reward_margin": float(margins.mean()),
            "loss": float(np.logaddexp(0, -margins).mean()),
        }

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        return np.asarray(predictions["correct"], dtype=np.float64)

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        return [
            {"answer": answer, "text": text}
            for answer, text in zip(outputs, self.texts(rows), strict=True)
        ]


def _log_likelihoods(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`(pairs, 2)`: of the chosen sides, the first half of the batch, and of the rejected ones."""
    import torch

    whole = -token_nats(logits, labels).sum(dim=1)
    return torch.stack(whole.chunk(2), dim=1)
