"""How often a study of so many seeds and test items decides, and how many it takes.

    SE^2 = var_seeds / S + var_items / I + var_rest / (S I)

with the components of the paired difference that the crossed layout estimates. The test estimates
that error too, with few degrees of freedom and kept from falling below what seeds or items alone
explain, so how often it decides is an average over the errors it may find (of mean squares with
chi-square distributions). The noncentral t with the expected error, which is the textbook's form,
promised up to 7 points more than studies of 500 items kept (`benchmarks/NOTES.md`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy
from scipy.special import chdtri, stdtrit

from peftkit.statistics.estimates import error_and_df, least_error, mean_squares, reach_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 100
MOST_ITEMS = 100_000
_NODES = 48


@dataclass(frozen=True)
class Components:
    """Variances of one value of a paired difference: of seeds, of items, and what is left.

    `reach` is by how much one item may differ, as in `crossed_estimate`; 0 without items.
    """

    seeds: float
    items: float
    rest: float
    reach: float = 1.0

    def standard_error(self, num_seeds: int, num_items: int) -> float:
        """Standard error of the mean; no less than in `crossed_estimate`."""
        seeds, items = self.seeds / num_seeds, self.items / num_items
        variance = seeds + items + self.rest / (num_seeds * num_items)
        return max(math.sqrt(variance), least_error(num_items, self.reach))


def components(values: ArrayLike, *, shares: bool = True) -> Components:
    """Variance components of `values` of shape (S, I), S at least 2; none below 0.

    Args:
        values: Paired differences.
        shares: Whether they are differences of shares.

    Raises:
        ValueError: There are fewer than two seeds or items.
    """
    square = mean_squares(values)
    shape = getattr(values, "shape", None) or (len(values), len(values[0]))  # type: ignore[arg-type, index]
    num_seeds, num_items = shape
    if num_seeds < 2:
        raise ValueError("one seed tells nothing of how seeds differ")
    return Components(
        seeds=max(square.seeds - square.rest, 0.0) / num_items,
        items=max(square.items - square.rest, 0.0) / num_seeds,
        rest=square.rest,
        reach=reach_of(values, shares=shares),
    )


def power(
    spread: Components, distance: float, num_seeds: int, num_items: int, *, alpha: float = ALPHA
) -> float:
    """Probability that a one-sided test of level alpha decides.

    Args:
        spread: Of the paired difference.
        distance: Between the true difference and the margin, above 0, in the metric's unit.
        num_seeds: At least 2.
        num_items: Test items.
        alpha: Level.
    """
    of_seeds = spread.rest + num_items * spread.seeds
    of_items = spread.rest + num_seeds * spread.items
    seeds = of_seeds * _chances(num_seeds - 1)[:, None]
    items = of_items * _chances(num_items - 1)[None, :]
    error, df = error_and_df(seeds, items, spread.rest, num_seeds, num_items, spread.reach)
    true = spread.standard_error(num_seeds, num_items)
    decided = scipy.stats.norm.sf((stdtrit(df, 1 - alpha) * error - abs(distance)) / true)
    return float(decided.mean())


def _chances(df: int) -> NDArray[np.float64]:
    """Values that a chi-square variable over its degrees of freedom takes, equally likely each."""
    quantiles = (np.arange(_NODES) + 0.5) / _NODES
    return np.asarray(chdtri(df, 1 - quantiles) / df, dtype=np.float64)


def seeds_needed(
    spread: Components, distance: float, num_items: int, *, alpha: float = ALPHA
) -> int | None:
    """The fewest seeds that decide with probability 0.8; None: not even a hundred do."""
    return _fewest(
        lambda seeds: power(spread, distance, seeds, num_items, alpha=alpha), 2, MOST_SEEDS
    )


def items_needed(
    spread: Components, distance: float, num_seeds: int, *, alpha: float = ALPHA
) -> int | None:
    """The fewest test items that decide with probability 0.8; None: not even 100,000 do."""
    return _fewest(
        lambda items: power(spread, distance, num_seeds, items, alpha=alpha), 2, MOST_ITEMS
    )


def _fewest(decides: Callable[[int], float], low: int, high: int) -> int | None:
    """The least number from `low` to `high` that decides often enough, as more of it helps."""
    if decides(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if decides(middle) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low
