"""The true update of a weight matrix, in the one form that every variant of LoRA has.

    Delta = diag(stretch) W + up @ down

LoRA and rsLoRA: no stretch, `up = scale B`, `down = A`. DoRA replaces W by
`diag(g) (W + scale B A)` with `g = length / |W + scale B A|` taken row by row (Liu et al. 2024,
arXiv:2402.09353, equation 5), so `stretch = g - 1` and `up = diag(g) scale B`. Weighted sums of
this form have this form again: stretches add up, and factors stand beside one another. So sums of
DoRA's updates are kept without their full matrix, which is not of low rank.

Shapes: W and Delta `(out, in)`, up `(out, rank)`, down `(rank, in)`, stretch and bias `(out,)`.
Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.combining.reading import Adapter, Factors
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Update:
    """What is added to a weight matrix and to the bias beside it.

    Attributes:
        up: Left factor.
        down: Right factor.
        stretch: By how much each row of W is stretched; None: by nothing.
        bias: What is added to the bias; None: nothing.
    """

    up: Tensor
    down: Tensor
    stretch: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Of the product of the factors."""
        return int(self.down.shape[0])

    def dense(self, weight: Tensor | None) -> Tensor:
        """The update as one matrix; `weight` is W, needed only where it is stretched."""
        product = self.up @ self.down
        if self.stretch is None:
            return product
        assert weight is not None
        return product + self.stretch[:, None] * weight


def update_of(factors: Factors, weight: Tensor | None) -> Update:
    """The update that an adapter makes to one layer.

    Args:
        factors: What the adapter holds for it.
        weight: W in float64; needed for DoRA only.
    """
    up, down = factors.scale * factors.b.double(), factors.a.double()
    bias = None if factors.bias is None else factors.scale * factors.bias.double()
    if factors.length is None:
        return Update(up=up, down=down, bias=bias)
    assert weight is not None
    stretched = factors.length.double() / (weight + up @ down).norm(dim=1)
    return Update(up=stretched[:, None] * up, down=down, stretch=stretched - 1, bias=bias)


def weighted_sum(updates: Sequence[Update], weights: Sequence[float]) -> Update:
    """The sum of `weights[i] * updates[i]`, its factors those of all beside one another."""
    import torch

    def total(parts: list[Tensor | None]) -> Tensor | None:
        found = [w * part for w, part in zip(weights, parts, strict=True) if part is not None]
        return torch.stack(found).sum(dim=0) if found else None

    scaled = [w * update.up for w, update in zip(weights, updates, strict=True)]
    return Update(
        up=torch.cat(scaled, dim=1),
        down=torch.cat([update.down for update in updates]),
        stretch=total([update.stretch for update in updates]),
        bias=total([update.bias for update in updates]),
    )


def check_shapes(adapters: Sequence[Adapter], model: Any) -> list[str]:
    """Names of the layers that any adapter changes, in the order of the model.

    Args:
        adapters: To be combined.
        model: Their backbone with a head; on torch's meta device will do.

    Raises:
        InvalidInput: A layer does not exist in the model, is not linear, or has another shape.
    """
    modules = dict(model.named_modules())
    for adapter in adapters:
        for name, factors in adapter.layers.items():
            found = _shape(modules.get(name))
            asked = (factors.b.shape[0], factors.a.shape[1])
            if found != asked:
                raise InvalidInput(
                    f"the adapter in {adapter.folder} does not fit the backbone at {name}",
                    received=f"an update of shape {asked}",
                    allowed=f"shape {found}" if found else "linear layers that it has",
                    next_step="combine adapters of one backbone",
                )
    targets = {name for adapter in adapters for name in adapter.layers}
    return [name for name in modules if name in targets]


def _shape(module: Any) -> tuple[int, int] | None:
    """(out, in) of a linear layer, None of anything else."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    return (module.out_features, module.in_features) if isinstance(module, nn.Linear) else None


def weight_of(model: Any, name: str) -> Tensor:
    """W of a layer in float64, `(out, in)`; packed ones as they compute."""
    from peft.utils.integrations import dequantize_module_weight
    from transformers.pytorch_utils import Conv1D

    module = model.get_submodule(name)
    weight: Tensor = dequantize_module_weight(module).detach().cpu().double()
    return weight.T if isinstance(module, Conv1D) else weight
