"""A finished run that is about to be written in another format, and rows to compare it on.

Compared are logits in float32 on the CPU, without autocast. Weights in bfloat16 are widened first,
which changes none of them. Positions of padding do not count, nor do those of virtual tokens. Rows
come in batches of 1, 2, 3, 5, 8 ... rows, each as long as its longest, so that what was traced in
one shape is tried in others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
class Answers:
    """What a model answers.

    Attributes:
        logits: Of each batch, `(vectors, classes)`, padding left out.
        metrics: The task's; empty where answers are written, or the truth is not known.
    """

    logits: list[torch.Tensor] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class AdaptedRun:
    """A run's model, what it answers, and to what.

    Attributes:
        folder: Where the run was saved.
        saved: The run, loaded.
        model: The adapted model, float32, on the CPU, in evaluation mode.
        source: Where the rows come from, in words.
        batches: Inputs of the model, by name; together every row once.
        labels: What is to be answered to each batch.
        examples: What the batches were made of.
        rows: Where the examples are from, to score answers by; None where that has no meaning.
        reference: What the model answers to the batches.
    """

    folder: Path
    saved: SavedRun
    model: Any
    source: str = ""
    batches: list[dict[str, torch.Tensor]] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    examples: list[Any] = field(default_factory=list)
    rows: Dataset | None = None
    reference: Answers = field(default_factory=Answers)

    @property
    def num_rows(self) -> int:
        """Rows in all batches."""
        return len(self.examples)

    @property
    def bench(self) -> Workbench:
        """What the run was loaded on, which encodes rows."""
        predictor: Any = self.saved.predictor
        bench: Workbench = predictor.bench
        return bench

    @property
    def scale(self) -> float:
        """The largest absolute logit of the reference."""
        return max(largest_logit(each) for each in self.reference.logits)

    def ask(self, model: Callable[..., Any]) -> Answers:
        """What `model` answers to every batch.

        Args:
            model: Takes a batch as keyword arguments, and returns what the adapted model does.
        """
        import torch

        task, found, picked = self.saved.recipe.task, Answers(), []
        with torch.inference_mode():
            for batch, labels in zip(self.batches, self.labels, strict=True):
                output = _answer(model, batch)
                found.logits.append(self._counted(output, batch))
                if self.rows is not None:
                    picked += list(task.pick(self.bench.logits(output, batch), labels))
        if self.rows is not None:
            answers = [each.float().cpu().numpy() for each in picked]
            _, metrics = task.score(task.join(answers, self.examples), self.rows)
            found.metrics = {name: float(value) for name, value in metrics.items()}
        return found

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

    def compare(self, other: Answers) -> Agreement:
        """Agreement over all batches: means are over vectors, each counting once.

        Args:
            other: What another model answers.
        """
        import numpy as np

        pairs = list(zip(self.reference.logits, other.logits, strict=True))
        found = [agreement(reference, others) for reference, others in pairs]
        weights = [len(reference) for reference, _ in pairs]
        return Agreement(
            num_rows=self.num_rows,
            largest_difference=float(np.max([each.largest_difference for each in found])),
            kl=float(np.average([each.kl for each in found], weights=weights)),
            equal_predictions=float(
                np.average([each.equal_predictions for each in found], weights=weights)
            ),
            metrics={
                name: (value, other.metrics[name]) for name, value in self.reference.metrics.items()
            },
        )

    def folded(self) -> Any:
        """`model` with its adapter in its weights, if it has one that can be; else as it is."""
        from peft import PeftModel

        from peftkit.merging import fold

        if isinstance(self.model, PeftModel) and self.saved.recipe.method.mergeable:
            self.model = fold(self.model)
        return self.model


def _answer(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    """What a model says of a batch, on the CPU; packed weights cannot leave a GPU themselves."""
    import torch

    parameters = iter(model.parameters()) if hasattr(model, "parameters") else iter(())
    place = getattr(next(parameters, None), "device", torch.device("cpu"))
    output = model(**{name: value.to(place) for name, value in batch.items()})
    if place.type != "cpu":
        for name, value in output.items():
            if isinstance(value, torch.Tensor):
                output[name] = value.cpu()
    return output


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
    found.reference = found.ask(found.model)
    return found


def _give_rows(run: AdaptedRun, count: int) -> None:
    """Put rows into `run`, in batches of several shapes."""
    from peftkit.evaluate import vocabulary

    bench = run.bench
    rows, run.source, known = held_rows(run.saved, count)
    task, examples = bench.recipe.task, bench.encode(rows)
    longest = max(task.length(example) for example in examples)
    room = MOST_LOGITS // (longest * vocabulary(run.model))
    run.examples = list(examples[: max(3, min(count, room))])
    for some in _groups(run.examples):
        batch = bench.collate(some)
        run.labels.append(batch["labels"])
        run.batches.append({k: v.cpu() for k, v in batch.items() if k != "labels"})
    scored = known and not (task.generates or task.against_start)
    if scored and len(run.examples) == len(examples):
        run.rows = rows


def _groups(examples: list[Any]) -> Iterator[list[Any]]:
    """1, 2, 3, 5, 8 ... of the examples."""
    size, following = 1, 2
    while examples:
        yield examples[:size]
        examples = examples[size:]
        size, following = following, size + following


def held_rows(saved: SavedRun, count: int) -> tuple[Dataset, str, bool]:
    """Rows to compare two models on, where they are from, and whether their answers are known.

    The first validation rows of the run's own data; where these cannot be read any more, paragraphs
    of Python's language reference.

    Raises:
        InvalidInput: The data cannot be read, and rows are images, sounds or pairs of answers.
    """
    task = saved.recipe.task
    try:
        data = task.load(seed=saved.recipe.seed)
        rows = data.validation
        known = list(data.labels) == list(saved.labels)  # else answers would be of other classes
        return rows.select(range(min(count, len(rows)))), f"validation rows of {task.data}", known
    except (PeftkitError, OSError):
        if task.inputs != "text" or task.against_start:
            raise
    from pydoc_data.topics import topics

    found = [" ".join(p.split()) for text in topics.values() for p in text.split("\n\n")]
    texts = [f"What is it? {p}" if task.reads == "span" else p for p in found if len(p) > 20]
    return task.rows(texts[:count]), "paragraphs of Python's language reference", False
