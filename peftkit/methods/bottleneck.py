"""Bottleneck adapters: a small two-layer network after (or beside) each sublayer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from peftkit.backbones import LoadedBackbone, Role
from peftkit.bounds import Ge, Lt
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import require_roles, wrap


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Method):
    """Two-layer networks between the backbone's layers, through a PEFT tuner of our own.

    Trained parameters: `2 L (2 d m + m + d)` for Houlsby, half of it for Pfeiffer and parallel,
    with L blocks of width d and m = d / reduction_factor. Cannot be folded into the backbone.
    """

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = (
        "Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00247; "
        "parallel: He et al. 2022, arXiv:2110.04366"
    )
    learning_rate: ClassVar[float | None] = 1e-3
    learning_rate_source: ClassVar[str] = "Houlsby et al. search 3e-5 to 3e-3; AdapterHub uses 1e-4"

    variant: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    """After attention and MLP (houlsby), after the MLP (pfeiffer), or beside the MLP (parallel)."""
    reduction_factor: Annotated[int, Ge(1)] = 16
    """Width of the backbone over width of the bottleneck; 16 is AdapterHub's."""
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    """Between the two layers."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of what the non-linearity puts out that is zeroed in training."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peftkit.bottleneck import BottleneckConfig
        from peftkit.bottleneck.config import PLACES

        require_roles(backbone, ("attention_output", "mlp_input", "mlp_output"), "bottleneck")
        layers, houlsby = backbone.layers, self.variant == "houlsby"
        places: dict[str, Any] = {}
        if backbone.model.config.model_type not in PLACES:
            sublayers: tuple[Role, ...] = ("attention_output",) if houlsby else ()
            places["target_modules"] = list(layers.linear((*sublayers, "mlp_output")))
            if self.variant == "parallel":
                places["input_modules"] = list(layers.linear(("mlp_input",)))
        config = BottleneckConfig(
            **places,
            variant=self.variant,
            reduction_factor=self.reduction_factor,
            non_linearity=self.non_linearity,
            dropout=self.dropout,
        )
        return wrap(backbone, config)
