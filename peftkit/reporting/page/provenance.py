"""What a page says of how it was measured: versions, looks, budgets, what was not run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.reporting import notes
from peftkit.reporting.page.markup import text

if TYPE_CHECKING:
    from peftkit.reporting.summary import Table
    from peftkit.verdict.from_table import Studied


def unfinished(tables: Sequence[Table]) -> str:
    """Cells that failed, and why; nothing where none did."""
    lines = [
        f"<li><code>{text(row.method)}</code>, {row.size:,} examples, seed {record.seed}: "
        f"{text(record.status)}. {text(record.error.partition(chr(10))[0])}</li>"
        for table in tables
        for row in table.rows
        for record in row.unfinished
    ]
    return f"<h2>Cells without a result</h2><ul>{''.join(lines)}</ul>" if lines else ""


def provenance(studied: Sequence[Studied]) -> str:
    """How it was measured, and how to do it again."""
    tables = [table for each in studied for table in each.tables]
    records = [record for table in tables for record in table.records]
    firsts = {notes.heading(each.tables[0]): each.tables[0] for each in studied}
    said = [
        f"{f'{name}: ' if len(firsts) > 1 else ''}{notes.reading(table)} {notes.costs(table)}"
        for name, table in firsts.items()
    ]
    said += [f"{notes.heading(t)}: {notes.origin(t)}" for t in tables]
    versions = "; ".join(dict.fromkeys(filter(None, map(notes.versions, tables))))
    counted = notes.counted(len(records), "record")
    said.append(f"{counted}; {versions}" if versions else counted)
    said += dict.fromkeys(note for table in tables for note in table.notes)
    for each in studied:
        if each.design:
            name = f"{notes.heading(each.tables[0])}: " if len(studied) > 1 else ""
            said += [f"{name}{line}" for line in _designed(each.design)]
    items = "".join(f"<li>{text(line)}</li>" for line in said)
    return (
        f"<h2>How this was measured</h2><ul>{items}</ul><p>To see it again:</p>"
        "<pre>peftkit report DIR\npeftkit verdict DIR</pre>"
    )


def _designed(design: dict[str, Any]) -> list[str]:
    """What a study was asked for, and what of it was not run."""
    said = [_budget(design)]
    if looks := design.get("looks"):
        levels = ", ".join(f"{look['seeds']} (at {look['alpha']:g})" for look in looks)
        said.append(f"Test results were looked at after so many seeds: {levels}.")
    if skipped := design.get("skipped"):
        said.append(
            f"{len(skipped)} cells were not run, as they could not change a verdict: "
            f"{_skipped(skipped)}."
        )
    return said


def _budget(design: dict[str, Any]) -> str:
    """How much each method was given: trials of learning rates, and steps."""
    where = design.get("search_at")
    tried = "each method and size" if where is None else f"each method at {where} examples"
    if (trials := design.get("trials", 1)) > 1:
        said = (
            f"{trials} learning rates for {tried}, chosen on validation rows; what that choice "
            "errs by is in no interval."
        )
    else:
        said = "Every method at its default learning rate, or the one given."
    if steps := design.get("steps"):
        pairs = zip(design["sizes"], steps, strict=True)
        said += f" Optimizer steps: {', '.join(f'{k} with {n} examples' for n, k in pairs)}."
    return said


def _skipped(skipped: Sequence[dict[str, Any]]) -> str:
    seeds: dict[tuple[str, Any], int] = defaultdict(int)
    for each in skipped:
        seeds[each["method"], each["size"]] += 1
    return ", ".join(f"{m} at {n or 'all'} ({count})" for (m, n), count in seeds.items())
