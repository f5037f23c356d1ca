"""Prefix tuning: trained keys and values in front of every block's own, the backbone frozen.

Trained parameters: `blocks * 2 * num_tokens * key_value_width`. Positions of the text start behind
the prefix, so texts are cut that much shorter. Of an encoder-decoder, only the decoder's attention
to what it has written gets a prefix; Li and Liang also have one in the encoder, PEFT has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from peftkit.backbones import LoadedBackbone
from peftkit.bounds import Ge
from peftkit.errors import Unsupported
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import key_value_heads, num_layers, require_embeddings_as_input, wrap


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(Method):
    """Trained keys and values, through PEFT."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "Li and Liang 2021, arXiv:2101.00190; Liu et al. 2022 (P-tuning v2)"
    learning_rate: ClassVar[float | None] = 1e-2
    learning_rate_source: ClassVar[str] = "P-tuning v2: 5e-3 to 1e-2; see benchmarks/NOTES.md"
    identity_at_start: ClassVar[bool] = False
    # A block that is run again would append the prefix to the cache a second time.
    works_with_checkpointing: ClassVar[bool] = False

    num_tokens: Annotated[int, Ge(1)] = 10
    """Length of the prefix; Li and Liang: 10 for table-to-text, 200 for summaries."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def attach(self, backbone: LoadedBackbone) -> Any:
        from peft import PrefixTuningConfig, TaskType

        _require_cache(backbone)
        heads, width = key_value_heads(backbone)
        decoder = backbone.layers.encoder_decoder
        layers = num_layers(backbone)
        if decoder:
            layers = sum("decoder." in block for block in backbone.layers.blocks)
        config = PrefixTuningConfig(
            task_type=TaskType(backbone.peft_task),
            num_virtual_tokens=self.num_tokens,
            token_dim=heads * width,
            num_attention_heads=heads,
            num_layers=layers,
            # Two of them: PEFT then hands the prefix to the decoder's attention to itself, alone.
            num_transformer_submodules=2 if decoder else 1,
        )
        return wrap(backbone, config)


def _require_cache(backbone: LoadedBackbone) -> None:
    """PEFT hands the prefix over as a cache of keys and values."""
    import inspect

    model = backbone.model
    require_embeddings_as_input(backbone)
    if "past_key_values" not in inspect.signature(type(model).forward).parameters and (
        backbone.pooling is None and backbone.peft_task == "SEQ_CLS"
    ):
        raise Unsupported(
            f"PEFT hands a prefix to {type(model).__name__} without the types of tokens (question "
            "or context), which would be a handicap. Next: choose prompt_tuning or lora."
        )
    inner = getattr(model, model.base_model_prefix, model)
    if "past_key_values" not in inspect.signature(type(inner).forward).parameters:
        raise Unsupported(
            f"prefix tuning needs a backbone that takes keys and values from outside; "
            f"{type(inner).__name__} takes none. Next: choose prompt_tuning or lora."
        )
