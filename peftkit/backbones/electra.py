"""ELECTRA (Clark et al. 2020): BERT's encoder, embeddings narrower than the hidden states."""

from peftkit.backbones._family import Family
from peftkit.backbones.bert import FAMILY as BERT

FAMILY = Family(
    name="electra",
    model_types=("electra",),
    roles=BERT.roles,
    pooling="first",
    twin={
        **BERT.twin,
        "model_type": "electra",
        "embedding_size": 16,
    },
)
