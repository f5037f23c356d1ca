"""Laws fitted to a table: for display, and checked on a size that was held out of the fit.

What a law is fitted to is an error that falls: 1 - score of a share, else a metric of which less is
better. A score without a known top, as BLEU, has no such error, and no law here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from peftkit.statistics.curves import JointLaw, fit_joint_law, learning_curve

if TYPE_CHECKING:
    from peftkit.reporting.summary import Row, Table
    from peftkit.statistics.curves import Curve

FEWEST_RUNS = 6  # for the joint law's four coefficients, so that two are left to disagree


def fitted_curves(table: Table) -> dict[str, Curve]:
    """A power law of each method that has four sizes or more with three seeds in common."""
    found: dict[str, Curve] = {}
    for method in table.methods:
        rows = [row for row in table.rows if row.method == method and row.done]
        seeds = set.intersection(*(_seeds(row) for row in rows)) if rows else set()
        if len(seeds) < 3:
            continue
        errors = [[_seeds_errors(table, row)[seed] for seed in sorted(seeds)] for row in rows]
        if np.isfinite(errors).all() and np.min(errors) > 0:
            curve = learning_curve([row.size for row in rows], errors)
            if curve is not None:
                found[method] = curve
    return found


def fitted_joint_laws(table: Table) -> dict[str, JointLaw]:
    """The joint law over parameters and examples of every method with variants of either."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        if row.quality and row.cost("method_parameters"):
            groups[row.name].append(row)
    found: dict[str, JointLaw] = {}
    for name, rows in groups.items():
        parameters = [row.cost("method_parameters") or 0.0 for row in rows]
        sizes = [float(row.size) for row in rows]
        errors = [float(np.mean(list(_seeds_errors(table, row).values()))) for row in rows]
        several = min(len(set(parameters)), len(set(sizes))) > 1
        if several and len(rows) >= FEWEST_RUNS and np.isfinite(errors).all() and min(errors) > 0:
            found[name] = fit_joint_law(parameters, sizes, errors)
    return found


def score_of(table: Table, error: float) -> float:
    """The score that an error stands for, in the unit shown."""
    return table.metric.scale * (1 - error if table.metric.is_share else error)


def curve_in_words(table: Table, method: str, curve: Curve) -> str:
    """Its coefficients, and whether it holds."""
    law, digits = curve.law, table.metric.digits
    predicted, measured = (score_of(table, e) for e in (curve.predicted, curve.measured))
    held = "holds" if curve.holds else "does not hold"
    formula = f"{law.scale:.3g} n^-{law.exponent:.2f} + {law.floor:.3g}"
    return (
        f"`{method}`: error {formula}; of the smaller sizes alone it puts {predicted:.{digits}f} "
        f"at {curve.held_out:,.0f}, where {measured:.{digits}f} was measured: it {held}"
    )


def joint_law_in_words(name: str, law: JointLaw) -> str:
    """Its coefficients."""
    return (
        f"`{name}`, over its trained parameters X and examples D: error {law.scale:.3g} "
        f"X^{-law.alpha:+.2f} D^{-law.beta:+.2f} + {law.floor:.3g}"
    )


def _seeds(row: Row) -> set[int]:
    return {record.seed for record in row.done}


def _seeds_errors(table: Table, row: Row) -> dict[int, float]:
    """The error of each seed; not a number where the metric has no error."""
    metric = table.metric
    found = {}
    for record in row.done:
        value = float(record.metrics.get("test", {}).get(metric.name, np.nan))
        falls = metric.is_share or not metric.higher_is_better
        found[record.seed] = (1 - value if metric.is_share else value) if falls else np.nan
    return found
