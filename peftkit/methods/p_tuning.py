"""P-tuning: virtual tokens in front of the text that come out of a small trained network.

Trained parameters: `num_tokens * hidden` embeddings, and an MLP of three layers
`hidden -> width -> width -> hidden`. After training only the vectors that it yields are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.bounds import Ge
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import prompt_options, wrap


@dataclass(frozen=True, kw_only=True)
class PTuning(Method):
    """Virtual tokens out of an MLP, through PEFT."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "Liu et al. 2021, arXiv:2103.10385, section 2"
    learning_rate: ClassVar[float | None] = 3e-3
    learning_rate_source: ClassVar[str] = "see benchmarks/NOTES.md; PEFT's example: 1e-3"
    identity_at_start: ClassVar[bool] = False
    resumable: ClassVar[bool] = False  # PEFT saves the vectors, not the network

    num_tokens: Annotated[int, Ge(1)] = 10
    """Virtual tokens."""
    width: Annotated[int, Ge(1)] = 128
    """Hidden width of the MLP."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peft import PromptEncoderConfig

        config = PromptEncoderConfig(
            encoder_reparameterization_type="MLP",
            encoder_hidden_size=self.width,
            **prompt_options(backbone, self.num_tokens),
        )
        return wrap(backbone, config)
