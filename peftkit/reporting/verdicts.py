"""Verdicts in a terminal, and as plain data."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from peftkit.reporting.terminal import plain
from peftkit.verdict import wording

if TYPE_CHECKING:
    from rich.console import Console

    from peftkit.verdict import Verdict


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print the verdict, and at each size the contrasts that it rests on."""
    results = verdict.results
    console.print()
    _say(console, results.name, "bold")
    margin = f"{results.scale * verdict.margin:g} {results.unit}"
    _say(console, f"margin {margin}; {wording.direction(results)}", "dim")
    for decision in verdict.decisions:
        console.print()
        _say(console, wording.headline(decision), "bold")
        if look := decision.look:
            _say(console, f"looked at after {look.seeds} seeds, at level {look.alpha:g}", "dim")
        if decision.contrasts:
            console.print(_grid(verdict, decision.contrasts, console))
        for contrast in decision.contrasts:
            if needs := wording.needed(contrast.needs):
                _say(console, f"  {contrast.method}: {needs}.", "dim")
        if caution := wording.caution(verdict, decision):
            _say(console, caution, "yellow")
        if decision.missing:
            named = ", ".join(decision.missing)
            _say(console, f"No run in common with {results.full}: {named}.", "yellow")
    if verdict.crossovers:
        console.print()
    for method, found in verdict.crossovers.items():
        _say(console, wording.crossing(method, found))


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(plain(line, console), style))


def _grid(verdict: Verdict, contrasts: Any, console: Console) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("method")
    # As a Text, or what is in brackets would be read as a style.
    grid.add_column(Text(f"difference [{verdict.results.unit}]"), justify="right")
    grid.add_column("p not worse", justify="right")
    grid.add_column("p full better", justify="right")
    grid.add_column("seeds", justify="right")
    grid.add_column("items", justify="right")
    grid.add_column("shown")
    for contrast in contrasts:
        found = contrast.difference
        shown = (
            contrast.method,
            wording.difference(verdict, contrast),
            wording.p_value(contrast.p_not_worse),
            wording.p_value(contrast.p_full_better),
            str(found.num_seeds),
            str(found.num_items) if found.num_items else "-",
            wording.standing(contrast),
        )
        grid.add_row(*(Text(plain(cell, console)) for cell in shown))
    return grid


def verdict_as_data(verdict: Verdict) -> dict[str, Any]:
    """The verdict for programs; numbers are in the metric's own unit."""
    return {
        "name": verdict.results.name,
        "margin": verdict.margin,
        "full": verdict.results.full,
        "less_is_better": verdict.results.less_is_better,
        "decisions": [
            {
                "size": decision.size,
                "verdict": decision.kind,
                "method": decision.method,
                "missing": list(decision.missing),
                "look": None if decision.look is None else dataclasses.asdict(decision.look),
                "contrasts": [
                    {
                        "method": c.method,
                        "difference": c.difference.mean,
                        "standard_error": _number(c.difference.standard_error),
                        "df": c.difference.df,
                        "num_seeds": c.difference.num_seeds,
                        "num_items": c.difference.num_items,
                        "p_not_worse": _number(c.p_not_worse),
                        "p_full_better": _number(c.p_full_better),
                        "p_equivalent": _number(c.p_equivalent),
                        "alpha": c.alpha,
                        "shown": wording.standing(c),
                        "needs": None if c.needs is None else dataclasses.asdict(c.needs),
                    }
                    for c in decision.contrasts
                ],
            }
            for decision in verdict.decisions
        ],
        "crossovers": {
            method: dataclasses.asdict(found) | {"answer": found.answer}
            for method, found in verdict.crossovers.items()
        },
    }


def _number(value: float) -> float | None:
    """JSON knows no "not a number"."""
    return value if math.isfinite(value) else None
