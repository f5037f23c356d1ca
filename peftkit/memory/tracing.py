"""A training step without tensors: what it would put into memory, and when.

The backbone is built on torch's meta device, the method attached to it there, and one step
(forward, loss, backward) run under fake tensors, which know shapes and nothing else, while all
storages are counted. It is the step that `peftkit.train` takes: the same model, loss, autocast and
checkpointing.

Fake tensors are those of a CPU, whatever device is meant: autograd has no queue for CUDA where
there is none. For CUDA, `as_on_cuda` imitates what its kernels do otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import masking_utils

from peftkit import checkpointing
from peftkit.backbones._outline import PackedOutline
from peftkit.backbones._quantized import num_parameters
from peftkit.device import resolve_precision
from peftkit.memory.counting import LiveStorages
from peftkit.memory.cuda_kernels import as_on_cuda
from peftkit.memory.optimizers import state_bytes, step_bytes
from peftkit.memory.outlines import Outlined, flat, to_fake
from peftkit.memory.timeline import Part, Timeline

if TYPE_CHECKING:
    from peftkit.recipe import Recipe
    from peftkit.workbench import Workbench

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Traced:
    """A traced step, and how many parameters its model has.

    Attributes:
        timeline: Segments are "forward", "loss", "backward" and "step", those of blocks numbered
            ("forward 0"), what comes before them "forward in" and behind them "forward out", and
            the same for "backward".
        num_blocks: Of the backbone.
        trainable_parameters: Of method and head.
        total_parameters: Of the backbone.
        block: Bytes that the second block takes throughout: its weights, their scales, what the
            optimizer keeps of them, and gradients of batches before.
        block_parameters: Trained ones, and all of the backbone's, in the second block.
    """

    timeline: Timeline
    num_blocks: int
    trainable_parameters: int
    total_parameters: int
    block: dict[Part, int]
    block_parameters: tuple[int, int]


def trace(bench: Workbench, batch: Mapping[str, Any], *, device: Device) -> Traced:
    """Trace one training step.

    Args:
        bench: Its backbone is an outline (see `peftkit.backbones.outline`).
        batch: Outlines of the tensors of a batch; "labels" among them.
        device: Whose kernels are meant.

    Raises:
        Unsupported: The method does not go with this backbone.
    """
    recipe, names = bench.recipe, bench.backbone.layers.blocks
    second = num_parameters(bench.backbone.model.get_submodule(names[1])) if names[1:] else 0
    with torch.device("meta"):
        model = bench.attach(recipe.method)
    blocks = _blocks(bench, model)
    live = LiveStorages()
    with _under_fakes(model, device):
        model.train()
        if recipe.training.gradient_checkpointing:
            checkpointing.enable(model)
        inputs = {name: Outlined.fake(value) for name, value in batch.items()}
        _count_what_stands(live, model, recipe)
        live.hold(flat(list(inputs.values())), "activations")
        trained = [p for p in model.parameters() if p.requires_grad]
        with live.naming(model), live.gradients_of(trained), _between_blocks(live, blocks), live:
            _step(live, bench, model, inputs)
            live.begin("step")
            taken = step_bytes(recipe.training.optimizer, [p.shape for p in trained])
            live.timeline.leave(live.timeline.enter(taken, "temporary"), "temporary")
    counted = bench.parameters(model)
    block, trained_there = _of_block(recipe, blocks[1] if blocks[1:] else nn.Module())
    return Traced(
        timeline=live.timeline,
        num_blocks=len(blocks),
        trainable_parameters=counted.method + counted.head,
        total_parameters=bench.backbone.total_parameters,
        block=block,
        block_parameters=(trained_there, second),
    )


@contextmanager
def _under_fakes(model: nn.Module, device: Device) -> Iterator[None]:
    """Let `model` hold fake tensors, and run as on `device`."""
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        # Whether rows are packed cannot be seen without values; peftkit packs none into one row.
        stack.enter_context(patch.object(masking_utils, "find_packed_sequence_indices", _unpacked))
        to_fake(model)
        for layer in model.modules():
            if isinstance(layer, PackedOutline):
                layer.imitates = device
        if device == "cuda":
            stack.enter_context(as_on_cuda())
        yield


def _count_what_stands(live: LiveStorages, model: nn.Module, recipe: Recipe) -> None:
    """Count what is there throughout: weights, optimizer state, gradients of batches before."""
    scales = [s for m in model.modules() if isinstance(m, PackedOutline) for s in m.scales()]
    live.hold(scales, "quantization_state")
    known = {id(scale) for scale in scales}
    tensors = (*model.parameters(), *model.buffers())
    live.hold((t for t in tensors if id(t) not in known), "weights")
    trained = [p for p in model.parameters() if p.requires_grad]
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for parameter in trained:
        embedding = id(parameter) in embedded
        for size in _kept(recipe.training.optimizer, parameter, embedding=embedding):
            live.timeline.enter(size, "optimizer")
    if recipe.training.gradient_accumulation > 1:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        live.hold((p.grad for p in trained), "gradients")


def _step(live: LiveStorages, bench: Workbench, model: nn.Module, inputs: dict[str, Any]) -> None:
    """Forward and backward pass, as `peftkit.train` makes them."""
    recipe = bench.recipe
    labels = inputs.pop("labels")
    live.begin("forward", "forward in")
    output = _run(model, inputs, resolve_precision(recipe.training.precision))
    logits = bench.logits(output, inputs)
    live.begin("loss")
    live.hold([logits], "logits")
    loss = recipe.task.loss(logits, labels, bench.data)
    del output, logits  # as at the end of `compute_loss`
    live.begin("backward", "backward out")
    loss.backward()


def _kept(optimizer: str, parameter: nn.Parameter, *, embedding: bool = False) -> list[int]:
    return state_bytes(
        optimizer, parameter.shape, itemsize=parameter.element_size(), embedding=embedding
    )


def _of_block(recipe: Recipe, block: nn.Module) -> tuple[dict[Part, int], int]:
    """What a block takes throughout, and how many parameters are trained in it."""
    scales = [s for m in block.modules() if isinstance(m, PackedOutline) for s in m.scales()]
    known = {id(scale) for scale in scales}
    tensors = [t for t in (*block.parameters(), *block.buffers()) if id(t) not in known]
    trained = [p for p in block.parameters() if p.requires_grad]
    optimizer = recipe.training.optimizer
    accumulated = recipe.training.gradient_accumulation > 1
    sizes: dict[Part, int] = {
        "weights": sum(t.nbytes for t in tensors),
        "quantization_state": sum(t.nbytes for t in scales),
        "optimizer": sum(sum(_kept(optimizer, p)) for p in trained),
        "gradients": sum(p.nbytes for p in trained) if accumulated else 0,
    }
    return sizes, sum(p.numel() for p in trained)


def _unpacked(position_ids: Any) -> None:
    return None


def _run(model: Any, inputs: dict[str, Any], precision: str) -> Any:
    """The forward pass as accelerate wraps it: autocast, and an output in float32."""
    if precision != "bfloat16":
        return model(**inputs)
    from accelerate.utils import convert_outputs_to_fp32

    forward = convert_outputs_to_fp32(torch.autocast("cpu", dtype=torch.bfloat16)(model.__call__))
    return forward(**inputs)


def _blocks(bench: Workbench, model: nn.Module) -> list[nn.Module]:
    """The backbone's blocks where they stand in the model that is trained."""
    names = bench.backbone.layers.blocks
    modules = dict(model.named_modules())
    found = []
    for block in names:
        ends = [n for n in modules if n == block or n.endswith(f".{block}")]
        # Blocks that are trained as a copy stand behind the old ones, in PEFT's wrapper.
        copies = [n for n in modules if f".{block}.modules_to_save." in f".{n}"
                  and n.rpartition(".")[2] == "default"]  # fmt: skip
        found.append(modules[(copies or ends)[0]])
    return found


@contextmanager
def _between_blocks(live: LiveStorages, blocks: list[nn.Module]) -> Iterator[None]:
    """Begin a segment with each block, forwards and backwards."""

    def enter(number: int) -> None:
        if live.phase == "forward":  # not when it is run again in the backward pass
            live.timeline.begin(f"forward {number}")

    def leave(number: int, output: Any) -> None:
        if live.phase != "forward":
            return
        if number == len(blocks) - 1:
            live.timeline.begin("forward out")
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(lambda _: live.timeline.begin(f"backward {number}"))

    handles = []
    for number, block in enumerate(blocks):
        handles += [
            block.register_forward_pre_hook(lambda _, __, n=number: enter(n)),
            block.register_forward_hook(lambda _, __, output, n=number: leave(n, output)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
