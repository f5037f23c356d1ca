"""Gemma, all generations of text models (Mesnard et al. 2024): scaled embeddings, gated MLP."""

from peftkit.backbones._family import Family
from peftkit.backbones.llama import FAMILY as LLAMA

FAMILY = Family(
    name="gemma",
    model_types=("gemma", "gemma2", "gemma3_text"),
    roles=LLAMA.roles,
    pooling="last",
    twin={
        **LLAMA.twin,
        "model_type": "gemma",
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
)
