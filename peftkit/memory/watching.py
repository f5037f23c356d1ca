"""Counting the storages of one real training step, in the midst of training.

One step is followed: the one with the largest batch, the first aside, when there is no optimizer
state yet. The mode that counts changes no number; it costs microseconds an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from peftkit.memory.counting import LiveStorages, state_of
from peftkit.memory.timeline import PARTS, Part, Timeline

if TYPE_CHECKING:
    import torch

    from peftkit.settings import Training

MODULES = 5  # of which the activations are told


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted in one training step.

    Attributes:
        peak_bytes: The most that tensors took at once.
        parts: Of which how much was what.
        during: Where the peak was: "forward", "loss", "backward" or "step".
        largest: The modules whose activations took most of it, with their bytes, largest first.
        timeline: All that came and went.
    """

    peak_bytes: int
    parts: dict[Part, int]
    during: str
    largest: dict[str, int]
    timeline: Timeline


class MemoryWatch(TrainerCallback):
    """Counts the step numbered `step`, from 0.

    Attributes:
        live: What counts, while it does.
        counted: What was found, afterwards.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.live: LiveStorages | None = None
        self.counted: Counted | None = None
        self._stack = ExitStack()

    def on_step_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None,
        **_: Any,
    ) -> Any:  # fmt: skip
        if state.global_step != self.step:
            return control
        self.live = live = LiveStorages()
        weights, scales = state_of(model)
        live.hold(scales, "quantization_state")
        live.hold(weights, "weights")
        trained = [p for p in model.parameters() if p.requires_grad]
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        live.hold(_tensors(inner.state), "optimizer")
        live.hold((p.grad for p in trained), "gradients")
        live.begin("forward")
        self._stack.enter_context(live.naming(model))
        self._stack.enter_context(live.gradients_of(trained))
        self._stack.enter_context(live)
        return control

    def inputs(self, tensors: dict[str, Any]) -> None:
        """Told of the tensors of a batch, before its forward pass."""
        if self.live is not None:
            self.live.hold(_tensors(tensors), "activations")
            self.live.begin("forward")

    def outputs(self, logits: Any) -> None:
        """Told of a model's answer, before the loss is computed."""
        if self.live is not None:
            self.live.begin("loss")
            self.live.hold([logits], "logits")

    def loss_is_there(self) -> None:
        """Told that the backward pass comes next."""
        if self.live is not None:
            self.live.begin("backward")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.live is not None:
            self.live.begin("step")
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.live is not None:
            self.close()
        return control

    def abandon(self) -> None:
        """Count no further, and forget what was counted of a step that did not end."""
        self.live = None
        self._stack.close()

    def close(self) -> None:
        """Count no further, and draw the sum."""
        live = self.live
        self.abandon()
        if live is None:
            return
        live.stop()
        peaks = live.timeline.peaks()
        during = max(peaks, key=lambda name: peaks[name].bytes)
        peak = peaks[during]
        owners = live.timeline.alive_by_owner(peak.at, "activations")
        order = sorted(owners, key=lambda name: -owners[name])[:MODULES]
        self.counted = Counted(
            peak_bytes=peak.bytes,
            parts={part: peak.parts[part] for part in PARTS},
            during=during,
            largest={name: owners[name] for name in order},
            timeline=live.timeline,
        )


def _tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor within, however nested."""
    import torch
    from torch.utils._pytree import tree_leaves

    values = list(value.values()) if hasattr(value, "values") else value
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def largest_batch(
    lengths: Sequence[int], order: list[int], training: Training
) -> tuple[int, list[int]]:
    """Which batch takes most, padded: the number of its step, and its examples.

    The first step is left aside, when there is no optimizer state yet, unless it is the only one.
    """
    size, passes = training.batch_size, training.gradient_accumulation
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    longest = [max(lengths[i] for i in batch) for batch in batches]
    rest = range(passes, len(batches)) if len(batches) > passes else range(len(batches))
    number = max(rest, key=lambda n: longest[n])
    return number // passes, batches[number]
