"""What CUDA's kernels do otherwise than a CPU's, as far as memory sees it, imitated on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

# Of torch's list of operations that autocast computes in float32 on CUDA, those that transformers
# uses on half-precision inputs, and that the CPU's list lacks (aten/src/ATen/autocast_mode.h).
_FLOAT32_ON_CUDA = ("layer_norm", "group_norm", "softmax", "rms_norm")


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Attention in one kernel, and in float32 what CUDA's autocast computes so."""
    functional = nn.functional
    with ExitStack() as stack:
        stack.enter_context(patch.object(functional, "scaled_dot_product_attention", _attention))
        for name in _FLOAT32_ON_CUDA:
            stack.enter_context(patch.object(functional, name, _widened(getattr(functional, name))))
        stack.enter_context(patch.object(torch, "pow", _widened(torch.pow)))  # of GPT-2's GELU
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
