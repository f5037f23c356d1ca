"""What charts have in common: colours, axes, tooltips.

Colours are those of Okabe and Ito and of Tol, which colour-blind readers tell apart; shapes tell
rungs apart as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.reporting.labels import RUNGS

if TYPE_CHECKING:
    from peftkit.reporting.summary import Table

Chart = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#882255",
    "#44AA99", "#AA4499", "#117733", "#AA7744",
)  # fmt: skip


def colour(methods: Sequence[str]) -> Chart:
    """One colour a method, in the order given."""
    domain = list(dict.fromkeys(methods))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(domain))]
    return {"field": "method", "type": "nominal", "title": None, "sort": domain,
            "legend": {"symbolOpacity": 1, "symbolType": "circle"},
            "scale": {"domain": domain, "range": colours}}  # fmt: skip


def rung_shape() -> Chart:
    """One shape a rung, each with an area: marks are filled."""
    shapes = (
        "cross", "circle", "triangle-up", "square", "diamond", "triangle-right", "triangle-down",
    )  # fmt: skip
    return {"field": "rung", "type": "nominal", "title": None,
            "scale": {"domain": list(RUNGS), "range": list(shapes)}, "legend": None}  # fmt: skip


def score_axis(table: Table, field: str = "score") -> Chart:
    """The metric, in the unit shown."""
    unit = " %" if table.metric.is_share else ""
    return {"field": field, "type": "quantitative", "scale": {"zero": False},
            "title": f"{table.metric.name}{unit}"}  # fmt: skip


def choice(name: str, options: list[Any], value: Any) -> Chart:
    """A value that the reader picks below the chart."""
    return {"name": name, "value": value,
            "bind": {"input": "select", "options": options, "name": "examples "}}  # fmt: skip


def tooltip(example: dict[str, Any]) -> list[Chart]:
    """Everything a point knows."""
    return [{"field": name, "format": ".4~g"} if isinstance(value, float) else {"field": name}
            for name, value in example.items()]  # fmt: skip


def number(value: float) -> float | None:
    """JSON knows no "not a number"."""
    return round(value, 4) if math.isfinite(value) else None
