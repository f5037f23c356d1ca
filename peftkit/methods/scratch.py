"""From scratch: the same architecture, every weight random, so nothing was learned before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.methods._method import Method, Rung


@dataclass(frozen=True, kw_only=True)
class Scratch(Method):
    """Train everything from random weights: what pretraining is worth is the gap to `full`."""

    rung: ClassVar[Rung] = "retrain"
    reference: ClassVar[str] = "the lower anchor of the ladder"
    learning_rate: ClassVar[float | None] = 5e-4
    learning_rate_source: ClassVar[str] = "see benchmarks/NOTES.md; BERT pretraining: 1e-4"
    from_pretrained: ClassVar[bool] = False
    works_on_quantised: ClassVar[bool] = False
    works_offloaded: ClassVar[bool] = False

    def attach(self, backbone: LoadedBackbone) -> Any:
        import torch

        return backbone.model.to(torch.float32).requires_grad_(True)
