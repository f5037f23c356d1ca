r"""A module with bottleneck adapters on its output.

With h = F(x) the output of the wrapped module and A(z) = W_up f(W_down z + b_down) + b_up,

    sequential (Houlsby, Pfeiffer):  y = h + s A(h)
    parallel:                        y = h + s A(x)

where, if the adapter is fed from elsewhere, x is the input of another module that runs before this
one in the same layer. Several active adapters add up, each reading the same h or x.

Shapes: x `(..., d)`, h and y `(..., d')`, W_down `(m, d)`, W_up `(d', m)`; sequential: d = d'.

References: Houlsby et al. 2019 (arXiv 1902.00751) section 2.1 and its code
google-research/adapter-bert; Pfeiffer et al. 2020 (AdapterFusion, arXiv 2005.00247; MAD-X, arXiv
2005.00052); He et al. 2022 (arXiv 2110.04366) section 4 and its code.

Departures:
- Houlsby also trains the LayerNorms: here only with `modules_to_save=["LayerNorm"]`. It starts both
  matrices near zero; here W_up starts at zero exactly, so that the start is the bare model.
- Pfeiffer's adapter (`SeqBnConfig` of the adapters library) acts after the MLP's residual addition
  and LayerNorm, adds the sum from before that LayerNorm, and applies the LayerNorm again. Here h is
  the output of the MLP's last projection, before both, as in Houlsby.
- Where the wrapped module is a projection, its backbone's dropout comes after the adapter (BERT,
  GPT-2, DistilBERT's MLP); in the papers' code before it. Equal at evaluation.
- Parallel: on the MLP only. The prefix part that makes He et al.'s MAM adapter is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from peftkit._peft import TunerLayer
from peftkit.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from .config import BottleneckConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}

CANNOT_MERGE = (
    "A bottleneck adapter cannot be merged: its non-linearity does not fold into a matrix. "
    "Next: keep it attached, or take it off with unload()."
)


class _Form(NamedTuple):
    """What one adapter computes, beside its weights."""

    reads: Literal["output", "input", "feed"]
    activation: Callable[[Tensor], Tensor]
    dropout: float
    scaling: float


class BottleneckLayer(TunerLayer):
    """A wrapped module and its bottleneck adapters; the equations are the module's."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_forms",)
    cast_input_dtype_enabled = True  # PEFT looks it up at each call, and faster in the class

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_forms: dict[str, _Form] = {}
        self._feed: tuple[nn.Module, RemovableHandle] | None = None
        self._fed: list[Tensor] = []

    def update_layer(
        self,
        adapter_name: str,
        config: BottleneckConfig,
        d_in: int,
        d_out: int,
        *,
        feed: nn.Module | None = None,
    ) -> None:
        """Add an adapter; draws on torch's seed.

        Args:
            adapter_name: Its name.
            config: What it computes.
            d_in: How many numbers it reads at each position.
            d_out: How many it writes.
            feed: The module whose input a parallel adapter reads, if not this one.
        """
        if feed is not None:
            self._feed_from(feed)
        size = config.size(d_out)
        down, up = nn.Linear(d_in, size), nn.Linear(size, d_out)
        if config.init_weights:
            nn.init.zeros_(down.bias)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        assert config.non_linearity is not None
        assert config.scaling is not None
        self.bottleneck_forms[adapter_name] = _Form(
            "feed" if feed is not None else "input" if config.variant == "parallel" else "output",
            ACTIVATIONS[config.non_linearity],
            config.dropout,
            config.scaling,
        )

    def _feed_from(self, module: nn.Module) -> None:
        if self._feed is None:
            self._feed = module, module.register_forward_pre_hook(self._take)
        elif self._feed[0] is not module:
            raise InvalidInput(
                "two adapters on one module read the inputs of different modules",
                allowed="one input module per target",
            )

    def stop_feeding(self) -> None:
        """Leave no trace on the module that feeds this one."""
        if self._feed is not None:
            self._feed[1].remove()
            self._feed = None

    def _take(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not self._disable_adapters:
            self._fed[:] = args[:1]

    def _pop_fed(self) -> Tensor:
        if not self._fed:
            raise InvalidInput(
                "the module that feeds a parallel adapter was not run before the adapter's target",
                allowed="an input module run earlier in the same layer, on a positional argument",
            )
        return self._fed.pop()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return y of the module's equations; x is `(..., d)`."""
        output: Tensor = self.base_layer(x, *args, **kwargs)
        if self._disable_adapters:
            return output
        sources = {"output": output, "input": x}
        if self._feed is not None:
            sources["feed"] = self._pop_fed()
        result = output
        for name in self.active_adapters:
            if name in self.bottleneck_forms:
                form = self.bottleneck_forms[name]
                down: Any = self.bottleneck_down[name]
                z = self._cast_input_dtype(sources[form.reads], down.weight.dtype)
                z = form.activation(down(z))
                if form.dropout and self.training:
                    z = functional.dropout(z, form.dropout)
                result = torch.add(result, self.bottleneck_up[name](z), alpha=form.scaling)
        return result.to(output.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: there is a non-linearity between the two matrices.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported(CANNOT_MERGE)

    def unmerge(self) -> None:
        """Do nothing: an adapter of this kind is never merged."""
