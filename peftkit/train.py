"""The one training loop: `transformers.Trainer`, set up once for every method.

What makes a comparison fair is decided here. The batches are a pure function of the number of
examples, their lengths, the seed and the settings, so every method of a cell sees the same ones in
the same order. Dropout draws from a stream of its own, and evaluating in between draws from none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from peftkit import checkpointing, tracking
from peftkit.device import device, resolve_precision
from peftkit.errors import Diverged, InvalidInput
from peftkit.memory.watching import Counted, MemoryWatch, largest_batch
from peftkit.order import order_of
from peftkit.seeds import derive
from peftkit.watch import Watch, last_whole_checkpoint

if TYPE_CHECKING:
    from torch import nn

    from peftkit.settings import Training
    from peftkit.tasks import Example, Progress

LOG_POINTS = 25
SCHEDULES = {"constant": "constant_with_warmup"}  # transformers' plain one knows no warm-up
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "lion": "lion_32bit",
}
TOO_MUCH = 3.0  # times the first loss (or log of the number of classes) that counts as diverged


@dataclass(kw_only=True)
class Schedule:
    """What is trained on, in which order, and how progress is judged.

    Attributes:
        examples: Encoded training examples.
        lengths: Tokens of each.
        collate: Makes a batch of tensors of some examples; "labels" is among them.
        loss: From logits and labels to a mean loss in nats.
        logits: Takes them out of the model's output, given its inputs.
        num_items: By how much a pass counts among those of a step, given its labels.
        validate: Called every `evaluate_every` steps; returns the task's metric.
        higher_is_better: Direction of that metric.
        rate_factor: How many times the learning rate a parameter has, by its name.
        progress: Told of every step.
        folder: Where checkpoints go, if any are asked for.
        trackers: Who is told of losses, rates and validation, as they come.
        tracker_folder: Where such a tracker writes files, if it does.
    """

    examples: Sequence[Example]
    lengths: Sequence[int]
    collate: Callable[[list[Example]], dict[str, Any]]
    loss: Callable[[torch.Tensor, Any], torch.Tensor]
    logits: Callable[[Any, dict[str, Any]], torch.Tensor] = lambda output, _: output.logits
    num_items: Callable[[Any], int] = lambda _: 1
    validate: Callable[[nn.Module], float] | None = None
    higher_is_better: bool = True
    rate_factor: Callable[[str], float] = lambda _: 1.0
    progress: Progress | None = None
    folder: Path | None = None
    trackers: Sequence[str] = ()
    tracker_folder: Path = Path()


@dataclass(kw_only=True)
class Trained:
    """How training went.

    Attributes:
        steps: Optimizer steps taken.
        num_examples: Examples seen, repetitions counted.
        num_tokens: Tokens seen, padding not counted.
        history: Logged points.
        best_step: Step whose state was kept, if the best was asked for.
        memory: What tensors took in the step with the largest batch.
        resumed_at: Step of the checkpoint that it went on from; none: it began anew.
    """

    steps: int = 0
    num_examples: int = 0
    num_tokens: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_step: int | None = None
    memory: Counted | None = None
    resumed_at: int | None = None


def train(model: nn.Module, schedule: Schedule, training: Training, *, seed: int,
          learning_rate: float) -> Trained:  # fmt: skip
    """Train the parameters of `model` that require gradients, in place.

    Args:
        model: Takes the batch without "labels" as keyword arguments; its output has `logits`.
        schedule: Data, loss and validation.
        training: Settings of the recipe.
        seed: Of the recipe.
        learning_rate: Peak learning rate.

    Raises:
        Diverged: The loss or a weight is no finite number, or the loss ends above three times its
            start.
        InvalidInput: Nothing requires a gradient.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InvalidInput(
            "nothing is trainable",
            allowed="a method that leaves at least one parameter with requires_grad",
            next_step="check the method's targets",
        )
    num_steps = training.num_steps(len(schedule.examples))
    order = order_of(schedule.lengths, training, seed=seed)
    watch = Watch(schedule, training, num_steps)
    memory = MemoryWatch(largest_batch(schedule.lengths, order, training)[0])
    trainer = _trainer(
        model, schedule, order, _arguments(training, schedule, num_steps, seed, learning_rate),
        memory, watch,
    )  # fmt: skip
    checkpoint = None
    if training.save_every and schedule.folder:
        checkpoint = last_whole_checkpoint(schedule.folder)
        if checkpoint:
            watch.resume(checkpoint)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        memory.abandon()  # it might be within a step that failed
    watch.return_to_best(model)
    if not all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad):
        raise Diverged("a trained weight is no finite number: lower --training.learning-rate")
    model.eval()
    steps = trainer.state.global_step
    seen = order[: steps * training.batch_size * training.gradient_accumulation]
    history = [_point(entry) for entry in trainer.state.log_history if "train_runtime" not in entry]
    _check_end([p["loss"] for p in history if "loss" in p])
    return Trained(
        steps=steps,
        num_examples=len(seen),
        num_tokens=int(np.asarray(schedule.lengths)[seen].sum()),
        history=history,
        best_step=watch.best_step if training.keep_best else None,
        memory=memory.counted,
        resumed_at=int(checkpoint.name.rpartition("-")[2]) if checkpoint else None,
    )


def _trainer(
    model: nn.Module, schedule: Schedule, order: list[int], arguments: TrainingArguments,
    memory: MemoryWatch, watch: Watch,
) -> _Trainer:  # fmt: skip
    """A `Trainer` with our batches, our loss and those who watch."""
    trackers = tracking.callbacks(schedule.trackers, schedule.tracker_folder)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=schedule.examples,
        data_collator=schedule.collate,
        callbacks=[memory, watch, *trackers],  # counting ends before `watch` evaluates
    )
    watch.tell = lambda logs: trainer.callback_handler.on_log(
        trainer.args, trainer.state, trainer.control, logs
    )
    trainer.remove_callback(PrinterCallback)
    trainer.order, trainer.loss, trainer.logits = order, schedule.loss, schedule.logits
    trainer.memory = memory
    trainer.rate_factor, trainer.num_items = schedule.rate_factor, schedule.num_items
    trainer.loss_is_scaled_for_ga = True  # by `compute_loss`
    return trainer


def _point(entry: dict[str, Any]) -> dict[str, Any]:
    kept = ("step", "loss", "learning_rate", "validation")
    return {name: entry[name] for name in kept if name in entry}


def _check_end(losses: list[float]) -> None:
    """Finite but far above its start is diverged too: Adam's steps are bounded."""
    if len(losses) > 1 and losses[-1] > TOO_MUCH * max(losses[0], 1.0):
        raise Diverged(
            f"the training loss rose from {losses[0]:.3g} to {losses[-1]:.3g}: "
            "lower --training.learning-rate"
        )


def _arguments(
    training: Training, schedule: Schedule, num_steps: int, seed: int, learning_rate: float
) -> TrainingArguments:
    checkpointed: dict[str, Any] = {checkpointing.NAME: training.gradient_checkpointing}
    arguments = TrainingArguments(
        output_dir=str(schedule.folder or Path.cwd()),
        max_steps=num_steps,
        per_device_train_batch_size=training.batch_size,
        accelerator_config={"split_batches": True},  # over processes, if there are several
        gradient_accumulation_steps=training.gradient_accumulation,
        **checkpointed,
        learning_rate=learning_rate,
        lr_scheduler_type=SCHEDULES.get(training.schedule, training.schedule),
        warmup_steps=min(math.ceil(training.warmup * num_steps), num_steps - 1),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=OPTIMIZERS.get(training.optimizer, training.optimizer),
        bf16=resolve_precision(training.precision) == "bfloat16",
        use_cpu=device() == "cpu",
        seed=derive(seed, "dropout") % 2**32,
        logging_steps=max(1, num_steps // LOG_POINTS),
        logging_nan_inf_filter=False,
        save_strategy="steps" if training.save_every else "no",
        save_steps=training.save_every or 500,
        save_total_limit=None,  # `Watch.on_save` deletes older ones, once the new one is whole
        eval_strategy="no",
        report_to=tracking.through_transformers(schedule.trackers),
        remove_unused_columns=False,
        disable_tqdm=True,
        label_names=["labels"],
    )
    arguments.device  # noqa: B018  # counts the GPUs
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else `DataParallel` would split every batch
    return arguments


class _Trainer(Trainer):
    """`Trainer` with our batches and our loss."""

    order: list[int]
    loss: Callable[[torch.Tensor, Any], torch.Tensor]
    logits: Callable[[Any, dict[str, Any]], torch.Tensor]
    num_items: Callable[[Any], int]
    rate_factor: Callable[[str], float]
    memory: MemoryWatch

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        assert self.model is not None
        factors = {id(p): self.rate_factor(n) for n, p in self.model.named_parameters()}
        for group in list(optimizer.param_groups):  # of each kind, those at another rate move out
            kinds: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                kinds.setdefault(factors[id(parameter)], []).append(parameter)
            rate, options = group["lr"], {k: v for k, v in group.items() if k != "params"}
            for number, (factor, parameters) in enumerate(kinds.items()):
                if number == 0:
                    group["params"], group["lr"] = parameters, rate * factor
                else:
                    added = {**options, "params": parameters, "lr": rate * factor}
                    optimizer.add_param_group(added)
        # The method's own rate first: it is the one that is logged.
        optimizer.param_groups.sort(
            key=lambda group: not any(factors[id(p)] == 1.0 for p in group["params"])
        )
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return _InOrder(self.order)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, _ = super().get_batch_samples(*args, **kwargs)
        own = sum(self.num_items(batch["labels"]) for batch in batches)
        if self.args.world_size == 1:
            return batches, own
        every = self.accelerator.gather(torch.tensor(own, device=self.args.device))
        return batches, int(every.sum())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        self.memory.inputs(inputs)
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = self.logits(outputs, inputs)
        self.memory.outputs(logits)
        loss = self.loss(logits, labels)
        # Processes average their gradients; a mean over all items is wanted.
        share = self.num_items(labels) / num_items_in_batch * self.args.world_size
        loss = loss * share
        self.memory.loss_is_there()
        return (loss, outputs) if return_outputs else loss


class _InOrder(torch.utils.data.Sampler[int]):
    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)
