"""Phi-1, Phi-1.5 and Phi-2 (Li et al. 2023): decoder with attention and MLP side by side."""

from peftkit.backbones._family import Family
from peftkit.backbones.llama import FAMILY as LLAMA

FAMILY = Family(
    name="phi",
    model_types=("phi",),
    roles={
        **LLAMA.roles,
        "attention_output": ("self_attn.dense",),
        "mlp_input": ("mlp.fc1",),
        "mlp_output": ("mlp.fc2",),
    },
    pooling="last",
    twin={
        "model_type": "phi",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    },
)
