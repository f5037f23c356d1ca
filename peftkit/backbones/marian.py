"""Marian (Junczys-Dowmunt et al. 2018): BART's blocks with fixed positions, for translation."""

from peftkit.backbones._family import Family
from peftkit.backbones.bart import FAMILY as BART

FAMILY = Family(
    name="marian",
    model_types=("marian",),
    roles=BART.roles,
    blocks=BART.blocks,
    pooling=BART.pooling,
    fixed=("embed_positions.weight",),
    twin={**BART.twin, "model_type": "marian", "scale_embedding": True},
)
