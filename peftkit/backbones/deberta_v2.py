"""DeBERTa-v2 and -v3 (He et al. 2021): encoder with relative positions inside attention."""

from peftkit.backbones._family import Family
from peftkit.backbones.bert import FAMILY as BERT

FAMILY = Family(
    name="deberta_v2",
    model_types=("deberta-v2",),
    roles={
        **BERT.roles,
        "query": ("attention.self.query_proj",),
        "key": ("attention.self.key_proj",),
        "value": ("attention.self.value_proj",),
    },
    pooling="first",
    twin={
        **BERT.twin,
        "model_type": "deberta-v2",
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
)
