"""How sure a mean over seeds and test items is: the crossed random-effects t interval.

A study measures `values[s, i]`: seed `s`, test item `i`; for accuracy 1 or 0, for a paired
comparison the difference of two such. Both seeds and items are samples, crossed with each other:

    values[s, i] = mean + seed[s] + item[i] + rest[s, i]

With the mean squares of the two-way layout without replication (MSs, MSi, MSe),

    V  = max(MSs + MSi - MSe, MSs, MSi) / (S I)
    df = (S I V)^2 / (MSs^2 / (S-1) + MSi^2 / (I-1) + MSe^2 / ((S-1) (I-1)))

V is the variance of the mean (the maximum keeps it from falling below what either factor alone
explains) and df its degrees of freedom (Satterthwaite, Biometrics Bulletin 2(6), 1946, 110-114),
here at least those of the smaller factor: as MSe enters with a minus, the formula can fall to 0.
The standard error is at least R / (I + 2), where R is by how much one item may differ (1 for scores
that are shares): items that all agree do not make a mean certain.
With one seed the same formulas reduce to the interval over items alone, and say nothing about
what another seed would have given. An interval over items alone covers as little as 40 % of the
time where 90 % was promised, so callers must say which of the two they show.

Legend: S seeds, I items; arrays are float64 of shape (S, I).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
Sources = Literal["test items and seeds", "test items", "seeds", "nothing"]


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is.

    Attributes:
        mean: The mean over seeds and items.
        standard_error: Standard error of the mean; not a number when nothing could vary.
        df: Degrees of freedom of its t distribution.
        num_seeds: Seeds behind it.
        num_items: Test items the error accounts for (0: seeds only).
    """

    mean: float
    standard_error: float
    df: float
    num_seeds: int
    num_items: int

    @property
    def sources(self) -> Sources:
        """What the interval accounts for."""
        if self.num_items:
            return "test items and seeds" if self.num_seeds > 1 else "test items"
        return "seeds" if self.num_seeds > 1 else "nothing"

    def half_width(self, level: float = LEVEL) -> float:
        """Half the width of the two-sided interval; not a number where there is none.

        Raises:
            ValueError: `level` is not strictly between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"the level of an interval must be between 0 and 1, got {level}")
        return float(stdtrit(self.df, 0.5 + level / 2)) * self.standard_error

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Lower and upper end of the two-sided interval (not cut at the ends of the scale)."""
        half = self.half_width(level)
        return self.mean - half, self.mean + half

    def excludes_zero(self, level: float = LEVEL) -> bool:
        """Whether the interval lies wholly on one side of zero (False where there is none)."""
        return abs(self.mean) > self.half_width(level)


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of the two-way layout without replication; those that need two seeds are 0."""

    seeds: float
    items: float
    rest: float


def mean_squares(values: ArrayLike) -> MeanSquares:
    """Decompose `values` of shape (S, I), S at least 1 and I at least 2.

    Raises:
        ValueError: The shape is another, or a value is not finite.
    """
    crossed = _checked(values)
    num_seeds, num_items = crossed.shape
    mean = crossed.mean()
    per_seed = crossed.mean(axis=1)
    per_item = crossed.mean(axis=0)
    items = num_seeds * float(np.square(per_item - mean).sum()) / (num_items - 1)
    if num_seeds == 1:
        return MeanSquares(0.0, items, 0.0)
    seeds = num_items * float(np.square(per_seed - mean).sum()) / (num_seeds - 1)
    left = crossed - per_seed[:, None] - per_item[None, :] + mean
    rest = float(np.square(left).sum()) / ((num_seeds - 1) * (num_items - 1))
    return MeanSquares(seeds, items, rest)


def reach_of(values: ArrayLike, *, shares: bool) -> float:
    """By how much one item may differ: 1 where scores are shares, else by how much any two do."""
    return 1.0 if shares else float(np.ptp(np.asarray(values, dtype=np.float64)))


def least_error(num_items: int, reach: float) -> float:
    """The least standard error of a mean over items, however much they agree."""
    return reach / (num_items + 2)


def crossed_estimate(values: ArrayLike, *, shares: bool = True) -> Estimate:
    """Mean of `values` of shape (S, I) with the crossed items x seeds error; S = 1: items only.

    Args:
        values: One for each seed and item.
        shares: Whether they are shares, or differences of shares.

    Raises:
        ValueError: There are fewer than two items, or a value is not finite.
    """
    crossed = _checked(values)
    num_seeds, num_items = crossed.shape
    square = mean_squares(crossed)
    reach = reach_of(crossed, shares=shares)
    error, df = error_and_df(square.seeds, square.items, square.rest, num_seeds, num_items, reach)
    return Estimate(float(crossed.mean()), float(error), float(df), num_seeds, num_items)


def error_and_df(
    seeds: ArrayLike,
    items: ArrayLike,
    rest: ArrayLike,
    num_seeds: int,
    num_items: int,
    reach: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard error of the mean and its degrees of freedom, from mean squares of any shape.

    Args:
        seeds: MSs; 0 where there is one seed, and so for `rest`.
        items: MSi.
        rest: MSe.
        num_seeds: At least 1.
        num_items: At least 2.
        reach: By how much one item may differ.
    """
    seeds, items, rest = (np.asarray(square, dtype=np.float64) for square in (seeds, items, rest))
    scaled = np.maximum(seeds + items - rest, np.maximum(seeds, items))
    spread = items**2 / (num_items - 1)
    fewest = num_items - 1.0
    if num_seeds > 1:
        spread = spread + seeds**2 / (num_seeds - 1)
        spread = spread + rest**2 / ((num_seeds - 1) * (num_items - 1))
        fewest = min(num_seeds, num_items) - 1.0
    df = np.divide(scaled**2, spread, out=np.full_like(scaled, num_items - 1.0), where=spread > 0)
    error = np.sqrt(scaled / (num_seeds * num_items))
    return np.maximum(error, least_error(num_items, reach)), np.maximum(df, fewest)


def seed_estimate(values: ArrayLike) -> Estimate:
    """Mean of one value per seed, shape (S,), with the error over seeds only.

    For metrics that do not split into items. With one seed there is no error to be had:
    `standard_error` is not a number.
    """
    per_seed = np.asarray(values, dtype=np.float64)
    if per_seed.ndim != 1 or per_seed.size == 0:
        raise ValueError(f"expected one value per seed, got shape {per_seed.shape}")
    num_seeds = per_seed.size
    error = per_seed.std(ddof=1) / math.sqrt(num_seeds) if num_seeds > 1 else math.nan
    df = float(max(num_seeds - 1, 1))
    return Estimate(float(per_seed.mean()), float(error), df, num_seeds, num_items=0)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    """`values` as float64 of shape (S, I)."""
    crossed = np.asarray(values, dtype=np.float64)
    if crossed.ndim != 2 or crossed.shape[0] < 1 or crossed.shape[1] < 2:
        raise ValueError(
            f"expected values of shape (seeds, items) with at least 2 items, got {crossed.shape}"
        )
    if not np.isfinite(crossed).all():
        raise ValueError("values hold a number that is not finite")
    return crossed
