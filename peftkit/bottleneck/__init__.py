"""Bottleneck adapters (Houlsby, Pfeiffer, parallel) as a PEFT method; see `bottleneck.layer`.

Importing this package makes PEFT know the type BOTTLENECK, for `get_peft_model` as for
`PeftModel.from_pretrained`.
"""

from __future__ import annotations

from peftkit._peft import register

from .config import BottleneckConfig
from .layer import BottleneckLayer
from .model import BottleneckModel

__all__ = ["BottleneckConfig", "BottleneckLayer", "BottleneckModel"]

register("bottleneck", BottleneckConfig, BottleneckModel)
