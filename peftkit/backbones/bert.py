"""BERT (Devlin et al. 2019): post-LayerNorm encoder; the head reads the pooled first token."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="bert",
    model_types=("bert",),
    roles={
        "query": ("attention.self.query",),
        "key": ("attention.self.key",),
        "value": ("attention.self.value",),
        "attention_output": ("attention.output.dense",),
        "mlp_input": ("intermediate.dense",),
        "mlp_output": ("output.dense",),
    },
    pooling="first",
    twin={
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    },
)
