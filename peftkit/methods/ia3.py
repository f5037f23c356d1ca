"""IA3: learned vectors that scale keys, values, and the inputs of each MLP's output projection.

With l the vector of a layer, all ones at the start: keys and values become `l * (W x + b)`, the
MLP's output `W (l * x) + b`. Trained parameters: `out` for each key and value projection, `in` for
each MLP output. Folds into W (and b) without residue, in exact arithmetic. Where one module holds
query, key and value together (GPT-2), it is scaled as a whole, queries too, as PEFT does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import resolve_targets, stored_transposed, wrap


@dataclass(frozen=True, kw_only=True)
class IA3(Method):
    """Learned scales of keys, values and MLP inputs, through PEFT."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "Liu et al. 2022, arXiv:2205.05638, section 3.3"
    learning_rate: ClassVar[float | None] = 1e-2
    learning_rate_source: ClassVar[str] = "the paper: 3e-3, Adafactor; see benchmarks/NOTES.md"
    mergeable: ClassVar[bool] = True

    targets: tuple[str, ...] = ("key", "value", "mlp_output")
    """Layers to scale, roles or ends of module names; an `mlp_output` is scaled at its input, every
    other layer at its output."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peft import IA3Config

        targets = resolve_targets(backbone, self.targets)
        inputs = set(backbone.layers.roles["mlp_output"])
        config = IA3Config(
            target_modules=targets,
            feedforward_modules=[name for name in targets if name in inputs],
            fan_in_fan_out=stored_transposed(backbone, targets),
        )
        return wrap(backbone, config)
