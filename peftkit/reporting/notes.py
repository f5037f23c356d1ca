"""The words around a table: what it compares, what its numbers mean, and what went wrong.

Every sentence is made from the records, so none can say more than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peftkit.quantities import PLUS_MINUS
from peftkit.record import Record
from peftkit.reporting.summary import FEWEST_FOR_TIES, Row, Table
from peftkit.statistics.estimates import LEVEL

_SHOWN_VERSIONS = ("peftkit", "python", "torch", "transformers", "peft")
_REASON_LENGTH = 200


def heading(table: Table) -> str:
    """`backbone on data`, with the label noise if there is any, and the folder if that is named."""
    folder = f" ({table.place.folder})" if table.place.folder else ""
    share = table.place.label_noise
    noise = f", {100 * share:g} % of training labels wrong" if share else ""
    return f"{table.place.backbone} on {table.place.data}{noise}{folder}"


def origin(table: Table) -> str:
    """Which weights and which rows of data, by fingerprint."""
    weights = table.place.backbone_fingerprint[:12] or "not recorded"
    rows = table.place.data_fingerprint[:12] or "not recorded"
    return f"weights {weights}, data {rows}"


def apart(tables: Sequence[Table]) -> str:
    """Why there are several tables; empty for one."""
    if len(tables) < 2:
        return ""
    folders = ", or of different folders," if any(t.place.folder for t in tables) else ""
    return (
        f"{len(tables)} tables: runs on different weights, data, tasks or label noise{folders} "
        "are not compared with one another"
    )


def setting(table: Table) -> str:
    """Chance level, test items, seeds: what every number of the table rests on."""
    metric = table.metric
    parts = []
    if (chance := table.fact("chance")) is not None and metric.name == "accuracy":
        parts.append(f"chance {metric.scale * chance:.1f} %")
    if (num_test := table.fact("num_test")) is not None:
        parts.append(f"{num_test:,} test items")
    parts.append(counted(len(table.seeds), "seed"))
    return ", ".join(parts)


def reading(table: Table) -> str:
    """How to read the error and the marks."""
    sources = {row.quality.sources for row in table.rows if row.quality}
    both, items = "test items and seeds", "test items"
    level = f"{100 * LEVEL:g} %"
    text = f"{PLUS_MINUS} is half the width of a {level} interval over "
    if sources == {items}:
        text += "test items only: with 1 seed nothing says what another seed would give"
    elif sources <= {"seeds", "nothing"}:
        text += "seeds only"
    else:
        text += both + ("; over test items only where there is 1 seed" if items in sources else "")
    if max((row.quality.num_seeds for row in table.rows if row.quality), default=0) == 2:
        text += ". With 2 seeds it can be several times wider than with 3"
    unit = "points" if table.metric.is_share else table.metric.name
    if any(row.versus_full for row in table.rows):
        text += f". vs full: paired difference in {unit}, same seeds and test items"
    if any(row.ties_with_best and not row.best for row in table.rows):
        text += f". * best of its size, or not told apart from it at {level} (paired)"
    elif any(row.best for row in table.rows):
        text += ". * best mean of its size"
        if len(table.seeds) < FEWEST_FOR_TIES:
            text += f"; ties are marked from {FEWEST_FOR_TIES} seeds on"
    return text + "."


def costs(table: Table) -> str:
    """What the costs were measured on."""
    records = [record for row in table.rows for record in row.done]
    machines = _distinct(_machine(record) for record in records)
    text = f"Costs: at {table.sizes[-1]:,} examples, mean over seeds; train memory is the highest "
    text += "peak above the idle process (on CUDA: allocated)"
    if any(row.cost("energy_joules", "train") for row in table.rows):
        text += "; energy is the whole GPU's, idle draw and other processes included"
    if any(row.cost("inference_slowdown") for row in table.rows):
        text += "; slowdown is against the bare backbone"
    if neutral := table.fact("neutral_text"):
        text += f"; forgetting is the change in loss on {neutral}, nats per token"
    if len(machines) > 1:
        text += f". Measured in {len(machines)} settings, so not comparable throughout"
    elif machines:
        text += ". Measured on"
    if machines:
        text += " " + "; ".join(machines)
    return text + _company(records) + "."


def data(table: Table) -> str:
    """Where the rows come from, and what was done to them on the way."""
    source, remarks = table.fact("source"), table.fact("notes") or []
    return ". ".join(["Data: " + str(source or table.place.data), *map(str, remarks)]) + "."


def versions(table: Table) -> str:
    """Versions of what ran, or empty if the records have none."""
    found: dict[str, list[str]] = {}
    for record in table.records:
        recorded = record.environment.get("versions")
        for name, version in (recorded or {}).items() if isinstance(recorded, dict) else ():
            known = found.setdefault(name, [])
            if str(version) not in known:
                known.append(str(version))
    names = [name for name in _SHOWN_VERSIONS if name in found] or sorted(found)[:6]
    return ", ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in names)


def footnotes(table: Table) -> tuple[dict[str, int], list[str]]:
    """Numbered notes on methods that did not fully work out.

    Returns:
        The number of the note by method, and the notes; the first has number 1.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for row in table.rows:
        remarks = (_shortfall(row, len(table.seeds)), _at_chance(row, table))
        if text := "; ".join(filter(None, remarks)):
            found.setdefault(row.method, {}).setdefault(text, []).append(row.size)
    notes = []
    for method, sizes in found.items():
        parts = [f"at {', '.join(f'{n:,}' for n in at)}: {text}" for text, at in sizes.items()]
        notes.append(f"{method} " + "; ".join(parts))
    return {method: number for number, method in enumerate(found, start=1)}, notes


def status_words(row: Row) -> str:
    """How the runs of a row without any result ended, in two words."""
    kinds = _distinct(record.status for record in row.unfinished)
    return _words(kinds[0]) if len(kinds) == 1 else "failed"


def counted(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _shortfall(row: Row, num_seeds: int) -> str:
    """Why a row has fewer seeds than the table; empty if it has them all."""
    if len(row.done) == num_seeds:
        return ""
    reasons: dict[str, list[int]] = {}
    for record in row.unfinished:
        reason = " ".join(record.error.split())
        if len(reason) > _REASON_LENGTH:
            reason = reason[:_REASON_LENGTH].rstrip() + " ..."
        text = _words(record.status)
        if reason:
            text = reason if reason.lower().startswith(text) else f"{text}: {reason}"
        reasons.setdefault(text, []).append(record.seed)
    if row.missing:
        reasons["not run"] = list(row.missing)
    if not row.done and len(reasons) == 1:
        return next(iter(reasons))
    parts = [f"{_seeds(seeds)} {text}" for text, seeds in reasons.items()]
    return f"{len(row.done)} of {counted(num_seeds, 'seed')}, " + ", ".join(parts)


def _at_chance(row: Row, table: Table) -> str:
    """Which seeds of a trained method are no better than a guess; empty if all are.

    One such run widens its row's interval many times over: a reader should know that it is one.
    """
    chance, metric = table.fact("chance"), table.metric
    if chance is None or row.rung == "none":
        return ""
    lost = [
        record.seed
        for record in row.done
        if (score := record.metrics.get("test", {}).get(metric.name)) is not None
        and metric.direction * (score - chance) <= 0
    ]
    level = f"{metric.scale * chance:.1f}{' %' if metric.is_share else ''}"
    return f"{_seeds(lost)} no better than chance ({level})" if lost else ""


def _seeds(seeds: list[int]) -> str:
    """`seed 2`, `seeds 0, 1, 2`."""
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def _words(status: str) -> str:
    """A status as words."""
    return status.replace("_", " ")


def _machine(record: Record) -> str:
    """Device, threads and precision of one run."""
    found = record.environment
    names = [str(found[name]) for name in ("device", "device_name") if found.get(name)]
    parts = [": ".join(names)] if names else []
    if found.get("threads"):
        parts.append(counted(int(found["threads"]), "thread"))
    if found.get("precision"):
        parts.append(str(found["precision"]))
    return ", ".join(parts)


def _company(records: Iterable[Record]) -> str:
    """How many other runs shared the machine, if that was recorded."""
    found = [r.environment["neighbours"] for r in records if r.environment.get("neighbours")]
    most = max((n if isinstance(n, int) else len(n) for n in found), default=0)
    return f", beside up to {counted(most, 'other run')}" if most else ""


def _distinct(texts: Iterable[str]) -> list[str]:
    """Distinct texts in order of appearance, without empty ones."""
    return [text for text in dict.fromkeys(texts) if text]
