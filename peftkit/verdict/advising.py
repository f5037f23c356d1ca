"""What studies say of a situation that none of them measured, as far as their evidence reaches.

It reaches to the same family of backbones, the same kind of task and sizes between the smallest and
the largest that were measured; beyond that there is no advice. Between two measured sizes both have
to say the same. Of several shares of wrong labels that one study measured, the nearest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.reporting.notes import heading

if TYPE_CHECKING:
    from peftkit.reporting.summary import Table
    from peftkit.verdict.deciding import Decision, Kind
    from peftkit.verdict.from_table import Judged

NOISE_REACH = 0.1  # shares of wrong labels that far apart count as the same


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What advice is asked for.

    Attributes:
        family: Of the backbone: "bert", "llama".
        task: Kind of task: "text_classification".
        size: Labelled examples at hand.
        label_noise: Share of wrong labels, as far as known.
    """

    family: str
    task: str
    size: int
    label_noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one study says of a situation.

    Attributes:
        study: What it measured on.
        kind: Its verdict there; None: it does not reach, or says different things nearby.
        method: The cheapest that suffices, if both sizes name the same.
        sizes: Measured sizes around that of the situation.
        reason: Why it says nothing, if so.
    """

    study: str
    kind: Kind | None
    method: str | None = None
    sizes: tuple[int, ...] = ()
    reason: str = ""


def weigh(situation: Situation, judged: Sequence[Judged]) -> list[Evidence]:
    """What each table says of a situation, in the order given."""
    nearest: dict[tuple[str, ...], float] = {}
    for table, _ in judged:
        away = _noise_away(situation, table)
        nearest[_measured(table)] = min(away, nearest.get(_measured(table), away))
    return [
        _of(situation, table, verdict.decisions, nearest[_measured(table)])
        for table, verdict in judged
    ]


def _measured(table: Table) -> tuple[str, ...]:
    """What tables have in common that differ in the noise of their labels."""
    return table.place.backbone, table.place.data, table.place.task


def _noise_away(situation: Situation, table: Table) -> float:
    return round(abs(table.place.label_noise - situation.label_noise), 9)


def conclude(evidence: Sequence[Evidence]) -> tuple[Kind | None, str]:
    """The advice, and why there is none if there is none.

    A study that could not decide contradicts none that did.
    """
    found = {each.kind for each in evidence if each.kind is not None}
    if len(found) > 1:
        found.discard("undecided")
    if not found:
        return None, "no study reaches this situation"
    if len(found) > 1:
        return None, "studies that reach it disagree: " + ", ".join(sorted(found))
    return found.pop(), ""


def _of(
    situation: Situation, table: Table, decisions: Sequence[Decision], nearest: float
) -> Evidence:
    name = heading(table)

    def nothing(reason: str) -> Evidence:
        return Evidence(study=name, kind=None, reason=reason)

    families = {r.backbone.get("family") for r in table.records} - {None, "none"}
    if situation.family not in families:
        return nothing(f"other backbones ({', '.join(sorted(map(str, families))) or 'unknown'})")
    if table.place.task != situation.task:
        return nothing(f"another task ({table.place.task})")
    if _noise_away(situation, table) > NOISE_REACH:
        return nothing(f"{table.place.label_noise:.0%} of its labels are wrong")
    if _noise_away(situation, table) > nearest:
        return nothing("the same was measured with a nearer share of wrong labels")
    if not decisions:
        return nothing("it has no run of full fine-tuning to compare with")
    below = [d for d in decisions if d.size <= situation.size]
    above = [d for d in decisions if d.size >= situation.size]
    if not below or not above:
        measured = [d.size for d in decisions]
        return nothing(f"it measured {min(measured):,} to {max(measured):,} examples")
    around = (below[-1], above[0])
    sizes = tuple(dict.fromkeys(decision.size for decision in around))
    if around[0].kind != around[1].kind:
        said = " and ".join(f"{d.kind} at {d.size:,}" for d in around)
        return nothing(f"it says {said}")
    methods = {decision.method for decision in around}
    return Evidence(
        study=name,
        kind=around[0].kind,
        method=methods.pop() if len(methods) == 1 else None,
        sizes=sizes,
    )
