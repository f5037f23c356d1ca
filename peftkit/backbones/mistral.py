"""Mistral (Jiang et al. 2023): Llama's decoder with attention in a sliding window."""

from peftkit.backbones._family import Family
from peftkit.backbones.llama import FAMILY as LLAMA

FAMILY = Family(
    name="mistral",
    model_types=("mistral",),
    roles=LLAMA.roles,
    pooling="last",
    twin={
        **LLAMA.twin,
        "model_type": "mistral",
    },
)
