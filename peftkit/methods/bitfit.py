"""BitFit: only the biases are trained (and the head)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import wrap


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """Train the bias terms of the backbone; folds into them exactly."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "Ben Zaken et al. 2022, arXiv:2106.10199"
    learning_rate: ClassVar[float | None] = 3e-3
    learning_rate_source: ClassVar[str] = "the paper searches 1e-4 to 1e-3; see benchmarks/NOTES.md"
    mergeable: ClassVar[bool] = True
    works_offloaded: ClassVar[bool] = False  # it reads biases outside their layers

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peftkit.bitfit import BitFitConfig

        return wrap(backbone, BitFitConfig())
