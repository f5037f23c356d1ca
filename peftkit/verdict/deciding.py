"""The rules of the verdict.

At each size, d is the difference full minus method of every seed and item, m the margin:

- **A cheaper method suffices** if "it lies m or more below full" is rejected for it (one-sided,
  Holm over the cheaper methods); of several the cheapest is named. If that one trains nothing, no
  training is needed.
- **Full fine-tuning is warranted** if "full lies less than m above it" is rejected for every
  cheaper method (an intersection-union test, which needs no correction); one that has no run in
  common with full is not beaten.
- Else it is **undecided**, and the components of variance say how many more seeds or items would
  decide. Of a method with fewer than three seeds nothing is shown.

Not to differ significantly is never taken for being as good.

Where seeds are added until it is decided, results are looked at after 3, 5 and 8 of them, each time
at a level of its own, so that all looks together err as often as one at 5 % would. A look is at the
seeds that were planned for it; runs of these that failed are not made up for by later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from peftkit.statistics.crossover import FEWEST_SIZES, Crossover, crossover
from peftkit.statistics.estimates import Estimate, crossed_estimate, seed_estimate
from peftkit.statistics.hypotheses import better_by, equivalent, holm, not_worse
from peftkit.statistics.power import ALPHA
from peftkit.verdict.needs import Needs, needs_of
from peftkit.verdict.results import FEWEST_SEEDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftkit.verdict.results import Results

Kind = Literal["no training needed", "an adapter suffices", "full is warranted", "undecided"]


@dataclass(frozen=True)
class Look:
    """One look at the test results: after how many seeds, and at which one-sided level."""

    seeds: int
    alpha: float


LOOKS = (Look(3, 0.008), Look(5, 0.014), Look(8, 0.028))
"""Levels by simulation: with the gap at the margin, each direction is wrong in 1.7 to 4.7 % of
studies, over all looks together (`benchmarks/results/calibration`)."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A cheaper method against full fine-tuning, at one size.

    Attributes:
        method: The cheaper one.
        difference: Full minus method.
        p_not_worse: Of "it lies a margin or more below full", adjusted for all cheaper methods.
        p_full_better: Of "full lies less than a margin above it".
        p_equivalent: Of "they differ by a margin or more, either way"; not adjusted, as it counts
            only where not to be worse is shown.
        alpha: Level at which these are judged.
        needs: What would decide; None where that was not asked or cannot be said.
    """

    method: str
    difference: Estimate
    p_not_worse: float
    p_full_better: float
    p_equivalent: float
    alpha: float = ALPHA
    needs: Needs | None = None

    @property
    def has_seeds(self) -> bool:
        """Whether there are enough seeds to show anything."""
        return self.difference.num_seeds >= FEWEST_SEEDS

    @property
    def is_not_worse(self) -> bool:
        """Whether it is shown to lie less than the margin below full."""
        return self.has_seeds and self.p_not_worse <= self.alpha

    @property
    def full_is_better(self) -> bool:
        """Whether full is shown to lie more than the margin above it."""
        return self.has_seeds and self.p_full_better <= self.alpha

    @property
    def is_equivalent(self) -> bool:
        """Whether they are shown to differ by less than the margin."""
        return self.is_not_worse and self.p_equivalent <= self.alpha

    @property
    def is_open(self) -> bool:
        """Whether neither is shown."""
        return not (self.is_not_worse or self.full_is_better)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What holds at one size.

    Attributes:
        size: Training examples.
        kind: The verdict.
        method: The cheapest one that suffices, if one does.
        contrasts: Cheapest method first.
        missing: Methods that have no run in common with full at this size.
        look: At which look it was taken, if looks were planned.
    """

    size: int
    kind: Kind
    method: str | None
    contrasts: tuple[Contrast, ...]
    missing: tuple[str, ...] = ()
    look: Look | None = None

    @property
    def num_seeds(self) -> int:
        """The most seeds of a contrast."""
        return max((c.difference.num_seeds for c in self.contrasts), default=0)

    @property
    def short(self) -> tuple[str, ...]:
        """Methods that have too few seeds in common with full to show anything."""
        return tuple(c.method for c in self.contrasts if not c.has_seeds)

    @property
    def worse(self) -> tuple[str, ...]:
        """Methods that full is shown to be better than by the margin."""
        return tuple(c.method for c in self.contrasts if c.full_is_better)

    @property
    def is_decided(self) -> bool:
        """Whether there is a verdict."""
        return self.kind != "undecided"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a study concludes on one backbone and task.

    Attributes:
        results: What it rests on.
        margin: By how much full has to be better for it to count, in the unit of the results.
        decisions: By size, ascending.
        crossovers: For each cheaper method with at least three sizes: from how much data on full is
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


def decide(
    results: Results, margin: float, *, looks: Sequence[Look] = (), with_needs: bool = True
) -> Verdict:
    """Decide at every size, and find the crossovers.

    Args:
        results: Scores.
        margin: In their unit, above 0.
        looks: After how many seeds results are looked at, and at which level; none: once, at all.
        with_needs: Whether to work out what would decide where it is open.
    """
    sizes = sorted({n for m, n in results.scores if m == results.full})
    crossovers = {}
    for method in results.ladder:
        kept, differences = results.differences(method, results.sizes(method))
        if len(kept) >= FEWEST_SIZES and differences.shape[2] > 1:
            crossovers[method] = crossover(
                [float(n) for n in kept], differences, margin, shares=results.shares
            )
    return Verdict(
        results=results,
        margin=margin,
        decisions=tuple(_at(results, size, margin, looks, with_needs) for size in sizes),
        crossovers=crossovers,
    )


def _at(
    results: Results, size: int, margin: float, looks: Sequence[Look], with_needs: bool
) -> Decision:
    """The decision at one size: that of the first look that decides, else of the last."""
    tried = [results.tried(method, size) for method in results.ladder]
    seeds = sorted(set().union(*tried))
    most = max(map(len, tried), default=0)
    planned: list[Look | None] = [each for each in looks if each.seeds <= most]
    contrasts: list[Contrast] = []
    for look in planned or [None]:
        found = _found(results, size, seeds[: look.seeds] if look else seeds)
        missing = tuple(method for method in results.ladder if method not in found)
        contrasts = _contrasts(found, results.shares, margin, look, contrasts)
        complete = results.whole and not missing
        kind, method = judge(contrasts, results.untrained, complete=complete)
        if kind != "undecided":
            break
    if kind == "undecided" and with_needs:
        alpha = looks[-1].alpha if looks else ALPHA
        contrasts = [
            _with_needs(c, found[c.method], results.shares, margin, alpha, len(found))
            for c in contrasts
        ]
    return Decision(
        size=size,
        kind=kind,
        method=method,
        contrasts=tuple(contrasts),
        missing=missing,
        look=look,
    )


def _found(results: Results, size: int, seeds: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Differences of every method that has any of these seeds in common with full."""
    differences = {m: results.difference(m, size, seeds) for m in results.ladder}
    return {method: values for method, values in differences.items() if len(values)}


def _contrasts(
    found: dict[str, NDArray[np.float64]],
    shares: bool,
    margin: float,
    look: Look | None,
    before: list[Contrast],
) -> list[Contrast]:
    """Every method against full at one look; what was shown at an earlier one stays shown."""
    settled = {contrast.method: contrast for contrast in before if contrast.full_is_better}
    estimates = {method: _estimate(values, shares) for method, values in found.items()}
    adjusted = holm([not_worse(estimate, margin) for estimate in estimates.values()])
    return [
        settled.get(method)
        or Contrast(
            method=method,
            difference=estimate,
            p_not_worse=float(p),
            p_full_better=better_by(estimate, margin),
            p_equivalent=equivalent(estimate, margin),
            alpha=look.alpha if look else ALPHA,
        )
        for (method, estimate), p in zip(estimates.items(), adjusted, strict=True)
    ]


def judge(
    contrasts: Sequence[Contrast], untrained: frozenset[str], *, complete: bool = True
) -> tuple[Kind, str | None]:
    """The verdict on contrasts in the order of cost, and the method that suffices.

    Args:
        contrasts: Cheapest method first.
        untrained: Methods that train nothing.
        complete: Whether they are of every cheaper method; else full is not shown to beat all.
    """
    for contrast in contrasts:
        if contrast.is_not_worse:
            trains = contrast.method not in untrained
            return ("an adapter suffices" if trains else "no training needed"), contrast.method
    if contrasts and complete and all(contrast.full_is_better for contrast in contrasts):
        return "full is warranted", None
    return "undecided", None


def _estimate(values: NDArray[np.float64], shares: bool) -> Estimate:
    if values.shape[1] == 1:
        return seed_estimate(values[:, 0])
    return crossed_estimate(values, shares=shares)


def _with_needs(
    contrast: Contrast,
    values: NDArray[np.float64],
    shares: bool,
    margin: float,
    alpha: float,
    among: int,
) -> Contrast:
    """The contrast with what would decide it, if it is open and seeds tell how they differ."""
    distance = margin - contrast.difference.mean
    certain = contrast.difference.standard_error == 0
    if not contrast.is_open or len(values) < 2 or distance == 0 or certain:
        return contrast
    return replace(contrast, needs=needs_of(values, distance, alpha, among, shares=shares))
