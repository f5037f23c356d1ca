"""A module with a trained change to its bias: y = F(x) + delta, delta starting at zero.

F(x) = g(x) + b with b frozen, so y = g(x) + (b + delta). Training delta is training b: the
gradients are the same, dL/d delta = dL/db; an optimizer that sees only gradients (SGD, Adam) takes
the same steps from delta = 0 as from b; so b + delta moves as b would, up to rounding. With weight
decay they differ: decay pulls delta to zero, that is b to its pretrained value instead of to zero.
(The parameters' names contain `bias`, which `transformers.Trainer` exempts from decay.) A change
beside b instead of b itself leaves the backbone untouched: one backbone serves many adapters.

Shapes: x `(..., d)`, y `(..., d')`, b and delta `(d',)`; in a convolution or batch norm d' is the
second axis.

Reference: Ben Zaken et al. 2022 (arXiv 2106.10199) section 3. Departure: their code leaves out the
bias of the embeddings' LayerNorm; here all biases of the backbone are trained, as the text says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from peftkit._peft import TunerLayer
from peftkit.errors import InvalidInput


def _conv1d(base: Any, x: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x.reshape(-1, x.size(-1)), base.weight).view(*x.shape[:-1], base.nf)


# Adding delta to d' numbers instead of to all of y saves a pass over the activations.
_WITH_BIAS: dict[type, Callable[[Any, Tensor, Tensor], Tensor]] = {
    nn.Linear: lambda base, x, bias: functional.linear(x, base.weight, bias),
    nn.LayerNorm: lambda base, x, bias: functional.layer_norm(
        x, base.normalized_shape, base.weight, bias, base.eps
    ),
    Conv1D: _conv1d,
}
_CHANNELS_SECOND = (nn.modules.conv._ConvNd, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


class BitFitLayer(TunerLayer):
    """A wrapped module and the changes to its bias; the equation is the module's."""

    adapter_layer_names = ("bitfit_bias",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.bitfit_bias = nn.ParameterDict()
        self._pretrained_bias: Tensor | None = None

    def update_layer(self, adapter_name: str) -> None:
        """Add an adapter; no randomness."""
        shape = _bias_of(self).shape
        self.bitfit_bias[adapter_name] = nn.Parameter(torch.zeros(shape))

    @property
    def bias(self) -> Tensor:
        """The bias in force, for code that computes with it instead of calling the module."""
        bias = _bias_of(self)
        delta = self._delta()
        return bias if delta is None else (bias + delta).to(bias.dtype)

    def _delta(self) -> Tensor | None:
        """Return what the active adapters add up to; None where the module is to be left alone."""
        if self._disable_adapters or self.merged_adapters:
            return None
        delta = None
        for name in self.active_adapters:
            if name in self.bitfit_bias:
                change = self.bitfit_bias[name]
                delta = change if delta is None else delta + change
        return delta

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return y of the module's equation; x is `(..., d)`."""
        base: Any = self.base_layer
        if self._disable_adapters and self.merged_adapters:
            self.unmerge()
        delta = self._delta()
        if delta is None:
            return base(x, *args, **kwargs)  # type: ignore[no-any-return]
        with_bias = _WITH_BIAS.get(type(base))
        if with_bias is not None and not _is_watched(base):
            return with_bias(base, x, (base.bias + delta).to(base.bias.dtype))
        y: Tensor = base(x, *args, **kwargs)
        if isinstance(base, _CHANNELS_SECOND):
            delta = delta.view(-1, *[1] * (y.dim() - 2))
        return (y + delta).to(y.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the changes to the bias itself.

        Args:
            safe_merge: Check first that the sum is finite.
            adapter_names: Which; None: the active ones.

        Raises:
            InvalidInput: With `safe_merge`: the sum is not finite. This bias is left as it was.
        """
        bias = _bias_of(self)
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.bitfit_bias:
                continue
            total = (bias.data + self.bitfit_bias[name].data).to(bias.dtype)
            if safe_merge and not torch.isfinite(total).all():
                raise InvalidInput(
                    f"merging adapter {name!r} gives biases that are not finite",
                    next_step="unmerge the model and look for a diverged training run",
                )
            if self._pretrained_bias is None:
                self._pretrained_bias = bias.data
            bias.data = total
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Put back the bias as it was before merging, bit by bit."""
        if self._pretrained_bias is not None:
            bias = _bias_of(self)
            bias.data = self._pretrained_bias.to(bias.device, bias.dtype)
        self._pretrained_bias = None
        self.merged_adapters.clear()


def _bias_of(layer: BitFitLayer) -> Tensor:
    bias: Tensor = layer.get_base_layer().bias  # type: ignore[assignment]
    return bias


def _is_watched(module: nn.Module) -> bool:
    """Say whether a call of `module` does more than its class says: hooks, a replaced forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
