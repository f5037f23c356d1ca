"""ModernBERT (Warner et al. 2024): encoder with rotary positions, gated MLP, no biases."""

from peftkit.backbones._family import Family
from peftkit.backbones.bert import FAMILY as BERT

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
        **BERT.twin,
        "model_type": "modernbert",
        "global_attn_every_n_layers": 2,
        "local_attention": 16,
    },
)
