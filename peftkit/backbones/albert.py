"""ALBERT (Lan et al. 2020): one block of weights used again and again, narrow embeddings."""

from peftkit.backbones._family import Family
from peftkit.backbones.bert import FAMILY as BERT

FAMILY = Family(
    name="albert",
    model_types=("albert",),
    roles={
        "query": ("albert_layers.0.attention.query",),
        "key": ("albert_layers.0.attention.key",),
        "value": ("albert_layers.0.attention.value",),
        "attention_output": ("albert_layers.0.attention.dense",),
        "mlp_input": ("albert_layers.0.ffn",),
        "mlp_output": ("albert_layers.0.ffn_output",),
    },
    pooling="first",
    twin={
        **BERT.twin,
        "model_type": "albert",
        "embedding_size": 16,
    },
)
