"""Data to text: a description of what a record says, measured against several references.

A row: `{"mr": "name[Alimentum], area[city centre]", "refs": ["Alimentum is in the city centre.",
"In the centre you find Alimentum."]}`. The metric is BLEU over all rows. Chance is 0.

Reference: Novikova et al. 2017 (E2E); LoRA (Hu et al. 2021), section 5.4, has its setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftkit.tasks._task import Predictions
from peftkit.tasks.translation import Translation


@dataclass(frozen=True, kw_only=True)
class DataToText(Translation):
    """Write what a record says."""

    usual_sources: ClassVar[tuple[str, ...]] = ("mr", "meaning_representation", "input", "source")
    usual_targets: ClassVar[tuple[str, ...]] = ("refs", "references", "targets", "target")

    def measure(
        self, predicted: list[str], references: list[list[str]]
    ) -> tuple[Predictions, dict[str, float]]:
        import numpy as np

        from peftkit.tasks._overlap import rouge

        columns, metrics = super().measure(predicted, references)
        each = [
            rouge(text, true)["rougeL"] for text, true in zip(predicted, references, strict=True)
        ]
        return columns, {**metrics, "rougeL": float(np.mean(each))}
