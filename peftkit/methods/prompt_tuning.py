"""Prompt tuning: trained vectors in front of the embedded text, the backbone frozen.

Trained parameters: `num_tokens * hidden`. Virtual tokens count against the longest text that the
backbone can read, so texts are cut that much shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from peftkit.backbones import LoadedBackbone
from peftkit.bounds import Ge
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import prompt_options, wrap


@dataclass(frozen=True, kw_only=True)
class PromptTuning(Method):
    """Trained virtual tokens, through PEFT."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "Lester et al. 2021, arXiv:2104.08691, section 2"
    learning_rate: ClassVar[float | None] = 3e-2
    learning_rate_source: ClassVar[str] = "Lester et al.: 0.3, Adafactor; see benchmarks/NOTES.md"
    identity_at_start: ClassVar[bool] = False

    num_tokens: Annotated[int, Ge(1)] = 10
    """Virtual tokens; the paper finds little gain beyond 20."""
    init: Literal["vocabulary", "random"] = "vocabulary"
    """Start from embeddings of tokens drawn from the vocabulary (better in Lester et al., section
    3.2, and in PEFT's suite) or from random vectors."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peft import PromptTuningConfig

        config = PromptTuningConfig(
            prompt_tuning_init="SAMPLE_VOCAB" if self.init == "vocabulary" else "RANDOM",
            **prompt_options(backbone, self.num_tokens),
        )
        return wrap(backbone, config)
