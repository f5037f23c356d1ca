"""The hyperparameters of BitFit: there are none but the places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftkit._peft import TunerConfig


@dataclass
class BitFitConfig(TunerConfig):
    """BitFit: one trained number for each bias targeted.

    `target_modules=None` means every module with a bias inside the backbone, that is without the
    task head (`model.base_model` of transformers; the whole model where there is no such thing) and
    without `modules_to_save`. Of explicit targets, those without a bias are passed over; an entry
    that matches no bias at all is refused.
    """

    name: ClassVar[str] = "bitfit"
