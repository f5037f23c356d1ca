"""The picture of the table: quality against trainable parameters and against memory.

One pair of panels per table, at its largest size. A point is a method's mean over seeds, its bar
reaches from the lowest to the highest seed. Methods that do not adapt the backbone are horizontal
lines. The thin step line is the frontier: the best mean that can be had for at most that cost.

Files are byte-identical for the same records: no dates, fixed identifiers, text as outlines.
Colours: Okabe and Ito, Color Universal Design (2008), without yellow, which is too light on white;
methods beyond seven also differ by marker.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit import quantities as q
from peftkit.reporting import notes
from peftkit.reporting.labels import in_a_picture
from peftkit.reporting.panel import Level, Panel, Point, Scale
from peftkit.reporting.summary import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEVEL_COLOUR = "#555555"
_DASHES = ((0, (6, 2)), (0, (3, 2)), (0, (6, 2, 1, 2)))
_WIDTH, _HEIGHT = 12.0, 6.1  # inches, of one pair of panels with its words
_LEFT, _GAP, _RIGHT, _TOP, _BOTTOM = 0.70, 0.30, 0.35, 0.80, 1.10
_CAPTION_WIDTH = 175  # characters
_DPI = 150
_WIDE = 10.0  # a logarithmic axis for memory from this ratio on
_CUT_FROM, _CUT_TO = 0.4, 0.9  # shares of the vertical axis: such an empty stretch is cut short
_MOST_NAMES = 16  # points that are named where they stand; more are numbered
_LINE = 0.15  # inches a line of the caption takes
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "peftkit",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
Style = tuple[str, str]


def write_frontier(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write `frontier.svg` and `frontier.png`; nothing where no run ended well.

    Returns:
        The files written.
    """
    import matplotlib.style

    tables = [table for table in tables if any(_is_shown(row) for row in _largest(table))]
    if not tables:
        return []
    svg, png = folder / "frontier.svg", folder / "frontier.png"
    with matplotlib.style.context(["default", _SETTINGS]):
        figure = frontier(tables)
        figure.savefig(png, dpi=_DPI, metadata={"Software": None})
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg.write_text(_shortened(drawn.getvalue()), encoding="utf-8")
    return [svg, png]


def _shortened(svg: str) -> str:
    """Outlines to a hundredth of a point: outlined names are most of the file, at six decimals."""
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)


def frontier(tables: Sequence[Table]) -> Figure:
    """The figure, with one pair of panels per table."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    captions = [textwrap.wrap(_caption(table), _CAPTION_WIDTH) for table in tables]
    heights = [_HEIGHT + _LINE * max(0, len(lines) - 2) for lines in captions]
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    styles = _styles(tables)
    top = sum(heights)
    for table, lines, height in zip(tables, captions, heights, strict=True):
        _draw_table(figure, table, styles, top)
        figure.text(
            _LEFT / _WIDTH,
            (top - _HEIGHT + 0.55) / sum(heights),
            "\n".join(lines),
            fontsize=8.5,
            va="top",
            color="#555555",
        )
        top -= height
    return figure


def _styles(tables: Sequence[Table]) -> dict[str, Style]:
    """One colour and marker per method, the same in all panels."""
    shown = (row.method for table in tables for row in table.rows if _is_shown(row))
    methods = dict.fromkeys(shown)
    return {
        method: (_COLOURS[n % len(_COLOURS)], _MARKERS[n // len(_COLOURS) % len(_MARKERS)])
        for n, method in enumerate(methods)
    }


def _draw_table(figure: Figure, table: Table, styles: dict[str, Style], top: float) -> None:
    """One pair of panels with its title, `top` inches above the figure's lower edge."""
    total = figure.get_figheight()
    floor = top - _HEIGHT
    width = (_WIDTH - _LEFT - _GAP - _RIGHT) / 2
    for place, panel in enumerate(_panels(table, styles)):
        left = _LEFT + place * (width + _GAP)
        box = (left, floor + _BOTTOM, width, _HEIGHT - _TOP - _BOTTOM)
        axes = figure.add_axes(
            (box[0] / _WIDTH, box[1] / total, box[2] / _WIDTH, box[3] / total),
        )
        _draw(axes, panel, table, is_first=place == 0)
    title = f"{notes.heading(table)}, {table.sizes[-1]:,} training examples"
    left = _LEFT / _WIDTH
    figure.text(left, (top - 0.30) / total, title, fontsize=13, weight="bold", va="center")
    words = notes.setting(table)
    figure.text(left, (top - 0.55) / total, words, va="center", color="#555555")


def _draw(axes: Axes, panel: Panel | None, table: Table, *, is_first: bool) -> None:
    """A panel, or a word where its cost was not recorded."""
    if panel is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not recorded", ha="center", color="#555555", transform=axes.transAxes)
        return
    from peftkit.reporting.drawing import draw_panel

    draw_panel(axes, panel)
    if is_first:
        unit = " (%)" if table.metric.is_share else ""
        axes.set_ylabel(f"test {table.metric.name}{unit}")
    else:
        axes.tick_params(labelleft=False)


def _panels(table: Table, styles: dict[str, Style]) -> list[Panel | None]:
    """Quality against parameters, and against memory."""
    rows = [row for row in _largest(table) if row.quality]
    still = [row for row in rows if not _is_shown(row)]
    levels = [_level(row, table, dashes) for row, dashes in zip(still, cycle(_DASHES))]
    untrained = [level.y for level in levels]
    scale = _scale(table, rows)
    choose = max if table.metric.higher_is_better else min
    panels: list[Panel | None] = []
    for name, phase, label, write, always_log in (
        ("trainable_parameters", None, "trainable parameters, method + head", q.count, True),
        ("peak_memory_bytes", "train", "peak memory while training", q.size_in_bytes, False),
    ):
        points = [_point(row, x, table, styles) for row in rows if (x := _cost(row, name, phase))]
        costs = [point.x for point in points]
        panels.append(
            Panel(
                points=points,
                levels=[*levels, *_chance(table)],
                base=choose(untrained) if untrained else None,
                higher_is_better=table.metric.higher_is_better,
                x_label=label + (" (log scale)" if always_log or _is_wide(costs) else ""),
                write_x=_tick(write),
                log=always_log or _is_wide(costs),
                scale=scale,
            )
            if points
            else None
        )
    return panels


def _has_frontier(table: Table) -> bool:
    """Whether some adapted backbone beats all that is not."""
    rows = [row for row in _largest(table) if row.quality]
    best = max(rows, key=lambda r: table.metric.direction * (r.quality.mean if r.quality else 0))
    return _is_shown(best)


def _tick(write: Callable[[float], str]) -> Callable[[float], str]:
    """How to write a round number: 10k, not 10.0k."""
    return lambda value: re.sub(r"\.0+(?=\D|$)", "", write(value))


def _largest(table: Table) -> list[Row]:
    """The rows of the largest size."""
    return [row for row in table.rows if row.size == table.sizes[-1]]


def _is_shown(row: Row) -> bool:
    """Whether a row is a point of the first panel: a result of a backbone that was adapted."""
    adapts = row.rung not in ("reference", "none") and bool(row.cost("trainable_parameters"))
    return row.quality is not None and adapts


def _cost(row: Row, name: str, phase: str | None) -> float | None:
    """A cost of a method that trains something."""
    return row.cost(name, phase) if _is_shown(row) else None


def _is_wide(costs: Sequence[float]) -> bool:
    """Whether costs differ so much that only a logarithmic axis shows them all."""
    return bool(costs) and max(costs) > _WIDE * min(costs)


def _point(row: Row, x: float, table: Table, styles: dict[str, Style]) -> Point:
    """A row as a point, its bar from the lowest to the highest seed."""
    y = table.metric.scale * (row.quality.mean if row.quality else 0.0)
    seeds = [table.metric.scale * value for value in row.by_seed(table.metric.name)]
    colour, marker = styles[row.method]
    name = _numbers(table).get(row.method) or in_a_picture(row.method)
    return Point(name, x, y, min(seeds, default=y), max(seeds, default=y), colour, marker)


def _numbers(table: Table) -> dict[str, str]:
    """Numbers in place of names, where there are too many for names; else empty."""
    shown = [row.method for row in _largest(table) if _is_shown(row)]
    return {m: str(n) for n, m in enumerate(shown, start=1)} if len(shown) > _MOST_NAMES else {}


def _level(row: Row, table: Table, dashes: Any) -> Level:
    """A row that adapts nothing as a line."""
    y = table.metric.scale * (row.quality.mean if row.quality else 0.0)
    return Level(f"{row.method} {y:.{table.metric.digits}f}", y, _LEVEL_COLOUR, dashes)


def _chance(table: Table) -> list[Level]:
    """Chance as a line, if it is known."""
    chance = table.fact("chance")
    if chance is None or table.metric.name != "accuracy":
        return []
    y = table.metric.scale * float(chance)
    return [Level(f"chance {y:.1f}", y, _LEVEL_COLOUR, ":")]


def _scale(table: Table, rows: Sequence[Row]) -> Scale:
    """The vertical axis: all that is shown, a wide empty stretch in it cut short."""
    values = [table.metric.scale * v for row in rows for v in row.by_seed(table.metric.name)]
    values += [table.metric.scale * row.quality.mean for row in rows if row.quality]
    values = sorted([*values, *(level.y for level in _chance(table))])
    whole = (values[-1] - values[0]) or 1.0
    pairs = pairwise([*values, values[-1]])
    gap, low, high = max((above - below, below, above) for below, above in pairs)
    if not _CUT_FROM * whole < gap < _CUT_TO * whole:
        return Scale(values[0] - 0.06 * whole, values[-1] + 0.08 * whole)
    room = 0.06 * (whole - gap) + 0.02 * gap
    return Scale(values[0] - room, values[-1] + room, (low + room, high - room))


def _caption(table: Table) -> str:
    """What the marks mean, and what is not shown."""
    num_seeds = len(table.seeds)
    text = "1 seed. "
    if num_seeds > 1:
        shown = [row for row in _largest(table) if row.done]
        fewer = [f"{row.method}: {len(row.done)}" for row in shown if len(row.done) < num_seeds]
        text = f"Points: mean over {num_seeds} seeds" + (f" ({', '.join(fewer)})" if fewer else "")
        text += ", bars from the lowest to the highest. "
    if _has_frontier(table):
        text += "Thin line: the best mean within that cost. "
    else:
        text += "No adapted backbone beats the best dashed line. "
    if any(row.quality and not _is_shown(row) for row in _largest(table)):
        text += "Dashed: without adapting the backbone. "
    absent = [f"{r.method} ({notes.status_words(r)})" for r in _largest(table) if not r.quality]
    if absent:
        text += f"No result: {', '.join(absent)}. "
    if _scale(table, [row for row in _largest(table) if row.quality]).cut:
        text += "Hatched: the vertical axis is cut short. "
    text += "Memory: peak above the idle process (on CUDA: allocated)."
    numbers = [f"{number}:\u00a0{name}" for name, number in _numbers(table).items()]
    return f"{text} {'; '.join(numbers)}." if numbers else text
