"""LayerNorm tuning: only the gains (and biases) of the normalisation layers are trained.

Trained parameters: `2 * hidden` a LayerNorm, `hidden` an RMSNorm. Folds into the backbone exactly:
the trained layer takes the place of the old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.errors import Unsupported
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import wrap


@dataclass(frozen=True, kw_only=True)
class LayerNormTuning(Method):
    """Train the normalisation layers of the backbone, through PEFT."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "Zhao et al. 2023, arXiv:2312.11420; Qi et al. 2022 (LN-tuning)"
    learning_rate: ClassVar[float | None] = 3e-3
    learning_rate_source: ClassVar[str] = "as BitFit, whose tensors are alike; benchmarks/NOTES.md"
    mergeable: ClassVar[bool] = True

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peft import LNTuningConfig

        norms = backbone.layers.norms
        if not norms:
            raise Unsupported(
                f"{type(backbone.model).__name__} has no normalisation layer with a weight"
            )
        return wrap(backbone, LNTuningConfig(target_modules=list(norms)))
