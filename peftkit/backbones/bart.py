"""BART (Lewis et al. 2020): post-LayerNorm encoder and decoder; the head reads the last token."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="bart",
    model_types=("bart", "mbart", "m2m_100"),
    roles={
        "query": ("self_attn.q_proj", "encoder_attn.q_proj"),
        "key": ("self_attn.k_proj", "encoder_attn.k_proj"),
        "value": ("self_attn.v_proj", "encoder_attn.v_proj"),
        "attention_output": ("self_attn.out_proj", "encoder_attn.out_proj"),
        "mlp_input": ("fc1",),
        "mlp_output": ("fc2",),
    },
    blocks=r"(encoder|decoder)\.layers\.\d+",
    pooling="last",
    twin={
        "model_type": "bart",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "decoder_start_token_id": 0,
    },
)
