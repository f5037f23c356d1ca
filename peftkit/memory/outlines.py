"""Tensors of which only shape and number format are known, and fake ones made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


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


def flat(value: Any) -> list[torch.Tensor]:
    """All tensors in nested sequences."""
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in flat(v)]


def to_fake(model: nn.Module) -> None:
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
