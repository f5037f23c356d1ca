"""Laws of learning curves, and where two of them cross.

A power law with a floor, `loss(n) = scale n^-exponent + floor`; and over two axes the joint law of
Zhang et al. (ICLR 2024), `loss(X, D) = scale X^-alpha D^-beta + floor`, for X parameters (of the
model, or of the adapter) and D examples. Both are for display and for a check on sizes that were
held out; verdicts and crossover sets do not rest on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy

from peftkit.statistics.estimates import LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

FEWEST = 4  # sizes of a law with three coefficients, so that one is left to check
STEEPEST = 5.0
GRID = 41  # points an exponent is looked for at, on each of the ever finer grids
ROUNDS = 8
RESAMPLES = 200


class Law(Protocol):
    """A loss by the number of examples."""

    def at(self, size: float) -> float:
        """The loss at `size` examples."""
        ...


@dataclass(frozen=True)
class PowerLaw:
    """`scale n^-exponent + floor`."""

    scale: float
    exponent: float
    floor: float

    def at(self, size: float) -> float:
        """The loss at `size` examples."""
        return float(self.scale * size**-self.exponent + self.floor)


@dataclass(frozen=True)
class JointLaw:
    """`scale X^-alpha D^-beta + floor` (Zhang et al., ICLR 2024, equation 1)."""

    scale: float
    alpha: float
    beta: float
    floor: float

    def given(self, parameters: float) -> PowerLaw:
        """The law over examples for so many parameters."""
        return PowerLaw(self.scale * parameters**-self.alpha, self.beta, self.floor)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A fitted power law, and how far it can be believed.

    Attributes:
        law: Fitted to all sizes.
        sizes: Points of a grid, `(X,)`.
        low: Lower end of the interval at each, `(X,)`.
        high: Upper end, `(X,)`.
        held_out: The largest size, which a law of the others had to predict.
        predicted: What it predicted there.
        measured: What was measured there.
        holds: Whether that lies within what its errors allow.
    """

    law: PowerLaw
    sizes: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    held_out: float
    predicted: float
    measured: float
    holds: bool


def fit_power_law(sizes: ArrayLike, losses: ArrayLike) -> PowerLaw:
    """Fit `scale n^-exponent + floor` by least squares of relative errors, floor at least 0.

    Args:
        sizes: `(K,)`, at least 3.
        losses: `(K,)`, above 0.

    Raises:
        ValueError: There are too few, or a loss is not above 0.
    """
    n, loss = _checked(losses, sizes)
    (exponent,), scale, floor = _fit([n], [(0.0, STEEPEST)], loss)
    return PowerLaw(scale, exponent, floor)


def fit_joint_law(parameters: ArrayLike, sizes: ArrayLike, losses: ArrayLike) -> JointLaw:
    """Fit the joint law to runs of several sizes and parameter counts, floor at least 0.

    Args:
        parameters: `(N,)`.
        sizes: `(N,)`.
        losses: `(N,)`, above 0, at least 4.

    Raises:
        ValueError: There are too few, or a loss is not above 0.
    """
    (x, loss), (d, _) = _checked(losses, parameters), _checked(losses, sizes)
    if len(loss) < FEWEST:
        raise ValueError(f"a law of four coefficients needs {FEWEST} runs, got {len(loss)}")
    (alpha, beta), scale, floor = _fit([x, d], [(-0.2, 2.0), (0.0, 2.0)], loss)
    return JointLaw(scale, alpha, beta, floor)


def crossing(first: Law, second: Law, *, least: float = 1.0, most: float = 1e14) -> float | None:
    """The size from which `second` stays below `first`, within a range; None: there is none.

    Args:
        first: A law.
        second: Another.
        least: Smallest size looked at.
        most: Largest size looked at.
    """
    grid = np.linspace(math.log(least), math.log(most), 2000)
    gap = np.array([first.at(math.exp(x)) - second.at(math.exp(x)) for x in grid])
    rises = np.flatnonzero((gap[:-1] <= 0) & (gap[1:] > 0))
    if not len(rises) or gap[-1] <= 0:
        return None
    low, high = grid[rises[-1]], grid[rises[-1] + 1]
    root = scipy.optimize.brentq(
        lambda x: first.at(math.exp(x)) - second.at(math.exp(x)), low, high
    )
    return math.exp(root)


def learning_curve(
    sizes: Sequence[float], losses: ArrayLike, *, level: float = LEVEL, points: int = 60
) -> Curve | None:
    """Fit a power law to losses of several seeds; None: there are too few sizes.

    Intervals are percentiles over resampled seeds (each is taken with all of its sizes, as its
    subsets are nested), to be shown and not to be tested with: of few seeds they are too narrow.

    Args:
        sizes: K sizes.
        losses: `(K, S)`, above 0.
        level: Of the intervals.
        points: Of their grid.

    Raises:
        ValueError: A loss is not above 0.
    """
    values = np.asarray(losses, dtype=np.float64)
    order = np.argsort(sizes)
    n, values = np.asarray(sizes, dtype=np.float64)[order], values[order]
    num_sizes, num_seeds = values.shape
    if num_sizes < FEWEST:
        return None
    law = fit_power_law(n, values.mean(axis=1))
    rest = fit_power_law(n[:-1], values[:-1].mean(axis=1))
    grid = np.exp(np.linspace(math.log(n[0]), math.log(n[-1]), points))
    random = np.random.default_rng(0)
    drawn, ends = [], []
    for _ in range(RESAMPLES if num_seeds > 1 else 0):
        resampled = values[:, random.integers(num_seeds, size=num_seeds)].mean(axis=1)
        drawn.append(_curve(fit_power_law(n, resampled), grid))
        ends.append(fit_power_law(n[:-1], resampled[:-1]).at(n[-1]) - resampled[-1])
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0) if drawn else (_curve(law, grid),) * 2
    predicted, measured = rest.at(n[-1]), float(values[-1].mean())
    # The misfit on the sizes that were fitted counts as well: few seeds may agree by chance.
    inside = [rest.at(size) - value for size, value in zip(n, values.mean(axis=1), strict=True)]
    misfit = float(np.sqrt(np.mean(np.square(inside[:-1]))))
    error = math.hypot(float(np.std(ends, ddof=1)) if ends else 0.0, misfit)
    allowed = float(scipy.stats.t.ppf(0.5 + level / 2, max(num_seeds - 1, 1))) * error
    return Curve(
        law=law, sizes=grid, low=low, high=high, held_out=float(n[-1]), predicted=predicted,
        measured=measured, holds=abs(predicted - measured) <= allowed,
    )  # fmt: skip


def _curve(law: PowerLaw, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([law.at(size) for size in grid])


def _fit(
    axes: Sequence[NDArray[np.float64]],
    ranges: Sequence[tuple[float, float]],
    loss: NDArray[np.float64],
) -> tuple[list[float], float, float]:
    """Exponents of the axes, scale and floor with the least squares of relative errors.

    For given exponents scale and floor have a closed form, so only the exponents are looked for:
    on a grid, and again on ever finer ones around the best point.
    """
    logs = np.stack([np.log(axis / axis.max()) for axis in axes])  # so that powers stay in range
    spans, best = [(low, high) for low, high in ranges], None
    for _ in range(ROUNDS):
        grids = np.meshgrid(*[np.linspace(low, high, GRID) for low, high in spans], indexing="ij")
        exponents = np.stack([grid.ravel() for grid in grids])
        powers = np.exp(-exponents.T @ logs)
        scale, floor, misfit = _linear(powers, loss)
        best = int(np.argmin(misfit))
        found = exponents[:, best], float(scale[best]), float(floor[best])
        spans = [
            (max(low, at - 2 * (b - a) / GRID), min(high, at + 2 * (b - a) / GRID))
            for at, (a, b), (low, high) in zip(found[0], spans, ranges, strict=True)
        ]
    raised = float(np.exp(found[0] @ np.log([axis.max() for axis in axes])))
    return [float(e) for e in found[0]], found[1] * raised, found[2]


def _linear(
    powers: NDArray[np.float64], loss: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For each row of `powers`, `(G, K)`: scale and floor, neither below 0, and the misfit."""
    x, one = powers / loss, 1 / loss
    xx, x1, x_, o_ = (x * x).sum(1), (x * one).sum(1), x.sum(1), one.sum()
    oo = (one * one).sum()
    determinant = xx * oo - x1**2
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(determinant > 1e-12 * xx * oo, (x_ * oo - o_ * x1) / determinant, -1.0)
    floor = (o_ - scale * x1) / oo
    scale, floor = np.where(floor < 0, x_ / xx, scale), np.maximum(floor, 0.0)
    flat = scale < 0
    scale, floor = np.where(flat, 0.0, scale), np.where(flat, o_ / oo, floor)
    misfit = np.square(scale[:, None] * x + floor[:, None] * one - 1).sum(1)
    return scale, floor, misfit


def _checked(
    losses: ArrayLike, sizes: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n, loss = np.asarray(sizes, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if n.shape != loss.shape or n.ndim != 1 or len(n) < FEWEST - 1:
        raise ValueError(f"expected at least {FEWEST - 1} sizes and as many losses, got {n.shape}")
    if not (loss > 0).all() or not (n > 0).all():
        raise ValueError("sizes and losses must lie above 0")
    return n, loss
