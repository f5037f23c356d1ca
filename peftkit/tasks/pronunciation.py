"""Pronunciation: how a word is spoken, symbol by symbol.

A row: `{"word": "tea", "phonemes": "ti"}`, a letter a phoneme; with spaces between phonemes, as in
`"T IY"`, what stands between these. The metric is the phoneme error rate: insertions, deletions
and substitutions over the length of the reference, over all rows; lower is better. Writing nothing
has 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.tasks._task import Predictions
from peftkit.tasks._written import WrittenTask

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Pronunciation(WrittenTask):
    """Write how a word is spoken."""

    metric: ClassVar[str] = "phoneme_error_rate"
    higher_is_better: ClassVar[bool] = False
    chance: ClassVar[float] = 1.0
    usual_sources: ClassVar[tuple[str, ...]] = ("word", "text", "source")
    usual_targets: ClassVar[tuple[str, ...]] = ("phonemes", "pronunciation", "target", "targets")

    def measure(
        self, predicted: list[str], references: list[list[str]]
    ) -> tuple[Predictions, dict[str, float]]:
        from peftkit.tasks._overlap import edit_distance

        spaced = any(" " in each.strip() for some in references for each in some)
        cut: Any = str.split if spaced else lambda text: list("".join(text.split()))
        own = [cut(text) for text in predicted]
        true = [[cut(each) for each in some] for some in references]
        best = [
            min((edit_distance(text, each), len(each)) for each in some)
            for text, some in zip(own, true, strict=True)
        ]
        edits, lengths = [e for e, _ in best], [n for _, n in best]
        exact = [float(text in some) for text, some in zip(own, true, strict=True)]
        return {"edits": edits, "length": lengths}, {
            "phoneme_error_rate": sum(edits) / max(1, sum(lengths)),
            "exact_match": sum(exact) / max(1, len(exact)),
        }

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        from peftkit.tasks._overlap import jackknife

        both = np.asarray([predictions["edits"], predictions["length"]], dtype=np.float64).T
        return jackknife(both, lambda sums: float(sums[0] / max(1.0, sums[1])))
