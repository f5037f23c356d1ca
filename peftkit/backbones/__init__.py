"""Finding and loading a backbone: hub name, folder, bundled or tiny twin; where its layers are.

Each public file here is one family of architectures.
"""

from peftkit.backbones._configuration import (
    make_configuration,
    positions,
    read_configuration,
    reader,
)
from peftkit.backbones._family import ROLES, Family, Layers, Pooling, Role, families, family_of
from peftkit.backbones._load import load, outline, outline_files
from peftkit.backbones._loaded import Head, LoadedBackbone
from peftkit.backbones._locate import Location, locate, model_type
from peftkit.backbones._offload import bring_back, offload
from peftkit.backbones._pooling import declare_pooling, mask_frames, pool_vectors, unlike_stock
from peftkit.backbones._processor import load_tokenizer
from peftkit.backbones._quantized import dense_stand_ins, packed_layers
from peftkit.backbones._twin import toy_tokenizer
from peftkit.backbones._weights import from_files, read_packed

__all__ = [
    "ROLES",
    "Family",
    "Head",
    "Layers",
    "LoadedBackbone",
    "Location",
    "Pooling",
    "Role",
    "bring_back",
    "declare_pooling",
    "dense_stand_ins",
    "families",
    "family_of",
    "from_files",
    "load",
    "load_tokenizer",
    "locate",
    "make_configuration",
    "mask_frames",
    "model_type",
    "offload",
    "outline",
    "outline_files",
    "packed_layers",
    "pool_vectors",
    "positions",
    "read_configuration",
    "read_packed",
    "reader",
    "toy_tokenizer",
    "unlike_stock",
]
