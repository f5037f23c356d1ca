"""The cost-quality table of a page, sortable by every column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from peftkit.reporting.page import charts
from peftkit.reporting.page.markup import text

if TYPE_CHECKING:
    from peftkit.reporting.summary import Row, Table

COLUMNS = (  # heading, field of `charts.point`, digits
    ("rung", "rung", None),
    ("examples", "size", 0),
    ("score", "score", 2),
    ("vs full", "versus_full", 2),
    ("trainable", "trainable", 0),
    ("train s", "seconds", 1),
    ("memory GB", "memory", 3),
    ("tensors GB", "tensors", 3),
    ("energy kJ", "energy", 2),
    ("adapter MB", "bytes", 3),
    ("seeds", "seeds", 0),
)


def quality_table(table: Table) -> str:
    """The rows, sortable."""
    points = [(row, _point(table, row)) for row in table.rows]
    used = [c for c in COLUMNS if any(p.get(c[1]) is not None for _, p in points)]
    unit = " %" if table.metric.is_share else ""
    heads = "".join(
        f"<th{' class=text' if digits is None else ''}><button>"
        f"{text(f'{table.metric.name}{unit}' if field == 'score' else head)}</button></th>"
        for head, field, digits in used
    )
    lines = []
    for row, found in points:
        cells = [f'<td data-value="{text(row.method)}"><code>{text(row.method)}</code></td>']
        for _, field, digits in used:
            cells.append(_cell(row, found, field, digits))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    noise = table.place.label_noise
    caption = f"<h3>{100 * noise:g} % of training labels wrong</h3>" if noise else ""
    return (
        f'{caption}<div class="wide"><table class="quality"><thead><tr><th><button>method</button>'
        f"</th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _point(table: Table, row: Row) -> dict[str, Any]:
    found = charts.point(table, row)
    scale = table.metric.scale
    found["half"] = scale * row.quality.half_width() if row.quality else None
    found["versus_full"] = scale * row.versus_full.mean if row.versus_full else None
    found["versus_half"] = scale * row.versus_full.half_width() if row.versus_full else None
    return found


def _cell(row: Row, found: dict[str, Any], field: str, digits: int | None) -> str:
    value = found.get(field)
    if value is None:
        return '<td data-value=""></td>'
    if digits is None:
        return f'<td class="text" data-value="{text(value)}">{text(value)}</td>'
    shown = f"{value:,.{digits}f}"
    half = None
    if field == "score":
        half = found["half"]  # not from the ends of the interval, which are cut at 0 and 100
        shown = f"<b>{shown}</b>" if row.best else shown
    elif field == "versus_full":
        shown, half = f"{value:+.{digits}f}", found["versus_half"]
    if half is not None and math.isfinite(half):
        shown += f' <span class="soft">&plusmn; {half:.{digits}f}</span>'
    if field == "score" and row.ties_with_best and not row.best:
        shown += ' <span class="soft" title="not told from the best">=</span>'
    return f'<td data-value="{value}">{shown}</td>'
