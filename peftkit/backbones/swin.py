"""Swin (Liu et al. 2021): an encoder of patches in stages, each half as fine and twice as wide.

Attention is within windows, which shift from block to block. Blocks are counted over all stages;
what joins patches between two stages belongs to none of them. The head reads the mean.
"""

from peftkit.backbones._family import Family
from peftkit.backbones.vit import FAMILY as VIT

FAMILY = Family(
    name="swin",
    model_types=("swin",),
    roles=VIT.roles,
    blocks=r"encoder\.layers\.\d+\.blocks\.\d+",
    inputs="image",
    pooling="mean",
    twin={
        "model_type": "swin",
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 2,
        "mlp_ratio": 2.0,
        "image_size": 32,
        "patch_size": 4,
    },
    twin_processor=VIT.twin_processor,
)
