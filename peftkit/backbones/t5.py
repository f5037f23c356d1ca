"""T5 (Raffel et al. 2020): pre-RMSNorm encoder and decoder, positions relative, no biases."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="t5",
    model_types=("t5", "mt5", "umt5"),
    roles={
        "query": ("layer.0.SelfAttention.q", "layer.1.EncDecAttention.q"),
        "key": ("layer.0.SelfAttention.k", "layer.1.EncDecAttention.k"),
        "value": ("layer.0.SelfAttention.v", "layer.1.EncDecAttention.v"),
        "attention_output": ("layer.0.SelfAttention.o", "layer.1.EncDecAttention.o"),
        "mlp_input": tuple(
            f"layer.{i}.DenseReluDense.{name}" for i in (1, 2) for name in ("wi", "wi_0", "wi_1")
        ),
        "mlp_output": tuple(f"layer.{i}.DenseReluDense.wo" for i in (1, 2)),
    },
    blocks=r"(encoder|decoder)\.block\.\d+",
    pooling="last",
    twin={
        "model_type": "t5",
        "d_model": 32,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "d_kv": 8,
        "d_ff": 64,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    },
)
