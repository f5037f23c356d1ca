"""Mistral (Jiang et al. 2023): Llama's decoder with attention in a sliding window."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="mistral",
    model_types=("mistral",),
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
        "model_type": "mistral",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "num_key_value_heads": 2,
    },
)
