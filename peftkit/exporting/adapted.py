"""A finished run that is about to be written in another format, and rows to compare it on.

Compared are logits in float32 on the CPU, without autocast. Weights in bfloat16 are widened first,
which changes none of them. Positions of padding do not count, nor do those of virtual tokens. Rows
come in batches of 1, 2, 3, 5, 8 ... rows, each as long as its longest, so that what was traced in
one shape is tried in others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError, Unsupported
from peftkit.verification import Agreement, agreement, largest_logit

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from peftkit.saved import SavedRun
    from peftkit.workbench import Workbench

MOST_LOGITS = 1 << 26  # of all rows: 256 MiB in float32
ROWS = 32


@dataclass(kw_only=True)
class AdaptedRun:
    """A run's model, what it answers, and to what.

    Attributes:
        folder: Where the run was saved.
        saved: The run, loaded.
        model: The adapted model, float32, on the CPU, in evaluation mode.
        source: Where the rows come from, in words.
        batches: Inputs of the model, by name; together every row once.
        reference: What the model answers to each batch, as `answers` gives it.
        num_rows: Rows in all batches.
    """

    folder: Path
    saved: SavedRun
    model: Any
    source: str = ""
    batches: list[dict[str, torch.Tensor]] = field(default_factory=list)
    reference: list[torch.Tensor] = field(default_factory=list)
    num_rows: int = 0

    @property
    def bench(self) -> Workbench:
        """What the run was loaded on, which encodes rows."""
        predictor: Any = self.saved.predictor
        bench: Workbench = predictor.bench
        return bench

    @property
    def scale(self) -> float:
        """The largest absolute logit of the reference."""
        return max(largest_logit(each) for each in self.reference)

    def answers(self, model: Callable[..., Any]) -> list[torch.Tensor]:
        """Logits of `model` on every batch, `(vectors, classes)` each, padding left out.

        Args:
            model: Takes a batch as keyword arguments, and returns what the adapted model does.
        """
        import torch

        with torch.inference_mode():
            return [self._counted(model(**batch), batch) for batch in self.batches]

    def _counted(self, output: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch

        logits: torch.Tensor = self.bench.logits(output, batch).float()
        if logits.ndim < 3:
            return logits.reshape(len(logits), -1)
        mask = batch.get("attention_mask")
        if mask is None or "decoder_input_ids" in batch:
            return logits.flatten(0, 1)
        text = mask[:, -logits.shape[1] :].bool()
        if self.bench.recipe.task.reads != "span":
            return logits[text]
        # Of a span the classes are the positions: where it begins, and where it ends.
        nowhere = torch.tensor(float("-inf"))
        return logits.where(text[..., None], nowhere).transpose(1, 2).flatten(0, 1)

    def compare(self, others: Sequence[torch.Tensor]) -> Agreement:
        """Agreement over all batches: means are over vectors, each counting once.

        Args:
            others: As `answers` gives it, of another model.
        """
        import numpy as np

        pairs = list(zip(self.reference, others, strict=True))
        found = [agreement(reference, other) for reference, other in pairs]
        weights = [len(reference) for reference, _ in pairs]
        return Agreement(
            num_rows=self.num_rows,
            largest_difference=float(np.max([each.largest_difference for each in found])),
            kl=float(np.average([each.kl for each in found], weights=weights)),
            equal_predictions=float(
                np.average([each.equal_predictions for each in found], weights=weights)
            ),
        )

    def folded(self) -> Any:
        """`model` with its adapter in its weights, if it has one that can be; else as it is."""
        from peft import PeftModel

        from peftkit.merging import fold

        if isinstance(self.model, PeftModel) and self.saved.recipe.method.mergeable:
            self.model = fold(self.model)
        return self.model


def load_adapted(folder: Path, *, rows: int = ROWS, allow_other_base: bool = False) -> AdaptedRun:
    """Load a run, and let it answer rows.

    Args:
        folder: As `peftkit.load_run` takes it.
        rows: How many rows to compare on, at most; of large vocabularies, fewer.
        allow_other_base: As in `peftkit.load_run`.

    Raises:
        InvalidInput: The folder is not that of a finished run.
        WrongBackbone: The backbone's weights have changed since.
        Unsupported: What was fitted is no model of its own.
    """
    from peftkit.saved import load_run

    saved = load_run(folder, allow_other_base=allow_other_base)
    model = getattr(saved.predictor, "model", None)
    method = saved.recipe.to_dict()["method"]["name"]
    if model is None or not hasattr(model, "parameters"):
        raise Unsupported(
            f"{method} fits a layer on what a frozen backbone says of a text, and keeps no model "
            "that could be written. Next: copy the run's folder as it is, or train lora or full."
        )
    found = AdaptedRun(folder=folder, saved=saved, model=model)
    if found.bench.shots is not None:
        raise Unsupported(
            "the answers of this run depend on examples that stand before each prompt, which no "
            "model file holds. Next: train lora instead."
        )
    if found.bench.backbone.quantization == "none":
        model = model.float().cpu()
    found.model = model.eval()
    _give_rows(found, rows)
    found.reference = found.answers(found.model)
    return found


def _give_rows(run: AdaptedRun, count: int) -> None:
    """Put rows into `run`, in batches of several shapes."""
    from peftkit.evaluate import vocabulary

    bench = run.bench
    rows, run.source = held_rows(run.saved, count)
    examples = bench.encode(rows)
    longest = max(bench.recipe.task.length(example) for example in examples)
    room = MOST_LOGITS // (longest * vocabulary(run.model))
    examples = examples[: max(3, min(count, room))]
    for some in _groups(examples):
        batch = bench.collate(some)
        run.batches.append({k: v.cpu() for k, v in batch.items() if k != "labels"})
    run.num_rows = len(examples)


def _groups(examples: list[Any]) -> Iterator[list[Any]]:
    """1, 2, 3, 5, 8 ... of the examples."""
    size, following = 1, 2
    while examples:
        yield examples[:size]
        examples = examples[size:]
        size, following = following, size + following


def held_rows(saved: SavedRun, count: int) -> tuple[Dataset, str]:
    """Rows to compare two models on, and where they are from.

    The first validation rows of the run's own data; where these cannot be read any more, paragraphs
    of Python's language reference.

    Raises:
        InvalidInput: The data cannot be read, and rows are images, sounds or pairs of answers.
    """
    task = saved.recipe.task
    try:
        data = task.load(seed=saved.recipe.seed)
        rows = data.validation
        return rows.select(range(min(count, len(rows)))), f"validation rows of {task.data}"
    except (PeftkitError, OSError):
        if task.inputs != "text" or task.against_start:
            raise
    from pydoc_data.topics import topics

    found = [" ".join(p.split()) for text in topics.values() for p in text.split("\n\n")]
    texts = [f"What is it? {p}" if task.reads == "span" else p for p in found if len(p) > 20]
    return task.rows(texts[:count]), "paragraphs of Python's language reference"
