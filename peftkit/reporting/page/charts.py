"""Charts of a report, as Vega-Lite specifications; pure functions of tables and verdicts.

A specification whose x axis a reader may choose lists the choices under "usermeta"; the page's
script puts the chosen field in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.reporting.fits import score_of
from peftkit.reporting.page.axes import (
    SCHEMA,
    Chart,
    choice,
    colour,
    number,
    rung_shape,
    score_axis,
    tooltip,
)

if TYPE_CHECKING:
    from peftkit.reporting.summary import Row, Table
    from peftkit.statistics.curves import Curve

COSTS = {  # field of a point: (title, cost of a row, phase, divisor)
    "trainable": ("trainable parameters (head included)", "trainable_parameters", None, 1),
    "memory": ("peak memory of training, GB", "peak_memory_bytes", "train", 1e9),
    "tensors": ("tensors at the peak of training, GB", "counted_memory_bytes", "peak", 1e9),
    "seconds": ("training seconds", "train_seconds", None, 1),
    "energy": ("training energy, kJ", "energy_joules", "train", 1e3),
    "bytes": ("adapter on disk, MB", "adapter_bytes", None, 1e6),
}
UNTRAINED = "datum.rung == 'none'"
SHORT = "datum.value < 1000 ? datum.label : format(datum.value, '~s')"


def point(table: Table, row: Row) -> dict[str, Any]:
    """What a chart knows of a row."""
    scale, quality = table.metric.scale, row.quality
    half = quality.half_width() if quality else math.nan
    mean = quality.mean if quality else math.nan
    least, most = (0.0, 1.0) if table.metric.is_share else (-math.inf, math.inf)
    costs = {
        name: value / divisor if (value := row.cost(cost, phase)) is not None else None
        for name, (_, cost, phase, divisor) in COSTS.items()
    }
    return {
        "method": row.method,
        "rung": row.rung or "unknown",
        "size": row.size,
        "noise": table.place.label_noise,
        "score": number(scale * mean),
        "low": number(scale * max(mean - half, least)),
        "high": number(scale * min(mean + half, most)),
        "seeds": len(row.done),
        "records": ", ".join(record.key for record in row.done),
        **costs,
    }


def frontier(table: Table) -> Chart | None:
    """Quality against a cost that the reader chooses, at a size that the reader chooses."""
    shown = [row for row in table.rows if row.quality and row.rung not in ("reference", "")]
    points = [point(table, row) for row in shown]
    choices = [name for name in COSTS if any(p[name] for p in points)]
    if not choices:
        return None
    for each in points:
        for name in choices:
            each[name] = each[name] or None  # nothing has no place on a logarithmic axis
    largest = max(table.sizes)
    return _chart(
        points,
        [
            {"mark": {"type": "rule", "strokeDash": [4, 3]}, "transform": [{"filter": UNTRAINED}],
             "encoding": {"y": score_axis(table), "x": {"value": 0}, "x2": {"value": "width"}}},
            {"mark": {"type": "rule", "opacity": 0.5}, "encoding": {"y": score_axis(table, "low"),
             "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 90},
             "encoding": {"y": score_axis(table), "shape": rung_shape()}},
        ],
        x={"field": choices[0], "type": "quantitative", "scale": {"type": "log", "padding": 20},
           "axis": {"labelExpr": SHORT, "labelSeparation": 8}, "title": COSTS[choices[0]][0]},
        params=[choice("size", list(table.sizes), largest)] if len(table.sizes) > 1 else [],
        transform=[{"filter": "datum.size == size"}] if len(table.sizes) > 1 else [],
        table=table,
        choices={name: COSTS[name][0] for name in choices},
    )  # fmt: skip


def learning_curves(table: Table, fitted: Mapping[str, Curve]) -> Chart | None:
    """Quality against the number of examples, with intervals; dashed the laws that were fitted."""
    if len(table.sizes) < 2:
        return None
    points = [point(table, row) for row in table.rows if row.quality]
    laws = [
        {"method": method, "size": round(float(size), 2),
         "score": number(score_of(table, curve.law.at(size)))}
        for method, curve in fitted.items() for size in curve.sizes
    ]  # fmt: skip
    dashed = {"data": {"values": laws}, "mark": {"type": "line", "strokeDash": [2, 3]},
              "encoding": {"y": score_axis(table), "tooltip": [{"field": "method"}]}}  # fmt: skip
    return _chart(
        points,
        [
            *([dashed] if laws else []),
            {"mark": {"type": "area", "opacity": 0.12},
             "encoding": {"y": score_axis(table, "low"), "y2": {"field": "high"}}},
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": score_axis(table)}},
            {"mark": {"type": "point", "filled": True, "size": 50},
             "encoding": {"y": score_axis(table), "shape": rung_shape()}},
        ],
        x={"field": "size", "type": "quantitative", "scale": {"type": "log", "padding": 20},
           "axis": {"values": list(table.sizes), "format": ","}, "title": "training examples"},
        table=table,
    )  # fmt: skip


def noise_curves(tables: Sequence[Table]) -> Chart | None:
    """Quality against the share of wrong labels, at the largest size that all levels have."""
    if len(tables) < 2:
        return None
    shared = set.intersection(*(set(table.sizes) for table in tables))
    if not shared:
        return None
    size, first = max(shared), tables[0]
    points = [point(t, row) for t in tables for row in t.rows if row.quality and row.size == size]
    return _chart(
        points,
        [
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": score_axis(first)}},
            {"mark": {"type": "rule", "opacity": 0.5},
             "encoding": {"y": score_axis(first, "low"), "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 50},
             "encoding": {"y": score_axis(first), "shape": rung_shape()}},
        ],
        x={"field": "noise", "type": "quantitative",
           "axis": {"format": "~%", "values": [table.place.label_noise for table in tables]},
           "scale": {"padding": 20, "nice": False},
           "title": f"wrong training labels ({size:,} examples)"},
        table=first,
    )  # fmt: skip


def _chart(
    points: list[dict[str, Any]],
    layers: list[Chart],
    *,
    x: Chart,
    table: Table,
    params: Sequence[Chart] = (),
    transform: Sequence[Chart] = (),
    choices: dict[str, str] | None = None,
) -> Chart | None:
    if not points:
        return None
    methods = [method for method in table.methods if any(p["method"] == method for p in points)]
    return {
        "$schema": SCHEMA,
        "data": {"values": points},
        "width": "container",
        "height": 340,
        "params": list(params),
        "transform": list(transform),
        "encoding": {"x": x, "color": colour(methods), "tooltip": tooltip(points[0])},
        "layer": layers,
        "usermeta": {"choices": choices or {}},
    }
