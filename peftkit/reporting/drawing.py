"""Draw a panel: every point and line named where it stands, nothing covering anything else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from peftkit.reporting.panel import Array, Level, Panel, Point, Scale, frontier_steps
from peftkit.reporting.placement import Options, along, around, place

_TEXT, _QUIET, _FRONTIER, _GRID = "#222222", "#707070", "#8a8a8a", "#e6e6e6"
_LABEL_SIZE = 9.5
_MARKER = 7.0  # points across
_GAP, _RADII = 6.0, (10.0, 16.0, 24.0, 34.0, 46.0, 60.0, 78.0)


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw points, lines, the frontier, and labels that do not cover one another."""
    _set_horizontal(axes, panel)
    _set_vertical(axes, panel.scale)
    for level in panel.levels:
        axes.axhline(level.y, color=level.colour, linestyle=level.dashes, linewidth=1.1, zorder=1)
    steps = frontier_steps(panel, axes.get_xlim())
    if steps:
        axes.plot(*zip(*steps, strict=True), color=_FRONTIER, linewidth=0.9, zorder=2)
    for point in panel.points:
        axes.vlines(point.x, point.low, point.high, color=point.colour, linewidth=1.5, zorder=3)
        (mark,) = axes.plot(point.x, point.y, point.marker, color=point.colour, zorder=4)
        mark.set(markersize=_MARKER, markeredgecolor="white", markeredgewidth=0.7)
    _draw_labels(axes, panel, steps)


def _set_horizontal(axes: Axes, panel: Panel) -> None:
    """The axis of the costs."""
    costs = [point.x for point in panel.points]
    if panel.log:
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 2.2, max(costs) * 2.2)
        if max(costs) < 100 * min(costs):
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, max(costs) * 1.12)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: panel.write_x(value)))
    axes.set_xlabel(panel.x_label, color=_TEXT)


def _set_vertical(axes: Axes, scale: Scale) -> None:
    """The axis of the metric, the grid, and the mark of a cut."""
    axes.set_yscale("function", functions=scale.warp())
    axes.set_ylim(scale.low, scale.high)
    axes.set_yticks(scale.ticks())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(True, which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="major", color=_QUIET, labelcolor=_TEXT, length=3)
    for spine in axes.spines.values():
        spine.set_color("#b0b0b0")
    if scale.cut:
        axes.axhspan(*scale.cut, facecolor="white", hatch="////", edgecolor=_GRID, zorder=0.6)


def _draw_labels(axes: Axes, panel: Panel, steps: Sequence[tuple[float, float]]) -> None:
    """Name every point and every level."""
    edges = axes.get_window_extent()
    bounds = (edges.x0 + 2, edges.y0 + 2, edges.x1 + 6, edges.y1 + 12)
    names: list[Point | Level] = [*panel.points, *panel.levels]
    options = [_options(axes, each, bounds) for each in names]
    chosen = place(options, _solid(axes, panel), _thin(axes, panel, steps), bounds)
    for each, candidates, at in zip(names, options, chosen, strict=True):
        leads = bool(np.isfinite(candidates.leaders[at]).all())
        _draw_label(axes, each, candidates.boxes[at], leads=leads)


def _options(axes: Axes, each: Point | Level, bounds: tuple[float, ...]) -> Options:
    """Where a label may stand: around its point, or along its line."""
    size = _text_size(axes, each.name)
    unit = _pixels(axes)
    if isinstance(each, Point):
        anchor = _at(axes, each.x, each.y)
        return around(anchor, size, gap=_GAP * unit, radii=[radius * unit for radius in _RADII])
    _, y = _at(axes, axes.get_xlim()[1], each.y)
    return along(y, size, (bounds[0] + 4, bounds[2] - 8), gap=1.5 * unit)


def _solid(axes: Axes, panel: Panel) -> Array:
    """Boxes of points and their bars."""
    half = _MARKER / 2 * _pixels(axes)
    found = []
    for point in panel.points:
        x, y = _at(axes, point.x, point.y)
        found.append((x - half, y - half, x + half, y + half))
        low, high = _at(axes, point.x, point.low)[1], _at(axes, point.x, point.high)[1]
        found.append((x - 1.5, low, x + 1.5, high))
    return np.array(found).reshape(-1, 4)


def _thin(axes: Axes, panel: Panel, steps: Sequence[tuple[float, float]]) -> Array:
    """Boxes of the lines."""
    left, right = axes.get_xlim()
    segments = [*itertools.pairwise(steps)]
    segments += [((left, level.y), (right, level.y)) for level in panel.levels]
    found = []
    for start, end in segments:
        (x0, y0), (x1, y1) = _at(axes, *start), _at(axes, *end)
        found.append((min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))
    return np.array(found).reshape(-1, 4)


def _draw_label(axes: Axes, each: Point | Level, box: Array, *, leads: bool) -> None:
    """Write a name into its box, with a leader line where it stands apart."""
    x = each.x if isinstance(each, Point) else axes.get_xlim()[0]
    anchor = np.array(_at(axes, x, each.y))
    shift = ((box[:2] + box[2:]) / 2 - anchor) / _pixels(axes)
    line = {"arrowstyle": "-", "color": _QUIET, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
    axes.annotate(
        each.name,
        xy=(x, each.y),
        xytext=(float(shift[0]), float(shift[1])),
        textcoords="offset points",
        ha="center",
        va="center_baseline",
        fontsize=_LABEL_SIZE,
        color=_TEXT if isinstance(each, Point) else each.colour,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        arrowprops=line if leads else None,
        annotation_clip=False,
        zorder=5,
    )


def _at(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Pixels of a place in data coordinates."""
    place = axes.transData.transform((x, y))
    return float(place[0]), float(place[1])


def _pixels(axes: Axes) -> float:
    """Pixels per typographic point."""
    return _canvas(axes).figure.dpi / 72


def _text_size(axes: Axes, text: str) -> tuple[float, float]:
    """Width and height of a label in pixels, with a little air."""
    renderer: Any = _canvas(axes).get_renderer()
    font = FontProperties(size=_LABEL_SIZE)
    width, height, _ = renderer.get_text_width_height_descent(text, font, ismath=False)
    return width + 3, height + 2


def _canvas(axes: Axes) -> FigureCanvasAgg:
    """The canvas that texts are measured on."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    return canvas
