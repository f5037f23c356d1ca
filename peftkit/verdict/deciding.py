"""The rules of the verdict.

At each size, d is the difference full minus method of every seed and item, m the margin:

- **A cheaper method suffices** if "it lies m or more below full" is rejected for it (one-sided,
  Holm over the cheaper methods); of several the cheapest is named. If that one trains nothing, no
  training is needed.
- **Full fine-tuning is warranted** if "full lies less than m above it" is rejected for every
  cheaper method (an intersection-union test, which needs no correction).
- Else it is **undecided**, and the components of variance say how many more seeds or items would
  decide. With fewer than three seeds it is always undecided.

Not to differ significantly is never taken for being as good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from peftkit.statistics.crossover import Crossover, crossover
from peftkit.statistics.estimates import Estimate, crossed_estimate, seed_estimate
from peftkit.statistics.hypotheses import better_by, equivalent, holm, not_worse
from peftkit.statistics.power import (
    ALPHA,
    Components,
    components,
    items_needed,
    power,
    seeds_needed,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftkit.verdict.results import Results

FEWEST_SEEDS = 3
Kind = Literal["no training needed", "an adapter suffices", "full is warranted", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What it would take to decide, if the difference is what it was estimated at.

    Attributes:
        claim: What would then be shown: that the method is "not worse", or full "better".
        power: Probability with which as many seeds and items as there are decide.
        seeds: How many seeds decide with probability 0.8, on the same items; None: no number does.
        items: How many items do, with the same seeds; None: no number does.
    """

    claim: Literal["not worse", "better"]
    power: float
    seeds: int | None
    items: int | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A cheaper method against full fine-tuning, at one size.

    Attributes:
        method: The cheaper one.
        difference: Full minus method.
        p_not_worse: Of "it lies a margin or more below full", adjusted for all cheaper methods.
        p_full_better: Of "full lies less than a margin above it".
        p_equivalent: Of "they differ by a margin or more, either way".
        needs: What would decide; None where that was not asked or cannot be said.
    """

    method: str
    difference: Estimate
    p_not_worse: float
    p_full_better: float
    p_equivalent: float
    needs: Needs | None = None

    @property
    def is_not_worse(self) -> bool:
        """Whether it is shown to lie less than the margin below full."""
        return self.p_not_worse <= ALPHA

    @property
    def full_is_better(self) -> bool:
        """Whether full is shown to lie more than the margin above it."""
        return self.p_full_better <= ALPHA

    @property
    def is_equivalent(self) -> bool:
        """Whether they are shown to differ by less than the margin."""
        return self.p_equivalent <= ALPHA


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What holds at one size.

    Attributes:
        size: Training examples.
        kind: The verdict.
        method: The cheapest one that suffices, if one does.
        comparisons: Cheapest method first.
        missing: Methods that have no run in common with full at this size.
    """

    size: int
    kind: Kind
    method: str | None
    comparisons: tuple[Comparison, ...]
    missing: tuple[str, ...] = ()

    @property
    def num_seeds(self) -> int:
        """The fewest seeds of a comparison."""
        return min((c.difference.num_seeds for c in self.comparisons), default=0)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a study concludes on one backbone and task.

    Attributes:
        results: What it rests on.
        margin: By how much full has to be better for it to count, in the unit of the results.
        decisions: By size, ascending.
        crossovers: For each cheaper method with at least two sizes: from how much data on full is
            better by the margin.
    """

    results: Results
    margin: float
    decisions: tuple[Decision, ...]
    crossovers: dict[str, Crossover]

    @property
    def final(self) -> Decision | None:
        """The decision at the largest size."""
        return self.decisions[-1] if self.decisions else None


def decide(results: Results, margin: float, *, with_needs: bool = True) -> Verdict:
    """Decide at every size, and find the crossovers.

    Args:
        results: Scores.
        margin: In their unit, above 0.
        with_needs: Whether to work out what would decide where it is open.
    """
    sizes = sorted({n for m, n in results.scores if m == results.full})
    crossovers = {}
    for method in results.ladder:
        kept, differences = results.differences(method, results.sizes(method))
        if min(len(kept), *differences.shape) >= 2 and differences.shape[1] >= FEWEST_SEEDS:
            crossovers[method] = crossover([float(n) for n in kept], differences, margin)
    return Verdict(
        results=results,
        margin=margin,
        decisions=tuple(_at(results, size, margin, with_needs) for size in sizes),
        crossovers=crossovers,
    )


def _at(results: Results, size: int, margin: float, with_needs: bool) -> Decision:
    found = {
        method: results.difference(method, size)
        for method in results.ladder
        if (method, size) in results.scores
    }
    found = {method: values for method, values in found.items() if len(values)}
    estimates = {method: _estimate(values) for method, values in found.items()}
    adjusted = holm([not_worse(estimate, margin) for estimate in estimates.values()])
    comparisons = [
        Comparison(
            method=method,
            difference=estimate,
            p_not_worse=float(p),
            p_full_better=better_by(estimate, margin),
            p_equivalent=equivalent(estimate, margin),
        )
        for (method, estimate), p in zip(estimates.items(), adjusted, strict=True)
    ]
    kind, method = judge(comparisons, results.untrained)
    if kind == "undecided" and with_needs:
        comparisons = [
            _with_needs(c, found[c.method], margin, len(comparisons)) for c in comparisons
        ]
    return Decision(
        size=size,
        kind=kind,
        method=method,
        comparisons=tuple(comparisons),
        missing=tuple(m for m in results.ladder if m not in found),
    )


def judge(comparisons: list[Comparison], untrained: frozenset[str]) -> tuple[Kind, str | None]:
    """The verdict on comparisons in the order of cost, and the method that suffices."""
    if not comparisons or min(c.difference.num_seeds for c in comparisons) < FEWEST_SEEDS:
        return "undecided", None
    for comparison in comparisons:
        if comparison.is_not_worse:
            trains = comparison.method not in untrained
            return ("an adapter suffices" if trains else "no training needed"), comparison.method
    if all(comparison.full_is_better for comparison in comparisons):
        return "full is warranted", None
    return "undecided", None


def _estimate(values: NDArray[np.float64]) -> Estimate:
    return crossed_estimate(values) if values.shape[1] > 1 else seed_estimate(values[:, 0])


def _with_needs(
    comparison: Comparison, values: NDArray[np.float64], margin: float, among: int
) -> Comparison:
    """The comparison with what would decide it, if it is open and seeds tell how they differ."""
    open_ = not (comparison.is_not_worse or comparison.full_is_better)
    distance = margin - comparison.difference.mean
    if not open_ or len(values) < 2 or distance == 0:
        return comparison
    claim: Literal["not worse", "better"] = "not worse" if distance > 0 else "better"
    # Whichever method is first to be shown must pass Holm's sharpest threshold.
    alpha = ALPHA / among if claim == "not worse" else ALPHA
    num_seeds, num_items = values.shape
    if num_items > 1:
        spread = components(values)
        items = items_needed(spread, distance, num_seeds, alpha=alpha)
    else:  # a metric of the whole test set: how it varies with items is not known
        spread, items = Components(float(values.var(ddof=1)), 0.0, 0.0), None
        num_items = 10**9
    return replace(
        comparison,
        needs=Needs(
            claim=claim,
            power=power(spread, distance, num_seeds, num_items, alpha=alpha),
            seeds=seeds_needed(spread, distance, num_items, alpha=alpha),
            items=items,
        ),
    )
