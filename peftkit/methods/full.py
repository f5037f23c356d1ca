"""Full fine-tuning: every parameter is trained, from the pretrained weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from peftkit.backbones import LoadedBackbone
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """Train everything."""

    rung: ClassVar[Rung] = "full"
    reference: ClassVar[str] = "Devlin et al. 2019, arXiv:1810.04805, section 4"
    learning_rate: ClassVar[float | None] = 1e-4
    learning_rate_source: ClassVar[str] = "see benchmarks/NOTES.md; BERT: 2e-5 to 5e-5 at base size"
    works_on_quantised: ClassVar[bool] = False
    works_offloaded: ClassVar[bool] = False

    master_weights: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights that the optimizer updates. In pure bfloat16 many updates
    round away; PEFT's own comparison trains its full baseline so, which is not like for like."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        import torch

        dtype = getattr(torch, self.master_weights)
        for parameter in backbone.model.parameters():  # `model.to` would round buffers for good,
            parameter.data = parameter.data.to(dtype)  # such as Llama's rotary frequencies
        return backbone.model.requires_grad_(True)
