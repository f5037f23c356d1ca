"""LoRA: a low-rank update beside each linear layer, `W x + (alpha / rank) B A x`.

A is `(rank, in)`, random; B is `(out, rank)`, zero at the start. Trained parameters:
`rank * (in + out)` a layer. Folds into W without residue, in exact arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.bounds import Ge, Gt, Lt
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import resolve_targets, wrap


@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """Low-rank updates of linear layers, through PEFT."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685, section 4.1"
    learning_rate: ClassVar[float | None] = 1e-3
    learning_rate_source: ClassVar[str] = "about 10x full fine-tuning (LoRA Without Regret, 2025)"
    mergeable: ClassVar[bool] = True

    rank: Annotated[int, Ge(1)] = 8
    """Rank of the update; 8 is the paper's on GLUE."""
    alpha: Annotated[float, Gt(0)] = 16.0
    """Scale: the update is multiplied by alpha / rank; twice the rank, as in Biderman et al."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the inputs of A zeroed in training."""
    targets: tuple[str, ...] = ("all",)
    """Layers to adapt: "all" linear layers of the blocks (QLoRA, section 4: needed to match full
    fine-tuning), roles such as query and mlp_output, or ends of module names."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        alpha = int(self.alpha) if float(self.alpha).is_integer() else self.alpha
        targets = resolve_targets(backbone, self.targets)
        transposed = {isinstance(backbone.model.get_submodule(n), Conv1D) for n in targets}
        config = LoraConfig(
            r=self.rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT only divides by it
            lora_dropout=self.dropout,
            target_modules=targets,
            fan_in_fan_out=transposed == {True},  # GPT-2 keeps its weights as (in, out)
        )
        return wrap(backbone, config)
