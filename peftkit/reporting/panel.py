"""What one panel of the picture shows: points, lines, two axes, and the frontier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CUT_HEIGHT = 0.06  # of the axis
_MOST_TICKS = 8


@dataclass(frozen=True)
class Point:
    """A method at its cost: the mean over seeds, the lowest and the highest seed."""

    name: str
    x: float
    y: float
    low: float
    high: float
    colour: str
    marker: str


@dataclass(frozen=True)
class Level:
    """A horizontal line: a method that trains nothing, or chance."""

    name: str
    y: float
    colour: str
    dashes: Any


@dataclass(frozen=True)
class Scale:
    """The vertical axis: its ends, and the empty stretch in it that is cut short, if any."""

    low: float
    high: float
    cut: tuple[float, float] | None = None

    def ticks(self) -> list[float]:
        """Round values, none of them in the cut."""
        shown = self.high - self.low - (self.cut[1] - self.cut[0] if self.cut else 0.0)
        power = 10.0 ** math.floor(math.log10(shown / _MOST_TICKS))
        step = next(power * n for n in (1, 2, 5, 10) if shown <= power * n * _MOST_TICKS)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        ticks = [round(n * step, 9) for n in range(first, last + 1)]
        return [t for t in ticks if not self.cut or not self.cut[0] < t < self.cut[1]]

    def warp(self) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        """Value to height on the axis, and back: straight, but flatter within the cut."""
        if self.cut is None:
            return (lambda value: value), (lambda height: height)
        low, high = self.cut
        shown = self.high - self.low - (high - low)
        left = shown * _CUT_HEIGHT / (1 - _CUT_HEIGHT)
        values = [self.low - shown, low, high, self.high + shown]
        heights = [self.low - shown, low, low + left, self.high + shown - (high - low) + left]
        return (
            lambda value: np.interp(value, values, heights),
            lambda height: np.interp(height, heights, values),
        )


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Attributes:
        points: The methods that train something.
        levels: The methods that do not, and chance.
        base: The best that can be had without training; None if unknown.
        higher_is_better: The direction of the metric.
        x_label: What the cost is.
        write_x: How to write a cost.
        log: Whether the costs are drawn on a logarithmic axis.
        scale: The vertical axis.
    """

    points: Sequence[Point]
    levels: Sequence[Level]
    base: float | None
    higher_is_better: bool
    x_label: str
    write_x: Callable[[float], str]
    log: bool
    scale: Scale


def frontier_steps(panel: Panel, edges: tuple[float, float]) -> list[tuple[float, float]]:
    """Corners of the frontier from edge to edge; empty where no cost buys anything."""
    sign = 1 if panel.higher_is_better else -1
    best = panel.base
    steps = [] if best is None else [(edges[0], best)]
    reached = False
    for point in sorted(panel.points, key=lambda p: (p.x, -sign * p.y)):
        if best is None or sign * point.y > sign * best:
            if best is not None:
                steps.append((point.x, best))
            steps.append((point.x, point.y))
            best, reached = point.y, True
    return [*steps, (edges[1], steps[-1][1])] if reached else []
