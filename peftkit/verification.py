"""Whether two models are one: their logits on the same rows, compared.

    largest difference = max |other - reference|      over all logits
    KL(reference || other) = sum_c p_c (log p_c - log q_c), in nats; p, q: softmax of the last axis
    equal predictions = share of vectors whose largest logit is the same

Positions that both models mask (-inf, +inf or not a number in both) do not count; a position that
is a number in one only is an infinite difference. All is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TOLERANCES = {
    # Sums in another order: about 100 roundings of 2^-24 in each of a few layers.
    "float32": 1e-4,
    # Each weight is off by up to 2^-11 of itself; errors of layers add up like a random walk.
    "float16": 1e-2,
    # The same with 2^-8, eight times as coarse, of which attention that is sharp makes more: on
    # random twins a few hundredths, on a trained adapter 0.004 (benchmarks/results/merging.md).
    "bfloat16": 5e-2,
}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the logits of two models are apart.

    Attributes:
        num_rows: Rows compared (length of the first axis).
        largest_difference: Largest absolute difference of a logit; not a number if none counted.
        kl: Mean KL(reference || other) over vectors, in nats; 0 where there is but one logit.
        equal_predictions: Share of vectors with the same largest logit.
        metrics: The task's metrics before and after, by name; empty if unknown.
    """

    num_rows: int
    largest_difference: float
    kl: float
    equal_predictions: float
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def holds(self, dtype: str, scale: float) -> bool:
        """Whether the largest difference is within what rounding explains.

        Args:
            dtype: Number format of the less exact of the two models.
            scale: The largest absolute logit, as `largest_logit` finds it.
        """
        return self.largest_difference <= tolerance(dtype) * scale

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity and no not-a-number: these become None."""

        def plain(value: float) -> float | None:
            return float(value) if math.isfinite(value) else None

        return {
            "num_rows": self.num_rows,
            "largest_difference": plain(self.largest_difference),
            "kl": plain(self.kl),
            "equal_predictions": plain(self.equal_predictions),
            "metrics": {k: [plain(v) for v in pair] for k, pair in self.metrics.items()},
        }


def tolerance(dtype: str) -> float:
    """Largest difference allowed between equal models, as a share of the largest absolute logit.

    Args:
        dtype: "float32", "float16" or "bfloat16", with or without "torch." before it.

    Raises:
        UnknownName: Another number format.
    """
    name = dtype.removeprefix("torch.")
    if name not in TOLERANCES:
        raise UnknownName("number format", name, TOLERANCES)
    return TOLERANCES[name]


def largest_logit(logits: ArrayLike) -> float:
    """The largest absolute logit, masked positions aside; 0 if there is none."""
    values = np.abs(_array(logits))
    values = values[np.isfinite(values)]
    return float(values.max()) if values.size else 0.0


def agreement(
    reference: ArrayLike,
    other: ArrayLike,
    metrics: Mapping[str, tuple[float, float]] | None = None,
) -> Agreement:
    """Compare the logits of two models.

    Args:
        reference: Logits of the model to be true to, shape (..., classes); tensor or array.
        other: Logits of the other, of the same shape.
        metrics: The task's metrics of both, if known.

    Raises:
        InvalidInput: The shapes differ, or there is no logit.
    """
    a, b = _array(reference), _array(other)
    if a.shape != b.shape or a.size == 0 or a.ndim == 0:
        raise InvalidInput(
            "logits are compared one by one, so both models must yield as many",
            received=f"shapes {a.shape} and {b.shape}",
        )
    num_rows = len(a)
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    counted = np.isfinite(a) | np.isfinite(b)
    some = counted.any(axis=-1)
    if not some.any():
        nan = float("nan")
        return Agreement(num_rows=num_rows, largest_difference=nan, kl=nan, equal_predictions=nan)
    a, b, counted = a[some], b[some], counted[some]
    broken = counted & ~(np.isfinite(a) & np.isfinite(b))
    a, b = (np.where(np.isfinite(x) & counted, x, -np.inf) for x in (a, b))
    with np.errstate(invalid="ignore"):
        difference = np.where(broken, np.inf, np.abs(np.where(counted, b - a, 0.0)))
    return Agreement(
        num_rows=num_rows,
        largest_difference=float(difference.max()),
        kl=float("inf") if broken.any() else float(np.mean(_kl(a, b))),
        equal_predictions=float(np.mean(a.argmax(axis=-1) == b.argmax(axis=-1))),
        metrics=dict(metrics or {}),
    )


def _kl(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL of each row; -inf stands at the same places of both and has no part in it."""
    with np.errstate(invalid="ignore"):
        log_p = a - logsumexp(a, axis=-1, keepdims=True)
        log_q = b - logsumexp(b, axis=-1, keepdims=True)
        terms = np.where(np.isfinite(a), np.exp(log_p) * (log_p - log_q), 0.0)
    found: NDArray[np.float64] = np.maximum(terms.sum(axis=-1), 0.0)  # rounding can leave -1e-17
    return found


def _array(logits: Any) -> NDArray[np.float64]:
    """A float64 array of a tensor (any device and number format) or of an array."""
    if hasattr(logits, "detach"):
        logits = logits.detach().cpu().double().numpy()
    found: NDArray[np.float64] = np.asarray(logits, dtype=np.float64)
    return found
