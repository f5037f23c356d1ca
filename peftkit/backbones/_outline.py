"""Stand-ins for the packed layers of bitsandbytes: their shapes and memory, no values.

Fake tensors cannot pass through bitsandbytes' own layers. These keep tensors of the same sizes, and
allocate in a forward and a backward pass what those of bitsandbytes 0.50 allocate, read from its
`autograd/_functions.py` and `backends`. What they yield means nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from peftkit.settings import Backbone

BLOCK = 64  # weights of 4 bits that share a scale
OUTER_BLOCK = 256  # scales that share one of their own, where they are quantised too


class PackedOutline(nn.Linear):
    """A linear layer whose weights would be kept in 8 or 4 bits.

    Attributes:
        four_bit: Whether in 4.
        compute_dtype: What a layer of 4 bits computes in.
        imitates: Which device's kernels: those of CUDA take more within themselves.
    """

    def __init__(self, linear: nn.Module, backbone: Backbone) -> None:
        weight: Any = linear.weight
        bias: Any = linear.bias
        rows, columns = weight.shape
        if not isinstance(linear, nn.Linear):  # GPT-2 keeps its weights transposed
            rows, columns = columns, rows
        with torch.device("meta"):
            super().__init__(columns, rows, bias=bias is not None, dtype=weight.dtype)
        self.four_bit = backbone.quantization != "int8"
        dtype = backbone.dtype if backbone.compute_dtype == "auto" else backbone.compute_dtype
        self.compute_dtype = getattr(torch, dtype)
        self.unpacked_dtype = weight.dtype
        self.imitates: Literal["cpu", "cuda"] = "cpu"
        count = rows * columns
        shape = ((count + 1) // 2, 1) if self.four_bit else (rows, columns)
        kind = torch.uint8 if self.four_bit else torch.int8
        packed = torch.empty(shape, dtype=kind, device="meta")
        self.weight = nn.Parameter(packed, requires_grad=False)
        for name, (length, own) in self._scales(count, backbone).items():
            self.register_buffer(name, torch.empty(length, dtype=own, device="meta"))

    def _scales(self, count: int, backbone: Backbone) -> dict[str, tuple[int, torch.dtype]]:
        if not self.four_bit:
            return {"scale": (self.out_features, torch.float32)}
        blocks = -(-count // BLOCK)
        if not backbone.double_quantization:
            return {"scale": (blocks, torch.float32), "scale_code": (16, torch.float32)}
        return {
            "scale": (blocks, torch.uint8),
            "scale_code": (16, torch.float32),
            "scale_outer": (-(-blocks // OUTER_BLOCK), torch.float32),
            "scale_outer_code": (256, torch.float32),
            "scale_offset": (1, torch.float32),
        }

    def scales(self) -> list[torch.Tensor]:
        """What is kept beside the packed weights."""
        return [buffer for name, buffer in self.named_buffers() if name.startswith("scale")]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor
        if self.four_bit:
            output = _Pass.apply(x.to(self.compute_dtype), self)
            return output.to(x.dtype)
        output = _Pass.apply(x, self)  # in 8 bits of autocast's format, on a CPU
        return output


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: PackedOutline) -> torch.Tensor:
        ctx.layer, ctx.dtype, ctx.shape = layer, x.dtype, x.shape
        ctx.kept = None if layer.four_bit else x  # 8 bits keep the input, though nothing needs it
        shape = (*x.shape[:-1], layer.out_features)
        if layer.four_bit:
            unpacked = _unpacked(layer, x, x.dtype)
            output = x.new_empty(shape)
            del unpacked
        elif layer.imitates == "cuda":
            rounded = x.to(torch.float16)
            packed = torch.empty_like(rounded, dtype=torch.int8)
            del rounded
            sums = x.new_empty(shape, dtype=torch.int32)
            output = x.new_empty(shape)
            del packed, sums
        else:  # a layer of torch, which autocast has a say in
            unpacked = _unpacked(layer, x, x.dtype)
            output = nn.functional.linear(x, unpacked, layer.bias)
            del unpacked
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        layer = ctx.layer
        if not ctx.needs_input_grad[0]:
            return None, None
        if layer.four_bit:
            weight = _unpacked(layer, gradient, layer.unpacked_dtype).to(gradient.dtype)
        else:
            gradient = gradient.reshape(-1, gradient.shape[-1]).contiguous().to(ctx.dtype)
            weight = _unpacked(layer, gradient, ctx.dtype)
        return torch.matmul(gradient, weight).view(ctx.shape), None


def _unpacked(layer: PackedOutline, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights in full, `(out, in)`, and what their scales take meanwhile."""
    if layer.four_bit and layer.scales()[0].dtype == torch.uint8:
        scales = like.new_empty(layer.scales()[0].shape, dtype=torch.float32)
        _ = scales + 0  # the offset is added to a copy
    if not layer.four_bit:
        return layer.weight.to(dtype, copy=True)
    return like.new_empty((layer.out_features, layer.in_features), dtype=dtype)


def outline_packed(model: nn.Module, backbone: Backbone, names: tuple[str, ...]) -> None:
    """Put outlines in the place of the layers that would be packed, in place.

    Args:
        model: Without weights.
        backbone: The recipe's part.
        names: The linear layers of its blocks.
    """
    for name in names:
        parent, _, last = name.rpartition(".")
        layer = PackedOutline(model.get_submodule(name), backbone)
        setattr(model.get_submodule(parent), last, layer)
