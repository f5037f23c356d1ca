"""A training step without tensors: what it would put into memory, and when.

The backbone is built on torch's meta device, the method attached to it there, and one step
(forward, loss, backward) run under fake tensors, which know shapes and nothing else, while all
storages are counted. It is the step that `peftkit.train` takes: the same model, loss, autocast and
checkpointing.

Fake tensors are those of a CPU, whatever device is meant: autograd has no queue for CUDA where
there is none. For CUDA, `_as_on_cuda` imitates what its kernels do otherwise: attention in one
kernel, and the operations that its autocast computes in float32.
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

from peftkit.backbones._outline import PackedOutline
from peftkit.backbones._quantized import num_parameters
from peftkit.device import resolve_precision
from peftkit.memory.counting import LiveStorages
from peftkit.memory.optimizers import state_bytes, step_bytes
from peftkit.memory.timeline import Part, Timeline

if TYPE_CHECKING:
    from peftkit.recipe import Recipe
    from peftkit.workbench import Workbench

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Outlined:
    """A tensor's shape and number format."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, value: Any) -> Any:
        """The outline of a tensor, or of every tensor in a tuple or list."""
        if isinstance(value, torch.Tensor):
            return cls(tuple(value.shape), value.dtype)
        return tuple(cls.of(each) for each in value)

    @classmethod
    def resized(cls, value: Any, batch: int) -> Any:
        """The same with so many examples."""
        if isinstance(value, cls):
            return cls((batch, *value.shape[1:]), value.dtype)
        return tuple(cls.resized(each, batch) for each in value)

    @staticmethod
    def fake(value: Any) -> Any:
        """Make such tensors, under the active mode."""
        if isinstance(value, Outlined):
            return torch.empty(value.shape, dtype=value.dtype)
        return tuple(Outlined.fake(each) for each in value)


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
    precision = resolve_precision(recipe.training.precision)
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        # Whether rows are packed cannot be seen without values; peftkit packs none into one row.
        stack.enter_context(patch.object(masking_utils, "find_packed_sequence_indices", _unpacked))
        _to_fake(model)
        for layer in model.modules():
            if isinstance(layer, PackedOutline):
                layer.imitates = device
        if device == "cuda":
            stack.enter_context(_as_on_cuda())
        model.train()
        if recipe.training.gradient_checkpointing:
            # transformers 5.17 knows it by its older name alone, 5.23 warns of that one.
            newer = getattr(model, "activation_checkpointing_enable", None)
            options = {"use_reentrant": False}
            (newer or model.gradient_checkpointing_enable)(options)
        inputs = {name: Outlined.fake(value) for name, value in batch.items()}
        labels = inputs.pop("labels")
        trained = [p for p in model.parameters() if p.requires_grad]
        live = LiveStorages()
        scales = [s for m in model.modules() if isinstance(m, PackedOutline) for s in m.scales()]
        live.hold(scales, "quantization_state")
        known = {id(scale) for scale in scales}
        live.hold(
            (t for t in (*model.parameters(), *model.buffers()) if id(t) not in known), "weights"
        )
        live.hold([*inputs.values(), *_flat(labels)], "activations")
        optimizer = recipe.training.optimizer
        embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        for parameter in trained:
            for size in _kept(optimizer, parameter, embedding=id(parameter) in embedded):
                live.timeline.enter(size, "optimizer")
        if recipe.training.gradient_accumulation > 1:  # there already, of the batches before
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
            live.hold((p.grad for p in trained), "gradients")
        stack.enter_context(live.naming(model))
        stack.enter_context(live.gradients_of(trained))
        stack.enter_context(_between_blocks(live, blocks))
        stack.enter_context(live)
        live.begin("forward", "forward in")
        output = _run(model, inputs, precision)
        logits = bench.logits(output, inputs)
        live.begin("loss")
        live.hold([logits], "logits")
        loss = recipe.task.loss(logits, labels, bench.data)
        del output, logits  # as at the end of `compute_loss`
        live.begin("backward", "backward out")
        loss.backward()
        del loss
        live.begin("step")
        taken = step_bytes(optimizer, [parameter.shape for parameter in trained])
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


def _flat(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in _flat(v)]


def _to_fake(model: nn.Module) -> None:
    """Put fake tensors of a CPU in the place of those of the meta device; shared ones stay so."""
    made: dict[int, Any] = {}
    kept: list[Any] = []  # so that no id comes twice

    def fake(tensor: Any) -> Any:
        if id(tensor) not in made:
            plain = torch.empty_strided(
                tuple(tensor.size()), tensor.stride(), dtype=tensor.dtype, device="cpu"
            )
            parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = (
                nn.Parameter(plain, requires_grad=tensor.requires_grad) if parameter else plain
            )
            kept.append(tensor)
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)
    # PEFT keeps the numbers of its virtual tokens in no module.
    tokens = getattr(model, "prompt_tokens", {})
    tokens.update({name: fake(tensor) for name, tensor in tokens.items()})


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


# Of torch's list of operations that autocast computes in float32 on CUDA, those that transformers
# uses on half-precision inputs, and that the CPU's list lacks (aten/src/ATen/autocast_mode.h).
_FLOAT32_ON_CUDA = ("layer_norm", "group_norm", "softmax")


@contextmanager
def _as_on_cuda() -> Iterator[None]:
    """Do what CUDA does otherwise than a CPU, as far as memory sees it."""
    functional = nn.functional
    with ExitStack() as stack:
        stack.enter_context(patch.object(functional, "scaled_dot_product_attention", _attention))
        for name in _FLOAT32_ON_CUDA:
            stack.enter_context(patch.object(functional, name, _widened(getattr(functional, name))))
        yield


def _widened(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            values = zip(kwargs, _in_float32(kwargs.values()), strict=True)
            return function(*_in_float32(args), **dict(values))

    return call


def _in_float32(values: Any) -> list[Any]:
    half = (torch.bfloat16, torch.float16)
    return [v.float() if isinstance(v, torch.Tensor) and v.dtype in half else v for v in values]


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention as one kernel, and what that keeps and takes."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    if attn_mask is not None:
        # Memory-efficient attention wants a bias of the queries' format, rows a multiple of 16.
        width = -(-attn_mask.shape[-1] // 16) * 16
        attn_mask = query.new_empty((*attn_mask.shape[:-1], width))
    output: torch.Tensor = _Attention.apply(query, key, value, attn_mask)
    return output


class _Attention(torch.autograd.Function):
    """Flash or memory-efficient attention: inputs, output and one number a row are kept."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any) -> torch.Tensor:
        output = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        query, key, value, _, _, sums = ctx.saved_tensors
        of_sums = torch.empty_like(sums)
        partial = torch.empty_like(query, dtype=torch.float32)  # the queries' gradient adds up here
        # Fewer keys than queries: their gradients are made for every head first.
        many = (*query.shape[:2], *key.shape[2:])
        whole = [query.new_empty(many) for _ in range(2)] if many != key.shape else []
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del of_sums, partial, whole, gradient
        return *gradients, None
