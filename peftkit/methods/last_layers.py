"""Last layers: the last k blocks are trained, and the normalisation after them; the rest is frozen.

Saved as an adapter folder that stock PEFT loads: the trained blocks stand beside the old ones, so a
run holds those k blocks twice in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.bounds import Ge
from peftkit.errors import InvalidInput, Unsupported
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import quiet


@dataclass(frozen=True, kw_only=True)
class LastLayers(Method):
    """Train the last blocks of the backbone."""

    rung: ClassVar[Rung] = "partial"
    reference: ClassVar[str] = "Lee et al. 2019, arXiv:1911.03090"
    learning_rate: ClassVar[float | None] = 3e-4
    learning_rate_source: ClassVar[str] = "between full and LoRA; see benchmarks/NOTES.md"
    mergeable: ClassVar[bool] = True
    works_on_quantised: ClassVar[bool] = False
    works_offloaded: ClassVar[bool] = False

    num_layers: Annotated[int, Ge(1)] = 2
    """Blocks trained, counted from the last; a quarter of them suffices in the paper."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peft import LNTuningConfig, get_peft_model

        layers = backbone.layers
        if not layers.blocks:
            raise Unsupported(f"no blocks were found in {type(backbone.model).__name__}")
        if backbone.model.config.get_text_config().num_hidden_layers > len(layers.blocks):
            raise Unsupported(
                f"the layers of {type(backbone.model).__name__} share their weights, so no last "
                "ones can be trained alone. Next: choose full, or an adapter."
            )
        if self.num_layers > len(layers.blocks):
            raise InvalidInput(
                f"{backbone.location.name!r} has fewer blocks than are to be trained",
                received=f"--method.num-layers {self.num_layers}",
                allowed=f"1 to {len(layers.blocks)}",
                next_step="lower it, or use --method full",
            )
        # PEFT has no method for this; its LayerNorm tuning trains a copy of whatever it is given.
        chosen = [*layers.blocks[-self.num_layers :], *layers.final_norms]
        config = LNTuningConfig(
            target_modules=list(layers.head) or chosen,
            modules_to_save=chosen if layers.head else None,
        )
        with quiet():
            return get_peft_model(backbone.model, config)
