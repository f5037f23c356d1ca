"""RoBERTa (Liu et al. 2019): BERT's layers; a head of two layers on the first token."""

from peftkit.backbones._family import Family
from peftkit.backbones.bert import FAMILY as BERT

FAMILY = Family(
    name="roberta",
    model_types=("roberta", "xlm-roberta", "camembert"),
    roles=BERT.roles,
    pooling="first",
    # Positions start after the padding index, so two more are needed than the longest text.
    twin={**BERT.twin, "model_type": "roberta", "max_position_embeddings": 130},
)
