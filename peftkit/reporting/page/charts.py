"""Charts of a report, as Vega-Lite specifications; pure functions of tables and verdicts.

A specification whose x axis a reader may choose lists the choices under "usermeta"; the page's
script puts the chosen field in its place. Colours are those of Okabe and Ito and of Tol, which
colour-blind readers tell apart; shapes tell rungs apart as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.reporting.labels import RUNGS

if TYPE_CHECKING:
    from peftkit.reporting.summary import Row, Table
    from peftkit.verdict import Verdict

Chart = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#882255",
    "#44AA99", "#AA4499", "#117733", "#AA7744",
)  # fmt: skip
COSTS = {  # field of a point: (title, cost of a row, phase, divisor)
    "trainable": ("trainable parameters (head included)", "trainable_parameters", None, 1),
    "memory": ("peak memory of training, GB", "peak_memory_bytes", "train", 1e9),
    "tensors": ("tensors at the peak of training, GB", "counted_memory_bytes", "peak", 1e9),
    "seconds": ("training seconds", "train_seconds", None, 1),
    "energy": ("training energy, kJ", "energy_joules", "train", 1e3),
    "bytes": ("adapter on disk, MB", "adapter_bytes", None, 1e6),
}
PARTS = (
    "weights", "quantization_state", "weight_copies", "gradients", "optimizer", "activations",
    "logits", "temporary",
)  # fmt: skip


def point(table: Table, row: Row) -> dict[str, Any]:
    """What a chart knows of a row."""
    scale, quality = table.metric.scale, row.quality
    half = quality.half_width() if quality else math.nan
    mean = quality.mean if quality else math.nan
    costs = {
        name: value / divisor if (value := row.cost(cost, phase)) is not None else None
        for name, (_, cost, phase, divisor) in COSTS.items()
    }
    return {
        "method": row.method,
        "rung": row.rung or "unknown",
        "size": row.size,
        "noise": table.place.label_noise,
        "score": _number(scale * mean),
        "low": _number(scale * (mean - half)),
        "high": _number(scale * (mean + half)),
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
            {"mark": {"type": "rule", "opacity": 0.5}, "encoding": {"y": _y(table, "low"),
             "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 90},
             "encoding": {"y": _y(table), "shape": _rung()}},
        ],
        x={"field": choices[0], "type": "quantitative", "scale": {"type": "log", "padding": 20},
           "title": COSTS[choices[0]][0]},
        params=[_choose("size", list(table.sizes), largest)] if len(table.sizes) > 1 else [],
        transform=[{"filter": "datum.size == size"}] if len(table.sizes) > 1 else [],
        table=table,
        choices={name: COSTS[name][0] for name in choices},
    )  # fmt: skip


def learning_curves(table: Table) -> Chart | None:
    """Quality against the number of examples, with intervals."""
    if len(table.sizes) < 2:
        return None
    points = [point(table, row) for row in table.rows if row.quality]
    return _chart(
        points,
        [
            {"mark": {"type": "area", "opacity": 0.12},
             "encoding": {"y": _y(table, "low"), "y2": {"field": "high"}}},
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": _y(table)}},
            {"mark": {"type": "point", "filled": True, "size": 50},
             "encoding": {"y": _y(table), "shape": _rung()}},
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
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": _y(first)}},
            {"mark": {"type": "rule", "opacity": 0.5},
             "encoding": {"y": _y(first, "low"), "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 50},
             "encoding": {"y": _y(first), "shape": _rung()}},
        ],
        x={"field": "noise", "type": "quantitative", "axis": {"format": "%"},
           "scale": {"padding": 20, "nice": False},
           "title": f"wrong training labels ({size:,} examples)"},
        table=first,
    )  # fmt: skip


def differences(verdict: Verdict) -> Chart | None:
    """Full minus method with its interval, at each size, and the margin."""
    scale = verdict.results.scale
    points = []
    for decision in verdict.decisions:
        for contrast in decision.contrasts:
            half = contrast.difference.half_width()
            points.append(
                {
                    "method": contrast.method,
                    "size": decision.size,
                    "difference": _number(scale * contrast.difference.mean),
                    "low": _number(scale * (contrast.difference.mean - half)),
                    "high": _number(scale * (contrast.difference.mean + half)),
                    "seeds": contrast.difference.num_seeds,
                    "p not worse": _number(contrast.p_not_worse),
                    "p full better": _number(contrast.p_full_better),
                }
            )
    if not points:
        return None
    title = f"{verdict.results.full} minus method, {verdict.results.unit}, 95 % interval"
    x = {"type": "quantitative", "title": title}
    sizes = [decision.size for decision in verdict.decisions]
    rows = {
        "y": {"field": "method", "type": "nominal", "title": None,
              "sort": list(verdict.results.ladder)},
        "yOffset": {"field": "size", "type": "nominal", "sort": sizes},
        "color": {"field": "size", "type": "nominal", "sort": sizes, "title": "training examples",
                  "scale": {"domain": sizes, "range": list(COLOURS[3:] + COLOURS[:3])}},
        "tooltip": _tooltip(points[0]),
    }  # fmt: skip
    return {
        "$schema": SCHEMA,
        "data": {"values": points},
        "width": "container",
        "height": (20 if len(sizes) == 1 else 12 * len(sizes)) * len(verdict.results.ladder),
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 4]},
             "encoding": {"x": {"datum": scale * verdict.margin, **x}}},
            {"mark": {"type": "rule", "opacity": 0.4}, "encoding": {"x": {"datum": 0, **x}}},
            {"mark": {"type": "rule", "strokeWidth": 2},
             "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, **rows}},
            {"mark": {"type": "point", "filled": True, "size": 50},
             "encoding": {"x": {"field": "difference", **x}, **rows}},
        ],
    }  # fmt: skip


def memory_parts(table: Table) -> Chart | None:
    """What tensors take at the peak of a training step, by parts, at the largest size."""
    size = max(table.sizes)
    points = []
    for row in table.rows:
        for place, part in enumerate(PARTS):
            value = row.cost("counted_memory_bytes", part)
            if row.size == size and value:
                points.append({"method": row.method, "part": part.replace("_", " "),
                               "place": place, "GB": round(value / 1e9, 6)})  # fmt: skip
    if not points:
        return None
    order = [part.replace("_", " ") for part in PARTS]
    return {
        "$schema": SCHEMA,
        "data": {"values": points},
        "width": "container",
        "height": 20 * len({p["method"] for p in points}),
        "mark": "bar",
        "encoding": {
            "y": {"field": "method", "type": "nominal", "sort": list(table.methods), "title": None},
            "x": {"field": "GB", "type": "quantitative", "title": "GB at the peak of a step"},
            "color": {"field": "part", "type": "nominal", "sort": order, "title": None,
                      "scale": {"domain": order, "range": list(COLOURS[: len(order)])}},
            "order": {"field": "place"},
            "tooltip": [{"field": "method"}, {"field": "part"}, {"field": "GB", "format": ".4f"}],
        },
    }  # fmt: skip


def rate_sensitivity(trials: Sequence[dict[str, Any]], metric: str, scale: float) -> Chart | None:
    """The metric on validation rows against the learning rate, of everything that was tried.

    Args:
        trials: The content of learning_rates.json.
        metric: Name of the task's metric.
        scale: What it is multiplied by for people.
    """
    points = [
        {"method": each["method"], "size": str(each["size"] or "all"), "rate": float(rate),
         "validation": _number(scale * found[metric])}
        for each in trials
        for rate, found in each["validation"].items()
        if isinstance(found, dict) and metric in found
    ]  # fmt: skip
    if not points:
        return None
    return {
        "$schema": SCHEMA,
        "data": {"values": points},
        "width": "container",
        "height": 300,
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {"field": "rate", "type": "quantitative", "scale": {"type": "log"},
                  "title": "learning rate"},
            "y": {"field": "validation", "type": "quantitative", "scale": {"zero": False},
                  "title": f"{metric} on validation rows"},
            "color": _colour([p["method"] for p in points]),
            "strokeDash": {"field": "size", "title": "examples"},
            "tooltip": _tooltip(points[0]),
        },
    }  # fmt: skip


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
        "encoding": {"x": x, "color": _colour(methods), "tooltip": _tooltip(points[0])},
        "layer": layers,
        "usermeta": {"choices": choices or {}},
    }


def _colour(methods: Sequence[str]) -> Chart:
    domain = list(dict.fromkeys(methods))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(domain))]
    return {"field": "method", "type": "nominal", "title": None, "sort": domain,
            "legend": {"symbolOpacity": 1, "symbolType": "circle"},
            "scale": {"domain": domain, "range": colours}}  # fmt: skip


def _rung() -> Chart:
    shapes = ("cross", "circle", "triangle-up", "square", "diamond", "stroke", "triangle-down")
    return {"field": "rung", "type": "nominal", "title": None,
            "scale": {"domain": list(RUNGS), "range": list(shapes)}, "legend": None}  # fmt: skip


def _y(table: Table, field: str = "score") -> Chart:
    unit = " %" if table.metric.is_share else ""
    return {"field": field, "type": "quantitative", "scale": {"zero": False},
            "title": f"{table.metric.name}{unit}"}  # fmt: skip


def _choose(name: str, options: list[Any], value: Any) -> Chart:
    return {"name": name, "value": value,
            "bind": {"input": "select", "options": options, "name": "examples "}}  # fmt: skip


def _tooltip(example: dict[str, Any]) -> list[Chart]:
    return [{"field": name, "format": ".4~g"} if isinstance(value, float) else {"field": name}
            for name, value in example.items()]  # fmt: skip


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
