"""Gemma, all generations of text models (Mesnard et al. 2024): scaled embeddings, gated MLP."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="gemma",
    model_types=("gemma", "gemma2", "gemma3_text"),
    roles={
        "query": ("self_attn.q_proj",),
        "key": ("self_attn.k_proj",),
        "value": ("self_attn.v_proj",),
        "attention_output": ("self_attn.o_proj",),
        "mlp_input": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp_output": ("mlp.down_proj",),
    },
    pooling="last",
    twin={
        "model_type": "gemma",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
)
