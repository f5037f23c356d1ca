"""Is full fine-tuning better than a cheaper method by a margin, or is it not?

Two one-sided tests of the same difference, full minus method, in the metric's unit, higher being
better; with the crossed items x seeds error of `peftkit.statistics.estimates`. Not to find a
difference is no evidence that there is none: both claims have a test of their own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from peftkit.statistics.estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def not_worse(difference: Estimate, margin: float) -> float:
    """Return p of "the method lies a margin or more below full" (small: it is not inferior).

    Args:
        difference: Full minus method.
        margin: What would be too much, at least 0.
    """
    return float(scipy.stats.t.cdf(_distance(difference, margin), difference.df))


def better_by(difference: Estimate, margin: float) -> float:
    """Return p of "full lies less than a margin above the method" (small: it is better by that)."""
    return float(scipy.stats.t.sf(_distance(difference, margin), difference.df))


def equivalent(difference: Estimate, margin: float) -> float:
    """Return p of "they differ by a margin or more" (two one-sided tests, Schuirmann 1987)."""
    return max(not_worse(difference, margin), better_by(difference, -margin))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """p-values adjusted for there being several of them (Holm, Scand. J. Stat. 6, 1979).

    Each hypothesis whose adjusted value is at most alpha may be rejected, and the probability of
    rejecting any true one stays at most alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a rate (Wilson, JASA 22, 1927)."""
    found = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def _distance(difference: Estimate, margin: float) -> float:
    """How many standard errors the difference lies above the margin; not a number without any."""
    above = difference.mean - margin
    if difference.standard_error == 0:  # values that all agree do not make their mean certain
        return math.nan
    return above / difference.standard_error
