"""Qwen2 and Qwen3 (Yang et al. 2024, 2025): a Llama with biases or norms on q and k."""

from peftkit.backbones._family import Family
from peftkit.backbones.llama import FAMILY as LLAMA

FAMILY = Family(
    name="qwen",
    model_types=("qwen2", "qwen3"),
    roles=LLAMA.roles,
    pooling="last",
    twin={
        **LLAMA.twin,
        "model_type": "qwen2",
    },
)
