"""LoRA: a low-rank update beside each linear layer, `W x + (alpha / rank) B A x`.

A is `(rank, in)`, random; B is `(out, rank)`, zero at the start. Trained parameters:
`rank * (in + out)` a layer. Folds into W without residue, in exact arithmetic.

Variants, each an option: rsLoRA divides alpha by sqrt(rank); DoRA trains the length of each row of
W apart (`out` parameters more a layer); LoRA+ gives B a higher learning rate; PiSSA and OLoRA start
from the principal parts of W. These two move W itself while they train. What is kept afterwards is
the same function as a plain LoRA of twice the rank, `[B, -B0] [A; A0]`, on the untouched W.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from peftkit.backbones import LoadedBackbone
from peftkit.bounds import Ge, Gt, Lt
from peftkit.errors import InvalidInput, Unsupported
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import resolve_targets, stored_transposed, wrap
from peftkit.predictors import ModelPredictor

if TYPE_CHECKING:
    from peftkit.predictors import Predictor
    from peftkit.workbench import Workbench


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
    rslora: bool = False
    """Divide alpha by the square root of the rank (Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Train magnitudes apart from directions (Liu et al. 2024, arXiv:2402.09353)."""
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    """Start of A and B: Kaiming-uniform and zero (default), normal and zero, orthogonal factors
    whose product is zero, or the principal part of W by its SVD (pissa, Meng et al. 2024,
    arXiv:2404.02948) or QR (olora, Buyukakyuz 2024, arXiv:2406.01775)."""
    rank_pattern: dict[str, Annotated[int, Ge(1)]] = field(default_factory=dict)
    """Other ranks for some layers: ends of module names -> rank."""
    alpha_pattern: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    """Other alphas for some layers: ends of module names -> alpha."""
    learning_rate_ratio: Annotated[float, Gt(0)] = 1.0
    """LoRA+: learning rate of B over that of A; the paper finds 16 best on RoBERTa (Hayou et al.
    2024, arXiv:2402.12354, section 4)."""
    targets: tuple[str, ...] = ("all",)
    """Layers to adapt: "all" linear layers of the blocks (QLoRA, section 4: needed to match full
    fine-tuning), roles such as query and mlp_output, or ends of module names."""

    def __post_init__(self) -> None:
        settle(self, "method")
        if self.init == "orthogonal" and (self.rank % 2 or any(r % 2 for r in self._other_ranks())):
            raise InvalidInput(
                "orthogonal factors come in pairs, so the rank must be even",
                received=f"rank {self.rank}, rank_pattern {self.rank_pattern}",
                next_step="choose an even --method.rank",
            )
        if self._moves_weights and (self.rank_pattern or self.alpha_pattern or self.dora):
            raise InvalidInput(
                f"init {self.init} goes with one rank for all layers and without DoRA",
                received=f"rank_pattern {self.rank_pattern}, dora {self.dora}",
                next_step="drop the patterns and DoRA, or choose --method.init default",
            )

    def _other_ranks(self) -> Iterable[int]:
        return self.rank_pattern.values()

    @property
    def _moves_weights(self) -> bool:
        return self.init in ("pissa", "olora")

    def attach(self, backbone: LoadedBackbone) -> Any:
        return wrap(backbone, self._config(backbone))

    def _config(self, backbone: LoadedBackbone, **changes: Any) -> Any:
        from peft import LoraConfig

        self._check_quantized(backbone)
        targets = resolve_targets(backbone, self.targets)
        for option in ("rank_pattern", "alpha_pattern"):
            _require_matches(option, getattr(self, option), targets)
        alpha = int(self.alpha) if float(self.alpha).is_integer() else self.alpha
        options: dict[str, Any] = {
            "r": self.rank,
            "lora_alpha": alpha,  # PEFT only divides by it
            "lora_dropout": self.dropout,
            "target_modules": targets,
            "fan_in_fan_out": stored_transposed(backbone, targets),
            "use_rslora": self.rslora,
            "use_dora": self.dora,
            "init_lora_weights": True if self.init == "default" else self.init,
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": dict(self.alpha_pattern),
        }
        return LoraConfig(**{**options, **changes})

    def _check_quantized(self, backbone: LoadedBackbone) -> None:
        if backbone.waiting and (self._moves_weights or self.dora):
            raise Unsupported(
                "DoRA, and starts that are taken out of the weights, need them at hand. "
                "Next: leave --backbone.offload out, or choose plain LoRA."
            )
        if backbone.quantization == "none":
            return
        if self._moves_weights:
            raise Unsupported(
                f"init {self.init} takes its start out of the weights, and those are kept as "
                f"{backbone.quantization}. Next: choose --method.init default."
            )
        if self.dora and backbone.quantization == "int8" and backbone.model.device.type == "cpu":
            raise Unsupported(
                "DoRA on int8 fails on a CPU, where bitsandbytes packs such weights anew at every "
                "step. Next: choose --backbone.quantization nf4, or leave --method.dora out."
            )

    def rate_factor(self, parameter: str) -> float:
        return self.learning_rate_ratio if ".lora_B." in parameter else 1.0

    def fit(self, bench: Workbench) -> Predictor:
        if not self._moves_weights:
            return super().fit(bench)
        self._check_quantized(bench.backbone)
        names = resolve_targets(bench.backbone, self.targets)
        whole = bench.backbone.model
        smallest = min(names, key=lambda n: min(whole.get_submodule(n).weight.shape))
        if self.rank > (most := min(whole.get_submodule(smallest).weight.shape)):
            raise InvalidInput(
                f"init {self.init} takes as many directions out of each weight as the rank says",
                received=f"rank {self.rank}, and {smallest} has {most}",
                allowed=f"a rank up to {most}",
                next_step="lower --method.rank, or leave such layers out of --method.targets",
            )
        untouched = {n: whole.get_submodule(n).weight.detach().clone() for n in names}
        model = bench.attach(self)
        start = {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_" in n}
        counted = bench.parameters(model)
        bench.train(model)
        plain = self._as_plain(bench, model, start, untouched)
        return ModelPredictor(model=plain, bench=bench, parameters=counted)

    def _as_plain(self, bench: Workbench, model: Any, start: Any, untouched: Any) -> Any:
        """The same function as a LoRA of twice the rank on the weights as they were."""
        import torch
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        with torch.no_grad():
            trained = get_peft_model_state_dict(model, save_embedding_layers=False)
            for name in [n for n in trained if ".lora_A." in n or ".lora_B." in n]:
                first = start[name.replace(".weight", ".default.weight")]
                if ".lora_A." in name:
                    trained[name] = torch.cat([trained[name], first], dim=0)
                else:
                    trained[name] = torch.cat([trained[name], -first], dim=1)
            base = model.unload()
            for name, weight in untouched.items():
                base.get_submodule(name).weight.copy_(weight)
        scale = 2**0.5 if self.rslora else 2  # so that alpha over the doubled rank stays the same
        config = self._config(
            bench.backbone, r=2 * self.rank, lora_alpha=self.alpha * scale, init_lora_weights=True
        )
        plain = wrap(bench.backbone, config)
        set_peft_model_state_dict(plain, trained)
        return plain.eval()


def _require_matches(option: str, pattern: Mapping[str, float], targets: Sequence[str]) -> None:
    """Raise `InvalidInput` if an end of names that a pattern holds is that of no target.

    PEFT reads such an end as a regular expression, and takes one that matches nothing for no word.
    """
    for end in pattern:
        if not any(re.fullmatch(rf"(?:.*\.)?(?:{end})", name) for name in targets):
            raise InvalidInput(
                f"{option} names a layer that is not adapted",
                received=end,
                allowed=", ".join(sorted({name.rpartition(".")[2] for name in targets})),
                next_step="write the end of a module's name, such as attention.self.query",
            )
