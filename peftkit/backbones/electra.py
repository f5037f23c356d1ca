"""ELECTRA (Clark et al. 2020): BERT's encoder, embeddings narrower than the hidden states."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="electra",
    model_types=("electra",),
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
        "model_type": "electra",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "embedding_size": 16,
    },
)
