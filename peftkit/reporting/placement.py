"""Where to put labels so that none covers another, a point, an error bar or a line.

Each label has candidate boxes. Labels are placed one after another where they disturb least, the
most hemmed in first, then each is tried again given all others until nothing improves.
Deterministic; all lengths in pixels, y upwards.

Boxes are (left, bottom, right, top), leader lines (x0, y0, x1, y1), arrays of either (n, 4). The
leader of a label that stands at its anchor is not a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SWEEPS = 12
_OVER_LABEL, _OVER_SOLID, _OVER_THIN, _PER_PIXEL = 2000.0, 400.0, 25.0, 2.0
_LEADER, _LEADER_OVER = 8.0, 60.0
_OVER_NAME, _CLEAR = 40.0, 2.0
_OUTSIDE = 1e4
_ALONG = np.linspace(0.25, 0.95, 8)


@dataclass(frozen=True)
class Options:
    """The candidates of one label: boxes, leader lines, and what each costs by itself.

    `anchor` is the point that is named, not a number for a line.
    """

    boxes: Array
    leaders: Array
    costs: Array
    anchor: tuple[float, float]


def around(
    anchor: tuple[float, float], size: tuple[float, float], *, gap: float, radii: Sequence[float]
) -> Options:
    """Candidates beside a point (`gap` away), and with a leader line on rings around it."""
    (x, y), (width, height) = anchor, size
    shifts = [
        (side * (gap + width / 2), rise * height)
        for side in (1, -1)
        for rise in (0, 0.35, -0.35, 0.65, -0.65, 1.0, -1.0)
    ]
    shifts += [(0, gap + height / 2), (0, -gap - height / 2)]
    costs = [abs(dy) / height + (0.4 if dx < 0 else 0) for dx, dy in shifts]
    num_beside = len(shifts)
    for radius in radii:
        for step in range(24):
            dx, dy = math.cos(step * math.pi / 12), math.sin(step * math.pi / 12)
            shifts.append((1.3 * radius * dx + dx * width / 2, radius * dy + dy * height / 2))
            costs.append(_LEADER + radius / 4 + abs(dy))
    middles = np.array([x, y]) + np.array(shifts)
    half = np.array([width / 2, height / 2])
    boxes = np.hstack([middles - half, middles + half])
    ends = np.clip([x, y], boxes[:, :2], boxes[:, 2:])
    leaders = np.hstack([np.broadcast_to([x, y], ends.shape), ends])
    leaders[:num_beside] = np.nan
    return Options(boxes, leaders, np.array(costs), anchor)


def along(y: float, size: tuple[float, float], span: tuple[float, float], *, gap: float) -> Options:
    """Candidates just above and just below a horizontal line, the left end first."""
    width, height = size
    lefts = np.linspace(span[0], max(span[0], span[1] - width), 25)
    above = np.stack([lefts, 0 * lefts + y + gap, lefts + width, 0 * lefts + y + gap + height], 1)
    below = above - [0, 2 * gap + height, 0, 2 * gap + height]
    costs = np.concatenate([np.arange(25) / 4, np.arange(25) / 4 + 1])
    boxes = np.concatenate([above, below])
    return Options(boxes, np.full_like(boxes, np.nan), costs, (math.nan, math.nan))


def place(
    options: Sequence[Options], solid: Array, thin: Array, bounds: tuple[float, float, float, float]
) -> list[int]:
    """Choose one candidate for each label.

    Args:
        options: The candidates of each label.
        solid: Boxes (n, 4) that must stay visible: points and error bars.
        thin: Boxes (n, 4) that had better: lines.
        bounds: The box that labels must stay in.

    Returns:
        The index of the candidate chosen for each label.
    """
    own = [
        _own_costs(each, solid.reshape(-1, 4), thin.reshape(-1, 4), bounds)
        + _ambiguous(each, [other.anchor for other in options if other is not each])
        for each in options
    ]
    order = sorted(range(len(options)), key=lambda label: -float(own[label].min()))
    chosen: dict[int, int] = {}
    for _ in range(_SWEEPS):
        before = dict(chosen)
        for label in order:
            others = [(options[o], at) for o, at in chosen.items() if o != label]
            costs = own[label]
            if others:
                boxes = np.stack([each.boxes[at] for each, at in others])
                leaders = np.stack([each.leaders[at] for each, at in others])
                costs = costs + _shared_costs(options[label], boxes, leaders)
            chosen[label] = int(costs.argmin())
        if chosen == before:
            break
    return [chosen[label] for label in range(len(options))]


def _own_costs(
    options: Options, solid: Array, thin: Array, bounds: tuple[float, float, float, float]
) -> Array:
    """What each candidate costs whatever the other labels do."""
    left, bottom, right, top = bounds
    boxes = options.boxes
    outside = np.maximum(0, left - boxes[:, 0]) + np.maximum(0, boxes[:, 2] - right)
    outside += np.maximum(0, bottom - boxes[:, 1]) + np.maximum(0, boxes[:, 3] - top)
    costs = options.costs + _OUTSIDE * outside
    for obstacles, cost in ((solid, _OVER_SOLID), (thin, _OVER_THIN)):
        area = _overlap(boxes, obstacles)
        costs = costs + (cost * (area > 0)).sum(1) + _PER_PIXEL * area.sum(1)
    costs = costs + _LEADER_OVER * _passes(options.leaders, solid).sum(1)
    return np.asarray(costs)


def _ambiguous(options: Options, others: Sequence[tuple[float, float]]) -> Array:
    """What it costs that a label without a leader line stands as near to another point."""
    points = np.array([options.anchor, *others])[:, None]
    nearest = np.clip(points, options.boxes[:, :2], options.boxes[:, 2:])
    far = np.linalg.norm(nearest - points, axis=2)
    is_near = (far[1:] < _CLEAR * far[0]) & np.isnan(options.leaders[:, 0])
    return np.asarray((_OVER_NAME * is_near).sum(0))


def _shared_costs(options: Options, boxes: Array, leaders: Array) -> Array:
    """What each candidate costs given where the other labels are."""
    area = _overlap(options.boxes, boxes)
    costs = (_OVER_LABEL * (area > 0)).sum(1) + _PER_PIXEL * area.sum(1)
    costs += 10 * _LEADER_OVER * _passes(options.leaders, boxes).sum(1)
    costs += 10 * _LEADER_OVER * _passes(leaders, options.boxes).sum(0)
    return np.asarray(costs + _LEADER_OVER * _cross(options.leaders, leaders).sum(1))


def _overlap(one: Array, other: Array) -> Array:
    """Areas that boxes of `one` and of `other` share, shape (len(one), len(other))."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    return np.asarray(np.maximum(0, high - low).prod(2))


def _passes(leaders: Array, boxes: Array) -> NDArray[np.bool_]:
    """Whether leader lines run through boxes, shape (len(leaders), len(boxes))."""
    start, end = leaders[:, None, :2], leaders[:, None, 2:]
    points = (start + (end - start) * _ALONG[None, :, None])[:, None]
    low, high = boxes[None, :, None, :2], boxes[None, :, None, 2:]
    inside = np.all((points >= low) & (points <= high), axis=3)
    return np.asarray(np.any(inside, axis=2))


def _cross(one: Array, other: Array) -> NDArray[np.bool_]:
    """Whether leader lines cross each other, shape (len(one), len(other))."""
    a, b = one[:, None], other[None, :]
    apart = (_side(a, b[..., :2]) * _side(a, b[..., 2:]) < 0) & (
        _side(b, a[..., :2]) * _side(b, a[..., 2:]) < 0
    )
    return np.asarray(apart)


def _side(line: Array, point: Array) -> Array:
    """On which side of a line a point lies: the sign of the cross product."""
    dx, dy = line[..., 2] - line[..., 0], line[..., 3] - line[..., 1]
    return np.asarray(dx * (point[..., 1] - line[..., 1]) - dy * (point[..., 0] - line[..., 0]))
