"""A verdict in sentences, every number of which was computed from the results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peftkit.quantities import ABSENT, PLUS_MINUS
from peftkit.verdict.results import FEWEST_SEEDS

if TYPE_CHECKING:
    from peftkit.statistics.crossover import Crossover
    from peftkit.verdict.deciding import Contrast, Decision, Verdict
    from peftkit.verdict.needs import Needs
    from peftkit.verdict.results import Results


def headline(decision: Decision) -> str:
    """The verdict at one size."""
    said: str = decision.kind
    if decision.method is not None:
        said += f": {decision.method}"
    if not decision.contrasts:
        said += " (nothing to compare full fine-tuning with)"
    elif decision.num_seeds < FEWEST_SEEDS:
        said += f" (a verdict needs at least {FEWEST_SEEDS} seeds, there are {decision.num_seeds})"
    elif decision.kind == "undecided" and (known := _known(decision)):
        said += f" ({known})"
    return f"{decision.size:,} examples: {said}"


def _known(decision: Decision) -> str:
    """What is known of single methods where there is no verdict on them all."""
    told = {
        "worse than full": decision.worse,
        "no run in common with full": decision.missing,
        f"fewer than {FEWEST_SEEDS} seeds": decision.short,
    }
    return "; ".join(f"{what}: {', '.join(methods)}" for what, methods in told.items() if methods)


def caution(verdict: Verdict, decision: Decision) -> str:
    """Said where full ends clearly below a method without training; else empty.

    Training that begins at the same weights should at least arrive there.
    """
    for contrast in decision.contrasts:
        untrained = contrast.method in verdict.results.untrained
        if untrained and contrast.difference.mean + contrast.difference.half_width() < 0:
            return (
                f"With {decision.size:,} examples full is worse than {contrast.method}, which "
                "trains nothing: it was perhaps trained too little, or at a wrong rate, and other "
                "trained methods with it. More steps would tell."
            )
    return ""


def direction(results: Results) -> str:
    """Which way differences are taken."""
    if results.less_is_better:
        return f"differences are method minus {results.full}, as less {results.unit} is better"
    return f"differences are {results.full} minus method"


def difference(verdict: Verdict, contrast: Contrast) -> str:
    """`-0.31 +- 0.82`: as `direction` takes it, with its 95 % interval, in the unit shown."""
    scale, found = verdict.results.scale, contrast.difference
    digits = 2 if verdict.results.shares else 4
    half = found.half_width()
    if math.isnan(half):
        return f"{scale * found.mean:+.{digits}f}"
    return f"{scale * found.mean:+.{digits}f} {PLUS_MINUS} {scale * half:.{digits}f}"


def standing(contrast: Contrast) -> str:
    """What is shown of a method."""
    if contrast.is_equivalent:
        return "as good as full"
    if contrast.is_not_worse:
        return "not worse than full"
    return "worse than full" if contrast.full_is_better else "open"


def p_value(p: float) -> str:
    """`.023`, `<.001`; `-` where there is none, as with one seed of a metric without items."""
    if math.isnan(p):
        return ABSENT
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def needed(needs: Needs | None) -> str:
    """What would decide, for people; empty where nothing was worked out."""
    if needs is None:
        return ""
    claim = "that it is not worse" if needs.claim == "not worse" else "that full is better"
    seeds = f"{needs.seeds:,} seeds" if needs.seeds else ""
    items = f"{needs.items:,} test items" if needs.items else ""
    ways = " or ".join(way for way in (seeds, items) if way)
    if not ways and not needs.has_items:
        ways = "not even 100 seeds"
    elif not ways:
        ways = "neither 100 seeds nor 100,000 test items, but more of both,"
    return f"{ways} would show {claim} (power now {needs.power:.0%})"


def crossing(method: str, found: Crossover) -> str:
    """From how much data on full is better than a method by the margin."""
    return f"full better than {method} by the margin from: {onset(found)} ({found.level:.0%} set)"


def onset(found: Crossover) -> str:
    """The set of sizes from which full may be better by the margin, or that there is none."""
    if found.answer == "not reached":
        return f"not within the range measured, up to {found.largest:,.0f} examples"
    if found.answer == "from the smallest":
        return f"already at the smallest size measured, {found.smallest:,.0f} examples"
    if found.lower is not None and found.upper is not None:
        said = f"between {found.lower:,.0f} and {found.upper:,.0f}"
    elif found.lower is not None:
        said = f"above {found.lower:,.0f}, no upper end"
    elif found.upper is not None:
        said = f"below {found.upper:,.0f}, no lower end"
    else:
        return "anywhere or nowhere, the evidence excludes no size"
    return f"{said}, estimated at {found.estimate:,.0f}" if found.estimate else said
