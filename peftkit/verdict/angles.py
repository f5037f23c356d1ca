"""Four short paragraphs: what a study says of performance, task, amount and quality of data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peftkit.quantities import PLUS_MINUS, count
from peftkit.statistics.crossover import FEWEST_SIZES
from peftkit.statistics.worth import capacity, factor_in_examples
from peftkit.verdict import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftkit.reporting.summary import Row, Table
    from peftkit.verdict.deciding import Verdict

NEAREST = 2  # of the methods that are open, those are told that least is missing for
ANGLES = ("Performance", "Task complexity", "Amount of data", "Quality of data")


def angles(table: Table, verdict: Verdict, noisy: Sequence[tuple[Table, Verdict]]) -> list[str]:
    """One paragraph for each of ANGLES, in their order.

    Args:
        table: Of the labels as they are.
        verdict: On it.
        noisy: The same with wrong labels, if that was measured, the least noise first.
    """
    return [
        _performance(table, verdict),
        _complexity(table, verdict),
        _amount(table, verdict),
        _quality(table, noisy),
    ]


def _performance(table: Table, verdict: Verdict) -> str:
    decision = verdict.final
    if decision is None:
        return "Nothing was measured beside full fine-tuning."
    rows = {row.method: row for row in table.rows if row.size == decision.size and row.quality}
    full = rows.get(verdict.results.full)
    said = [f"With {decision.size:,} examples full fine-tuning reaches {_score(table, full)}."]
    if decision.method is not None:
        named = next(c for c in decision.contrasts if c.method == decision.method)
        said.append(
            f"`{decision.method}` reaches {_score(table, rows.get(decision.method))} and is shown "
            f"to be worse by less than the margin ({wording.difference(verdict, named)}, "
            f"p {wording.p_value(named.p_not_worse)})."
        )
    elif decision.kind == "full is warranted":
        closest = min(decision.contrasts, key=lambda c: c.difference.mean)
        said.append(
            f"Every cheaper method is shown to be worse by more than the margin; the closest, "
            f"`{closest.method}`, by {wording.difference(verdict, closest)}."
        )
    else:
        said.append("Neither is shown: that a cheaper method is enough, or that none is.")
        if decision.worse:
            worse = ", ".join(f"`{method}`" for method in decision.worse)
            said.append(f"Shown to be worse by more than the margin: {worse}.")
        open_ = [c for c in decision.contrasts if c.is_open and c.needs]
        nearest = sorted(open_, key=lambda c: -c.needs.power if c.needs else 0.0)[:NEAREST]
        said += [f"`{c.method}`: {wording.needed(c.needs)}." for c in nearest]
    if decision.missing:
        missing = ", ".join(f"`{method}`" for method in decision.missing)
        said.append(f"Not compared, as no seed ended well there and in full too: {missing}.")
    said += filter(None, (wording.caution(verdict, each) for each in verdict.decisions))
    return " ".join(said)


def _complexity(table: Table, verdict: Verdict) -> str:
    decision = verdict.final
    size = decision.size if decision else max(table.sizes)
    rows = [row for row in table.rows if row.size == size and row.quality]
    by_name = {row.name: row for row in rows}
    said = []
    if table.metric.name == "accuracy" and (classes := table.fact("num_classes")):
        chance = table.fact("chance")
        known = f", of which guessing gets {table.metric.scale * chance:.1f}" if chance else ""
        said.append(f"There are {classes} classes{known}.")
    best = max(rows, key=lambda row: table.metric.direction * _mean(row), default=None)
    if (none := by_name.get("none")) and best is not None:
        said.append(
            f"The backbone without training reaches {_score(table, none)}, the best method "
            f"`{best.method}` {_score(table, best)}: that much there was to learn."
        )
    if decision and (probe := _contrast(verdict, "linear_probe")):
        said.append(f"A new head alone leaves a difference of {probe}.")
    if (scratch := by_name.get("scratch")) and (full := by_name.get("full")):
        gap = table.metric.scale * table.metric.direction * (_mean(full) - _mean(scratch))
        worth = f"{gap:.{table.metric.digits}f} {verdict.results.unit}"
        said.append(f"Pretraining itself is worth {worth}, full above scratch.")
    return " ".join(said) or "Nothing beside full fine-tuning tells how hard the task is."


def _amount(table: Table, verdict: Verdict) -> str:
    if len(verdict.decisions) < 2:
        said = ["One size says nothing of what more data would change."]
    elif len(verdict.decisions) < FEWEST_SIZES:
        said = ["Between two sizes there is no telling from how much data on full is better."]
    else:
        said = _onsets(verdict)
    return " ".join([*said, *_factors(table, verdict), *_capacity(table)])


def _onsets(verdict: Verdict) -> list[str]:
    """From which size on full is better; methods of which the same holds are named together."""
    alike: dict[str, list[str]] = {}
    for method, found in verdict.crossovers.items():
        alike.setdefault(wording.onset(found), []).append(f"`{method}`")
    if not alike:
        return []
    level = next(iter(verdict.crossovers.values())).level
    said = "; ".join(f"{', '.join(methods)} {onset}" for onset, methods in alike.items())
    return [f"Full is better than each by the margin from ({level:.0%} sets): {said}."]


def _factors(table: Table, verdict: Verdict) -> list[str]:
    """How many times the examples the cheaper methods need."""
    factors = {method: _factor(table, verdict, method) for method in verdict.results.ladder}
    found = ", ".join(f"`{m}` {factor:.1f}" for m, factor in factors.items() if factor is not None)
    if not found:
        return []
    return [
        "On average over the scores that both reach, being as good as full takes so many times the "
        f"examples: {found}."
    ]


def _capacity(table: Table) -> list[str]:
    """Whether adapters can hold what the labels say, at the largest size."""
    size, classes = max(table.sizes), table.fact("num_classes")
    adapters = {
        row.method: row.cost("trainable_parameters") or 0.0
        for row in table.rows
        if row.size == size and row.rung == "parameter-efficient"
    }
    one_label = table.metric.name == "accuracy"  # a row, so its bits are those of a class
    if not adapters or not one_label or not classes or classes < 2:
        return []
    found = {
        method: capacity(size, math.log2(classes), int(trained))
        for method, trained in adapters.items()
    }
    bits = next(iter(found.values())).data_bits
    said = f"The labels of {size:,} examples hold at most {count(bits)} bits; "
    small = [method for method, each in found.items() if each.share > 1]
    if small:
        named = ", ".join(f"`{method}` {count(found[method].adapter_bits)}" for method in small)
        return [
            f"{said}at 2 a trained parameter these can store fewer, and may be too small: {named}."
        ]
    least = min(found, key=lambda method: found[method].adapter_bits)
    return [
        f"{said}the smallest adapter, `{least}`, can store {count(found[least].adapter_bits)} (2 a "
        "trained parameter), so where adapters differ here it is not for want of room."
    ]


def _quality(table: Table, noisy: Sequence[tuple[Table, Verdict]]) -> str:
    if not noisy:
        return "Only the labels as they are were measured; --noises says what wrong ones cost."
    said = []
    for other, found in noisy:
        share = f"{100 * other.place.label_noise:g} % of the training labels wrong"
        if (decision := found.final) is None:
            continue
        lost = []
        for method in (*found.results.ladder, found.results.full):
            before, after = table.row(method, decision.size), other.row(method, decision.size)
            if before and after and before.quality and after.quality:
                gap = table.metric.scale * (after.quality.mean - before.quality.mean)
                lost.append(f"`{method}` {gap:+.{table.metric.digits}f}")
        unit = table.metric.name
        said.append(f"With {share}: {wording.headline(decision)}; {unit} {', '.join(lost)}.")
    return " ".join(said)


def _factor(table: Table, verdict: Verdict, method: str) -> float | None:
    sizes = verdict.results.sizes(method)
    pairs = [(table.row(method, n), table.row(verdict.results.full, n)) for n in sizes]
    if len(sizes) < 2 or any(a is None or b is None for a, b in pairs):
        return None
    direction = table.metric.direction
    cheaper = [direction * _mean(a) for a, _ in pairs if a is not None]
    full = [direction * _mean(b) for _, b in pairs if b is not None]
    return factor_in_examples(sizes, cheaper, full)


def _contrast(verdict: Verdict, method: str) -> str:
    decision = verdict.final
    found = [c for c in decision.contrasts if c.method == method] if decision else []
    return wording.difference(verdict, found[0]) if found else ""


def _mean(row: Row) -> float:
    return row.quality.mean if row.quality else float("nan")


def _score(table: Table, row: Row | None) -> str:
    if row is None or row.quality is None:
        return "nothing (no run ended well)"
    scale, digits, half = table.metric.scale, table.metric.digits, row.quality.half_width()
    shown = f"{table.metric.name} {scale * row.quality.mean:.{digits}f}"
    return shown if math.isnan(half) else f"{shown} {PLUS_MINUS} {scale * half:.{digits}f}"
