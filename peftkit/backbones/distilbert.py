"""DistilBERT (Sanh et al. 2019): BERT without pooler and segment embeddings."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="distilbert",
    model_types=("distilbert",),
    roles={
        "query": ("attention.q_lin",),
        "key": ("attention.k_lin",),
        "value": ("attention.v_lin",),
        "attention_output": ("attention.out_lin",),
        "mlp_input": ("ffn.lin1",),
        "mlp_output": ("ffn.lin2",),
    },
    pooling="first",
    twin={
        "model_type": "distilbert",
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 128,
    },
)
