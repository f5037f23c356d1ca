"""What would decide a comparison that is open: how many seeds, or how many test items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftkit.statistics.power import Components, components, items_needed, power, seeds_needed
from peftkit.verdict.results import FEWEST_SEEDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What it would take to decide, if the difference is what it was estimated at.

    Attributes:
        claim: What would then be shown: that the method is "not worse", or full "better".
        power: Probability with which as many seeds and items as there are decide.
        seeds: How many seeds decide with probability 0.8, on the same items; None: no number does.
        items: How many items do, with the same seeds; None: no number does.
        has_items: Whether the metric is a mean over items, so that more of them are any use.
    """

    claim: Literal["not worse", "better"]
    power: float
    seeds: int | None
    items: int | None
    has_items: bool = True


def needs_of(
    values: NDArray[np.float64], distance: float, alpha: float, among: int, *, shares: bool = True
) -> Needs:
    """What it would take to show what the difference points to.

    Args:
        values: Full minus method, seeds x items, two seeds or more; one column where the metric
            does not split into items.
        distance: The margin minus their mean, not 0; above it the method is to be shown "not
            worse", below it full "better".
        alpha: One-sided level.
        among: How many methods are compared with full.
        shares: Whether the values are differences of shares.
    """
    claim: Literal["not worse", "better"] = "not worse" if distance > 0 else "better"
    # Whichever method is first to be shown must pass Holm's sharpest threshold.
    alpha = alpha / among if claim == "not worse" else alpha
    num_seeds, num_items = values.shape
    has_items = num_items > 1
    if has_items:
        spread = components(values, shares=shares)
        items = items_needed(spread, distance, num_seeds, alpha=alpha)
    else:  # a metric of the whole test set: how it varies with items is not known
        spread, items = Components(float(values.var(ddof=1)), 0.0, 0.0, 0.0), None
        num_items = 10**9
    seeds = seeds_needed(spread, distance, num_items, alpha=alpha)
    enough = num_seeds >= FEWEST_SEEDS  # with fewer nothing is shown, of however many items
    items = items if enough else None
    # What is open at the level of an early look may have the power at that of the last.
    return Needs(
        claim=claim,
        power=power(spread, distance, num_seeds, num_items, alpha=alpha) if enough else 0.0,
        seeds=None if seeds is None else max(seeds, num_seeds + 1, FEWEST_SEEDS),
        items=None if items is None else max(items, num_items + 1),
        has_items=has_items,
    )
