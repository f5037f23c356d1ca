"""From how much data on full fine-tuning is better by the margin: a set of sizes.

The difference of each seed and item, full minus method, is smoothed over the logarithm of the size
by a polynomial of degree 2: at a size x it is a fixed combination of the differences at the sizes
that were measured, so the crossed layout of seeds and items gives its error, with all that sizes
share (test items, nested subsets) accounted for. The set holds every size that no bound excludes:
below its lower end the upper bound lies under the margin throughout, above its upper end the lower
bound lies over it throughout. Where that happens nowhere, the end is open. Three sizes are the
fewest: between two there is a straight line, which says nothing of how the difference bends. Of
three nothing checks the shape between them, so that ends are measured sizes: with narrow sets
inside of them the truth was missed in up to a fifth of simulated studies.

Legend: K sizes, S seeds, I items, X points of the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy

from peftkit.statistics.estimates import least_error, reach_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

DEGREE = 2
FEWEST_SIZES = DEGREE + 1
LEVEL = 0.95
POINTS = 200
Answer = Literal["between", "not reached", "from the smallest", "open"]


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Sizes from which full may be better by the margin.

    Attributes:
        lower: The crossover lies above this size; None: nothing excludes the smallest sizes.
        upper: It lies below this size; None: nothing excludes that it is beyond the largest.
        estimate: Where the smoothed difference last rises over the margin, if it does.
        smallest: Measured size.
        largest: Measured size.
        level: Probability with which such sets hold the true size.
    """

    lower: float | None
    upper: float | None
    estimate: float | None
    smallest: float
    largest: float
    level: float

    @property
    def answer(self) -> Answer:
        """In one word: what the set says about the range that was measured."""
        if self.lower is not None and self.lower >= self.largest:
            return "not reached"
        if self.upper is not None and self.upper <= self.smallest:
            return "from the smallest"
        return "open" if self.lower is None or self.upper is None else "between"

    def holds(self, size: float) -> bool:
        """Whether a crossover at `size` (infinite: never) is in the set."""
        above = self.lower is None or size > self.lower
        below = self.upper is None or size < self.upper
        return above and below


@dataclass(frozen=True)
class Smoothed:
    """The difference at each point of a grid, and how sure it is: arrays of shape (X,)."""

    sizes: NDArray[np.float64]
    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    df: NDArray[np.float64]

    def bounds(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends of two-sided intervals, point by point.

        Values that all agree do not make their mean certain: there the ends are infinite.
        """
        half = scipy.stats.t.ppf(0.5 + level / 2, self.df) * self.standard_error
        half = np.where(self.standard_error > 0, half, np.inf)
        return self.mean - half, self.mean + half


def smooth(
    sizes: Sequence[float],
    differences: ArrayLike,
    *,
    shares: bool = True,
    points: int = POINTS,
) -> Smoothed:
    """Smooth differences over the logarithm of the size.

    Args:
        sizes: K different sizes, at least 3.
        differences: Full minus method, `(K, S, I)`, at least 2 seeds and 2 items.
        shares: Whether they are differences of shares.
        points: Of the grid, log-spaced from the smallest to the largest size.

    Raises:
        ValueError: The shape is another, or a value is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    if values.ndim != 3 or len(values) != len(logs) or len(np.unique(logs)) != len(logs):
        raise ValueError(f"expected (sizes, seeds, items) of as many sizes, got {values.shape}")
    if len(values) < FEWEST_SIZES or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError("expected three sizes, two seeds and two items at least, all finite")
    _, num_seeds, num_items = values.shape
    grid = np.linspace(logs.min(), logs.max(), points)
    weights = np.vander(grid, DEGREE + 1) @ np.linalg.pinv(np.vander(logs, DEGREE + 1))
    # Every sum of squares of a combination of sizes is a quadratic form in its weights.
    mean = values.mean(axis=(1, 2))
    per_seed = values.mean(axis=2) - mean[:, None]
    per_item = values.mean(axis=1) - mean[:, None]
    flat = (values - mean[:, None, None]).reshape(len(values), -1)
    seeds = num_items * _squares(weights, per_seed)
    items = num_seeds * _squares(weights, per_item)
    rest = np.maximum(_squares(weights, flat) - seeds - items, 0.0)
    of_seeds = seeds / (num_seeds - 1)
    of_items = items / (num_items - 1)
    of_rest = rest / ((num_seeds - 1) * (num_items - 1))
    scaled = of_seeds + np.maximum(of_items - of_rest, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = scaled**2 / (of_seeds**2 / (num_seeds - 1))
    sizes_of_grid = np.exp(grid)
    sizes_of_grid[[0, -1]] = min(sizes), max(sizes)  # exp(log(100)) is more than 100
    least = least_error(num_items, reach_of(values, shares=shares))
    return Smoothed(
        sizes=sizes_of_grid,
        mean=weights @ mean,
        standard_error=np.maximum(np.sqrt(scaled / (num_seeds * num_items)), least),
        df=np.where(np.isfinite(df), df, num_items - 1.0),
    )


def crossover(
    sizes: Sequence[float],
    differences: ArrayLike,
    margin: float,
    *,
    shares: bool = True,
    level: float = LEVEL,
) -> Crossover:
    """The sizes from which full may be better than the method by `margin`.

    Args:
        sizes: As for `smooth`.
        differences: As for `smooth`.
        margin: In the unit of the differences.
        shares: As for `smooth`.
        level: Probability with which the set holds the true size.

    Raises:
        ValueError: As `smooth`.
    """
    found = smooth(sizes, differences, shares=shares)
    low, high = found.bounds(level)
    below = _leading(high < margin)
    above = _leading((low > margin)[::-1])
    lower = float(found.sizes[below - 1]) if below else None
    upper = float(found.sizes[-above]) if above else None
    if len(sizes) == FEWEST_SIZES:
        lower = None if lower is None else max(size for size in sizes if size <= lower)
        upper = None if upper is None else min(size for size in sizes if size >= upper)
    return Crossover(
        lower=lower,
        upper=upper,
        estimate=_rises(found, margin),
        smallest=float(found.sizes[0]),
        largest=float(found.sizes[-1]),
        level=level,
    )


def _rises(found: Smoothed, margin: float) -> float | None:
    """Where the smoothed difference rises over the margin for the last time, and stays there."""
    above = _leading((found.mean > margin)[::-1])
    if not 0 < above < len(found.mean):
        return None
    right = len(found.mean) - above
    (a, b), (x, y) = found.mean[right - 1 : right + 1], np.log(found.sizes[right - 1 : right + 1])
    return math.exp(x + (y - x) * (margin - a) / (b - a))


def _leading(holds: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(holds) if holds.all() else int(np.argmin(holds))


def _squares(weights: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of squares of the combinations `weights @ rows`, of shape (X,)."""
    gram = rows @ rows.T
    found: NDArray[np.float64] = np.einsum("xk,kl,xl->x", weights, gram, weights)
    return np.maximum(found, 0.0)
