"""Charts of what a verdict rests on: differences, memory, learning rates that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.reporting.page.axes import COLOURS, SCHEMA, Chart, colour, number, tooltip
from peftkit.verdict import wording

if TYPE_CHECKING:
    from peftkit.reporting.summary import Table
    from peftkit.verdict import Verdict

PARTS = (
    "weights", "quantization_state", "weight_copies", "gradients", "optimizer", "activations",
    "logits", "temporary",
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
                    "difference": number(scale * contrast.difference.mean),
                    "low": number(scale * (contrast.difference.mean - half)),
                    "high": number(scale * (contrast.difference.mean + half)),
                    "seeds": contrast.difference.num_seeds,
                    "p not worse": number(contrast.p_not_worse),
                    "p full better": number(contrast.p_full_better),
                }
            )
    if not points:
        return None
    taken = wording.direction(verdict.results)
    title = f"{taken}, in {verdict.results.unit}, 95 % interval"
    x = {"type": "quantitative", "title": title}
    sizes = [decision.size for decision in verdict.decisions]
    rows = {
        "y": {"field": "method", "type": "nominal", "title": None,
              "sort": list(verdict.results.ladder)},
        "yOffset": {"field": "size", "type": "nominal", "sort": sizes},
        "color": {"field": "size", "type": "nominal", "sort": sizes, "title": "training examples",
                  "scale": {"domain": sizes, "range": list(COLOURS[3:] + COLOURS[:3])}},
        "tooltip": tooltip(points[0]),
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
         "validation": number(scale * found[metric])}
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
            "color": colour([p["method"] for p in points]),
            "strokeDash": {"field": "size", "title": "examples"},
            "tooltip": tooltip(points[0]),
        },
    }  # fmt: skip
