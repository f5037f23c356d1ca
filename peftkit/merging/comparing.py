"""Whether a merged model is the adapted one, and where it first is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from peftkit.verification import Agreement, agreement, largest_logit, tolerance

MOST_LOST = 0.25
"""Of what an adapter does, this share may be lost, or come on top, by rounding."""

if TYPE_CHECKING:
    from peftkit.merging.observing import Observed


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same rows.

    Attributes:
        agreement: Of their logits, and the metrics of both.
        dtype: Number format of the weights of the other.
        scale: The largest absolute logit of the model to be true to.
        first: The first layer whose output differs by more than rounding explains; None: no layer.
        kept: Share of what the adapter does to the logits that the other does: 1 where it is the
            same, 0 where it does nothing; None: unknown.
    """

    agreement: Agreement
    dtype: str
    scale: float
    first: str | None
    kept: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the logits differ by no more than rounding explains, and the adapter is in them.

        Rounding weights to bfloat16 can move a logit further than the whole adapter does, but in
        all directions: a model without the adapter would pass by the largest difference alone.
        """
        if not self.agreement.holds(self.dtype, self.scale):
            return False
        missing = self.kept is not None and not abs(self.kept - 1) <= MOST_LOST
        return not missing or self.agreement.holds("float32", self.scale)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.agreement.to_dict(),
            "largest_logit": self.scale,
            "adapter_kept": self.kept,
            "tolerance": tolerance(self.dtype) * self.scale,
            "dtype": self.dtype,
            "holds": self.holds,
            "first_difference": self.first,
        }


def compare_observed(
    reference: Observed, other: Observed, dtype: str, bare: np.ndarray | None = None
) -> Comparison:
    """Compare what two models said of the same rows.

    Args:
        reference: Of the model to be true to.
        other: Of the other.
        dtype: Number format of its weights.
        bare: Logits of the first with its adapter off.
    """
    both = {
        name: (value, other.metrics[name])
        for name, value in reference.metrics.items()
        if name in other.metrics
    }
    return Comparison(
        agreement=agreement(reference.logits, other.logits, both),
        dtype=dtype,
        scale=largest_logit(reference.logits),
        first=_first_difference(reference, other, tolerance(dtype)),
        kept=None if bare is None else _kept(reference.logits, other.logits, bare),
    )


def _kept(reference: np.ndarray, other: np.ndarray, bare: np.ndarray) -> float | None:
    """How far `other` went from `bare` towards `reference`, as a share of the way there.

    The coefficient of least squares over all logits, in which roundings average out.
    """
    counted = np.isfinite(reference) & np.isfinite(other) & np.isfinite(bare)
    start = bare[counted].astype(np.float64)
    way, gone = reference[counted] - start, other[counted] - start
    whole = float(way @ way)
    return float(gone @ way) / whole if whole else None


def _first_difference(reference: Observed, other: Observed, share: float) -> str | None:
    """The first layer, in the order of computation, that is off by a share of its own output."""
    for name, own in reference.inside.items():
        found = other.inside.get(name)
        if found is None:  # a layer that only one of them counts as its head
            continue
        if found.shape != own.shape:
            return name
        off = np.abs(found - own).max()
        if not off <= share * np.abs(own).max():  # also where it is not a number
            return name
    return None
