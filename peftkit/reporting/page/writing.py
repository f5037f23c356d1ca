"""Puts the page together: text and table by Python, charts by a script that the page carries."""

from __future__ import annotations

import html
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput
from peftkit.record import write_atomically
from peftkit.reporting import notes
from peftkit.reporting.page import charts
from peftkit.verdict import wording
from peftkit.verdict.angles import ANGLES, angles
from peftkit.verdict.from_table import RATES_FILE

if TYPE_CHECKING:
    from peftkit.reporting.summary import Row, Table
    from peftkit.verdict import Verdict

PAGE = "report.html"
_EXPORTS = "window.vegaEmbed = vegaEmbed;"
TEMPLATE = Path(__file__).with_name("page.html")
Judged = tuple["Table", "Verdict | None"]
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


def write_page(
    folder: Path, judged: Sequence[Judged], design: dict[str, Any] | None = None
) -> Path:
    """Write report.html: the verdict first, then what it rests on.

    Args:
        folder: Of the records.
        judged: Tables and their verdicts, if they have one.
        design: What a study was asked for, if this is one.

    Raises:
        InvalidInput: The extra `html`, which has the charts' library, is not installed.
    """
    try:
        from vl_convert import javascript_bundle
    except ImportError as error:
        raise InvalidInput(
            "the charts of report.html need vl-convert-python",
            next_step="pip install 'peftkit[html]'",
        ) from error
    specifications: dict[str, Any] = {}
    parts = []
    for group in _by_noise(judged):
        parts.append(_section(group, specifications, folder))
    parts.append(_how(judged, design))
    title = "; ".join(dict.fromkeys(notes.heading(table) for table, _ in judged))
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(f"peftkit: {title}"),
        body="\n".join(parts),
        charts=json.dumps(specifications, allow_nan=False).replace("</", "<\\/"),
        bundle=javascript_bundle(_EXPORTS).replace("</script", "<\\/script"),
    )
    write_atomically(folder / PAGE, text)
    return folder / PAGE


def _by_noise(judged: Sequence[Judged]) -> list[list[Judged]]:
    """Tables that differ in their label noise alone, the least first."""
    groups: dict[Any, list[Judged]] = defaultdict(list)
    for table, verdict in judged:
        place = table.place
        key = (place.backbone_fingerprint, place.data_fingerprint, place.task, place.data)
        groups[key].append((table, verdict))
    return [sorted(g, key=lambda each: each[0].place.label_noise) for g in groups.values()]


def _section(group: list[Judged], specifications: dict[str, Any], folder: Path) -> str:
    """One backbone and task."""
    table, verdict = group[0]
    number = len({name.partition("-")[0] for name in specifications})
    shown: list[str] = [f"<h1>{_text(notes.heading(table))}</h1>"]
    shown.append(f'<p class="soft">{_text(notes.setting(table))}</p>')

    def chart(name: str, title: str, found: charts.Chart | None, text: str = "") -> None:
        if found is None:
            return
        identity = f"t{number}-{name}"
        options = found.get("usermeta", {}).get("choices") or {}
        specifications[identity] = found
        shown.append(f"<h2>{_text(title)}</h2>")
        if text:
            shown.append(f'<p class="soft">{_text(text)}</p>')
        if options:
            choices = "".join(
                f'<option value="{_text(field)}">{_text(label)}</option>'
                for field, label in options.items()
            )
            shown.append(
                f'<label>x axis <select data-chart="{identity}">{choices}</select></label>'
            )
        shown.append(f'<div class="chart" id="{identity}"></div>')

    if verdict is not None:
        noisy = [(t, v) for t, v in group[1:] if v is not None]
        shown.append(_verdict(table, verdict, noisy))
    shown.append("<h2>Cost and quality</h2>")
    shown += [_table(other) for other, _ in group]
    chart(
        "frontier", "Cost-quality frontier", charts.frontier(table),
        "Intervals are 95 %, over seeds and test items. Hover for the records behind a point.",
    )  # fmt: skip
    chart("curves", "Learning curves", charts.learning_curves(table))
    if verdict is not None:
        chart(
            "differences", "Paired differences", charts.differences(verdict),
            "Dashed: the margin. Left of it a method is close enough; an interval says how surely.",
        )  # fmt: skip
    chart("noise", "Label noise", charts.noise_curves([t for t, _ in group]))
    chart("rates", "Learning rates tried", charts.rate_sensitivity(
        _trials(folder), table.metric.name, table.metric.scale))  # fmt: skip
    chart("memory", "Memory by parts", charts.memory_parts(table))
    shown.append(_unfinished([t for t, _ in group]))
    return "\n".join(part for part in shown if part)


def _verdict(table: Table, verdict: Verdict, noisy: list[tuple[Table, Verdict]]) -> str:
    margin = f"{verdict.results.scale * verdict.margin:g} {verdict.results.unit}"
    lines = "<br>".join(_text(wording.headline(d)) for d in verdict.decisions[:-1])
    final = verdict.final
    head = f"<strong>{_text(wording.headline(final))}</strong>" if final else ""
    said = "".join(
        f"<h3>{angle}</h3><p>{_marked(text)}</p>"
        for angle, text in zip(ANGLES, angles(table, verdict, noisy), strict=True)
    )
    return (
        f'<div class="verdict">{head}{"<br>" if lines else ""}{lines}'
        f'<p class="soft">Margin {_text(margin)}: by how much full fine-tuning has to be better '
        f"for it to count.</p></div>{said}"
    )


def _table(table: Table) -> str:
    """The rows, sortable."""
    points = [(row, _point(table, row)) for row in table.rows]
    used = [c for c in COLUMNS if any(p.get(c[1]) is not None for _, p in points)]
    unit = " %" if table.metric.is_share else ""
    heads = "".join(
        f"<th{' class=text' if digits is None else ''}><button>"
        f"{_text(f'{table.metric.name}{unit}' if field == 'score' else head)}</button></th>"
        for head, field, digits in used
    )
    lines = []
    for row, found in points:
        cells = [f'<td data-value="{_text(row.method)}"><code>{_text(row.method)}</code></td>']
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
    found["versus_full"] = scale * row.versus_full.mean if row.versus_full else None
    found["versus_half"] = scale * row.versus_full.half_width() if row.versus_full else None
    return found


def _cell(row: Row, found: dict[str, Any], field: str, digits: int | None) -> str:
    value = found.get(field)
    if value is None:
        return '<td data-value=""></td>'
    if digits is None:
        return f'<td class="text" data-value="{_text(value)}">{_text(value)}</td>'
    shown = f"{value:,.{digits}f}"
    half = None
    if field == "score":
        half = None if found["high"] is None else found["high"] - value
        shown = f"<b>{shown}</b>" if row.best else shown
    elif field == "versus_full":
        shown, half = f"{value:+.{digits}f}", found["versus_half"]
    if half is not None and math.isfinite(half):
        shown += f' <span class="soft">&plusmn; {half:.{digits}f}</span>'
    if field == "score" and row.ties_with_best and not row.best:
        shown += ' <span class="soft" title="not told from the best">=</span>'
    return f'<td data-value="{value}">{shown}</td>'


def _unfinished(tables: Sequence[Table]) -> str:
    lines = [
        f"<li><code>{_text(row.method)}</code>, {row.size:,} examples, seed {record.seed}: "
        f"{_text(record.status)}. {_text(record.error.partition(chr(10))[0])}</li>"
        for table in tables
        for row in table.rows
        for record in row.unfinished
    ]
    return f"<h2>Cells without a result</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _how(judged: Sequence[Judged], design: dict[str, Any] | None) -> str:
    """How it was measured, and how to do it again."""
    tables = [table for table, _ in judged]
    records = [record for table in tables for record in table.records]
    shown = ["<h2>How this was measured</h2><ul>"]
    shown += [f"<li>{_text(notes.reading(t))} {_text(notes.costs(t))}</li>" for t in tables[:1]]
    shown += [f"<li>{_text(notes.heading(t))}: {_text(notes.origin(t))}</li>" for t in tables]
    versions = "; ".join(dict.fromkeys(filter(None, map(notes.versions, tables))))
    counted = notes.counted(len(records), "record")
    shown.append(f"<li>{_text(f'{counted}; {versions}' if versions else counted)}</li>")
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        shown.append(f"<li>{_text(note)}</li>")
    if design:
        looks = design.get("looks") or ()
        if looks:
            said = ", ".join(f"{look['seeds']} (at {look['alpha']:g})" for look in looks)
            shown.append(f"<li>Test results were looked at after so many seeds: {said}.</li>")
        shown.append(f"<li>{_text(_budget(design))}</li>")
        skipped = design.get("skipped") or ()
        if skipped:
            shown.append(
                f"<li>{len(skipped)} cells were not run, as they could not change a verdict: "
                f"{_text(_skipped(skipped))}.</li>"
            )
    shown.append("</ul><p>To see it again:</p>")
    shown.append("<pre>peftkit report DIR\npeftkit verdict DIR</pre>")
    return "\n".join(shown)


def _budget(design: dict[str, Any]) -> str:
    """How much each method was given: trials of learning rates, and steps."""
    where = design.get("search_at")
    tried = "each method and size" if where is None else f"each method at {where} examples"
    said = (
        f"{design.get('trials', 1)} learning rates for {tried}, chosen on validation rows; what "
        "that choice errs by is in no interval."
    )
    if steps := design.get("steps"):
        pairs = zip(design["sizes"], steps, strict=True)
        said += f" Optimizer steps: {', '.join(f'{k} with {n} examples' for n, k in pairs)}."
    return said


def _skipped(skipped: Sequence[dict[str, Any]]) -> str:
    seeds: dict[tuple[str, Any], int] = defaultdict(int)
    for each in skipped:
        seeds[each["method"], each["size"]] += 1
    return ", ".join(f"{m} at {n or 'all'} ({count})" for (m, n), count in seeds.items())


def _trials(folder: Path) -> list[dict[str, Any]]:
    path = folder / RATES_FILE
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, list) else []


def _text(value: object) -> str:
    return html.escape(str(value))


def _marked(text: str) -> str:
    """Escaped text whose `quoted` words are code."""
    pieces = _text(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
