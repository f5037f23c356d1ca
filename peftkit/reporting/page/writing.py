"""Puts the page together: text and table by Python, charts by a script that the page carries."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput
from peftkit.quantities import ABSENT
from peftkit.record import write_atomically
from peftkit.reporting import fits, notes
from peftkit.reporting.across import across
from peftkit.reporting.page import charts, details
from peftkit.reporting.page.axes import Chart
from peftkit.reporting.page.markup import grid, listed, marked, text
from peftkit.reporting.page.prices import price_table
from peftkit.reporting.page.provenance import provenance, unfinished
from peftkit.reporting.page.quality import quality_table
from peftkit.reporting.page.trials import expected_bests, trials_of
from peftkit.verdict import wording
from peftkit.verdict.angles import ANGLES, angles

if TYPE_CHECKING:
    from peftkit.reporting.summary import Table
    from peftkit.verdict import Verdict
    from peftkit.verdict.from_table import Studied

PAGE = "report.html"
_EXPORTS = "window.vegaEmbed = vegaEmbed;"
TEMPLATE = Path(__file__).with_name("page.html")
Judged = tuple["Table", "Verdict | None"]


def write_page(
    folder: Path, studied: Sequence[Studied], price_per_hour: float | None = None
) -> Path:
    """Write report.html: the verdict first, then what it rests on.

    Args:
        folder: That the page goes to.
        studied: What it is about.
        price_per_hour: What an hour of the device costs, in any currency.

    Raises:
        InvalidInput: The extra `html`, which has the charts' library, is not installed.
    """
    bundle = _bundle()
    sections = [
        _Section(number, group, each.folder, price_per_hour)
        for number, (each, group) in enumerate(
            (each, group) for each in studied for group in _by_noise(each.judged)
        )
    ]
    firsts = [section.group[0][0] for section in sections]
    body = [_across(firsts), *(section.html() for section in sections), provenance(studied)]
    specifications = {name: chart for s in sections for name, chart in s.charts.items()}
    title = "; ".join(dict.fromkeys(notes.heading(t) for each in studied for t in each.tables))
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=text(f"peftkit: {title}"),
        body="\n".join(body),
        charts=json.dumps(specifications, allow_nan=False).replace("<", "\\u003c"),
        bundle=bundle,
    )
    write_atomically(folder / PAGE, page)
    return folder / PAGE


@functools.cache
def _bundle() -> str:
    """The charts' library as one script; to put it together takes seconds."""
    try:
        from vl_convert import javascript_bundle
    except ImportError as error:
        raise InvalidInput(
            "the charts of report.html need vl-convert-python",
            next_step="pip install 'peftkit[html]'",
        ) from error
    return str(javascript_bundle(_EXPORTS)).replace("</script", "<\\/script")


def _across(tables: Sequence[Table]) -> str:
    """All tasks together; nothing where there are few."""
    found = across(tables)
    if not found:
        return ""
    rows = [
        [each.method, str(each.num_tasks), f"{each.middle:.1f}",
         ABSENT if each.beaten is None else f"{100 * each.beaten:.0f}"]
        for each in found
    ]  # fmt: skip
    said = (
        "At the largest size of each task: the interquartile mean of scores over tasks and seeds, "
        "and how often a run of full fine-tuning beats one of the method on a task drawn at random "
        "(Agarwal et al. 2021). Descriptions, not tests."
    )
    heads = ["method", "tasks", "interquartile mean %", "full is better %"]
    return f'<h1>Across tasks</h1><p class="soft">{text(said)}</p>{grid(heads, rows)}'


def _by_noise(judged: Sequence[Judged]) -> list[list[Judged]]:
    """Tables that differ in their label noise alone, the least first."""
    groups: dict[Any, list[Judged]] = defaultdict(list)
    for table, verdict in judged:
        place = table.place
        key = (
            place.backbone_fingerprint, place.data_fingerprint, place.task, place.data,
            place.folder,
        )  # fmt: skip
        groups[key].append((table, verdict))
    return [sorted(g, key=lambda each: each[0].place.label_noise) for g in groups.values()]


class _Section:
    """One backbone and task: its text, and the charts that its script draws."""

    def __init__(
        self, number: int, group: list[Judged], folder: Path, price_per_hour: float | None
    ) -> None:
        self.number = number
        self.group = group
        self.folder = folder
        self.price_per_hour = price_per_hour
        self.charts: dict[str, Chart] = {}

    def html(self) -> str:
        """The section, verdict first; fills `charts`."""
        (table, verdict), others = self.group[0], self.group[1:]
        parts = [
            f"<h1>{text(notes.heading(table))}</h1>",
            f'<p class="soft">{text(notes.setting(table))}</p>',
        ]
        if verdict is not None:
            noisy = [(t, v) for t, v in others if v is not None]
            parts.append(_verdict(table, verdict, noisy))
        parts.append("<h2>Cost and quality</h2>")
        parts += [quality_table(other) for other, _ in self.group]
        parts += self._about_cost(table)
        parts += self._about_data(table, verdict)
        parts += self._about_training(table)
        parts.append(unfinished([t for t, _ in self.group]))
        return "\n".join(part for part in parts if part)

    def _about_cost(self, table: Table) -> list[str]:
        said = "Intervals are 95 %, over seeds and test items. Dashed: without training. "
        said += "Hover for the records behind a point."
        return [
            self._chart("frontier", "Cost-quality frontier", charts.frontier(table), said),
            price_table(table, self.price_per_hour),
        ]

    def _about_data(self, table: Table, verdict: Verdict | None) -> list[str]:
        fitted = fits.fitted_curves(table)
        laws = [fits.curve_in_words(table, method, curve) for method, curve in fitted.items()]
        laws += [fits.joint_law_in_words(*law) for law in fits.fitted_joint_laws(table).items()]
        found = [
            self._chart("curves", "Learning curves", charts.learning_curves(table, fitted)),
            listed(laws),
        ]
        if verdict is not None:
            said = (
                "Dashed: the margin. Intervals are of one method at a time; the verdict's tests "
                "are stricter where there are several methods or looks."
            )
            chart = details.differences(verdict)
            found.append(self._chart("differences", "Paired differences", chart, said))
        noise = charts.noise_curves([t for t, _ in self.group])
        return [*found, self._chart("noise", "Label noise", noise)]

    def _about_training(self, table: Table) -> list[str]:
        trials, metric = trials_of(self.folder), table.metric
        tried = details.rate_sensitivity(trials, metric.name, metric.scale)
        return [
            self._chart("rates", "Learning rates tried", tried),
            listed(expected_bests(trials, metric)),
            self._chart("memory", "Memory by parts", details.memory_parts(table)),
        ]

    def _chart(self, name: str, title: str, found: Chart | None, said: str = "") -> str:
        """Heading, choice of axis and place of a chart; nothing without one."""
        if found is None:
            return ""
        identity = f"t{self.number}-{name}"
        self.charts[identity] = found
        parts = [f"<h2>{text(title)}</h2>"]
        if said:
            parts.append(f'<p class="soft">{text(said)}</p>')
        if options := found.get("usermeta", {}).get("choices"):
            choices = "".join(
                f'<option value="{text(field)}">{text(label)}</option>'
                for field, label in options.items()
            )
            parts.append(
                f'<label>x axis <select data-chart="{identity}">{choices}</select></label>'
            )
        parts.append(f'<div class="chart" id="{identity}"></div>')
        return "\n".join(parts)


def _verdict(table: Table, verdict: Verdict, noisy: list[tuple[Table, Verdict]]) -> str:
    margin = f"{verdict.results.scale * verdict.margin:g} {verdict.results.unit}"
    lines = "<br>".join(text(wording.headline(d)) for d in verdict.decisions[:-1])
    final = verdict.final
    head = f"<strong>{text(wording.headline(final))}</strong>" if final else ""
    said = "".join(
        f"<h3>{angle}</h3><p>{marked(paragraph)}</p>"
        for angle, paragraph in zip(ANGLES, angles(table, verdict, noisy), strict=True)
    )
    return (
        f'<div class="verdict">{head}{"<br>" if lines else ""}{lines}'
        f'<p class="soft">Margin {text(margin)}: by how much full fine-tuning has to be better '
        f"for it to count.</p></div>{said}"
    )
