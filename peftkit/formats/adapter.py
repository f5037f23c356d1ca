"""PEFT: the adapter alone, for whoever has PEFT, transformers and the base.

`PeftModel.from_pretrained(base, DIR)`, where a head has as many labels as `peftkit.json` names.
Compared by loading it so, on the base as transformers loads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from peftkit.formats._stock import AdapterFormat


@dataclass(frozen=True, kw_only=True)
class Adapter(AdapterFormat):
    """The adapter alone, which PEFT loads on the base without peftkit."""
