"""vLLM: the adapter in the form that `vllm serve BASE --enable-lora --lora-modules` accepts.

vLLM computes `W x + scale B A x` with one rank and one scale for all layers, and refuses the rest
(`vllm/lora/peft_helper.py`: biases, trained modules, DoRA, ranks above `--max-lora-rank`); other
ranks and alphas of single layers it does not read at all. So they are refused here, before they
are wrong there. vLLM itself is not run: the files are compared as PEFT loads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported
from peftkit.formats._stock import AdapterFormat, read_config, unlike_plain_lora

if TYPE_CHECKING:
    from peftkit.exporting.adapted import AdaptedRun

# vllm/config/lora.py, MaxLoRARanks: what --max-lora-rank may be.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
FAMILIES = ("llama", "mistral", "qwen", "gemma", "phi")
_MERGE = "Next: peftkit merge RUN, and serve the merged folder."


@dataclass(frozen=True, kw_only=True)
class VLLM(AdapterFormat):
    """The adapter as vLLM takes it: plain LoRA or rsLoRA of a decoder, or the reason why not."""

    def check(self, run: AdaptedRun) -> None:
        super().check(run)
        backbone, config = run.bench.backbone, read_config(run)
        if run.saved.recipe.task.reads != "token" or backbone.layers.encoder_decoder:
            raise Unsupported(
                "vLLM serves adapters of decoders that write; this run has a head of its own, or "
                "an encoder. Next: --format onnx."
            )
        if backbone.layers.family not in FAMILIES:
            raise Unsupported(
                f"vLLM takes no adapters for {backbone.model.config.model_type}, as far as is "
                f"known here ({', '.join(FAMILIES)}). {_MERGE}"
            )
        for reason in _reasons(config):
            raise Unsupported(f"vLLM does not take this adapter: {reason}. {_MERGE}")

    def facts(self, run: AdaptedRun) -> dict[str, Any]:
        rank = read_config(run)["r"]
        return {"max_lora_rank": next(each for each in RANKS if each >= rank)}


def _reasons(config: dict[str, Any]) -> list[str]:
    """Why vLLM would refuse an adapter, or read it wrongly, by its configuration."""
    reasons = unlike_plain_lora(config)
    if not reasons and config["r"] > RANKS[-1]:
        reasons = [f"rank {config['r']} is above {RANKS[-1]}"]
    return reasons
