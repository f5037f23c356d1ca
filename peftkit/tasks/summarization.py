"""Summarisation: a short text that says what a long one says.

A row: `{"text": "We present ... In experiments ...", "summary": "A method for ..."}`; several
references are a list. The metric is the F of ROUGE-L (Lin 2004), of several references the best, in
the mean over rows. Chance is 0; the notes say what the first three sentences reach.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftkit.tasks._task import Predictions
from peftkit.tasks._written import WrittenTask

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class Summarization(WrittenTask):
    """Write a summary."""

    metric: ClassVar[str] = "rougeL"
    corpora: ClassVar[tuple[str, ...]] = ("pydocs/summary",)
    usual_sources: ClassVar[tuple[str, ...]] = ("source", "text", "document", "article")
    usual_targets: ClassVar[tuple[str, ...]] = ("summary", "targets", "target", "highlights")

    def _measured_by(self) -> tuple[str, ...]:
        from peftkit.tasks._overlap import meteor_stages, require_metrics

        require_metrics()
        return (meteor_stages(),)

    def _known(self, rows: Dataset) -> tuple[str, ...]:
        import numpy as np

        from peftkit.tasks._overlap import rouge, rouge_remarks

        lead = [
            rouge(lead_sentences(text), true)["rougeL"]
            for text, true in zip(rows["text"][:], rows["targets"][:], strict=True)
        ]
        said = f"lead-3 (the first three sentences): rougeL {np.mean(lead):.1f}"
        return (said, *rouge_remarks(rows["targets"][:]))

    def measure(
        self, predicted: list[str], references: list[list[str]]
    ) -> tuple[Predictions, dict[str, float]]:
        import numpy as np

        from peftkit.tasks._overlap import ROUGE, meteor, rouge

        pairs = list(zip(predicted, references, strict=True))
        found = [rouge(text, true) for text, true in pairs]
        columns: Predictions = {name: [each[name] for each in found] for name in ROUGE}
        metrics = {name: float(np.mean(columns[name])) for name in ROUGE}
        metrics["meteor"] = float(np.mean([meteor(text, true) for text, true in pairs]))
        return columns, metrics

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        return np.asarray(predictions["rougeL"], dtype=np.float64)


def lead_sentences(text: str, count: int = 3) -> str:
    """The first sentences of a text: what news puts first is hard to beat."""
    return " ".join(re.split(r"(?<=[.!?])\s+", text.strip())[:count])
