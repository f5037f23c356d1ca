"""ModernBERT (Warner et al. 2024): encoder with rotary positions, gated MLP, no biases."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="modernbert",
    model_types=("modernbert",),
    roles={
        "query": ("attn.Wqkv",),
        "key": ("attn.Wqkv",),
        "value": ("attn.Wqkv",),
        "attention_output": ("attn.Wo",),
        "mlp_input": ("mlp.Wi",),
        "mlp_output": ("mlp.Wo",),
    },
    pooling="first",
    twin={
        "model_type": "modernbert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "global_attn_every_n_layers": 2,
        "local_attention": 16,
    },
)
