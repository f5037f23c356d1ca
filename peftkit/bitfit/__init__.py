"""BitFit (train the biases only) as a PEFT method; see `bitfit.layer`.

Importing this package makes PEFT know the type BITFIT, for `get_peft_model` as for
`PeftModel.from_pretrained`.
"""

from __future__ import annotations

from peftkit._peft import register

from .config import BitFitConfig
from .layer import BitFitLayer
from .model import BitFitModel

__all__ = ["BitFitConfig", "BitFitLayer", "BitFitModel"]

register("bitfit", BitFitConfig, BitFitModel)
