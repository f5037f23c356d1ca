"""DeBERTa-v2 and -v3 (He et al. 2021): encoder with relative positions inside attention."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="deberta_v2",
    model_types=("deberta-v2",),
    roles={
        "query": ("attention.self.query_proj",),
        "key": ("attention.self.key_proj",),
        "value": ("attention.self.value_proj",),
        "attention_output": ("attention.output.dense",),
        "mlp_input": ("intermediate.dense",),
        "mlp_output": ("output.dense",),
    },
    pooling="first",
    twin={
        "model_type": "deberta-v2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
)
