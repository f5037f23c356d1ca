"""The price of a point, as a table of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.quantities import ABSENT
from peftkit.reporting.page.markup import grid, text
from peftkit.reporting.prices import SECONDS_PER_HOUR, Price, prices

if TYPE_CHECKING:
    from peftkit.reporting.summary import Table


def price_table(table: Table, per_hour: float | None) -> str:
    """What a point over `none` takes, at the largest size; nothing without `none`."""
    size = max(table.sizes)
    found = prices(table, size, per_hour)
    if all(price.gain is None for price in found):
        return ""
    point = "point" if table.metric.is_share else f"unit of {table.metric.name}"
    heads = ["method", "gain over none", f"s a {point}", f"kJ a {point}", "GiB at the peak",
             "MB a task"]  # fmt: skip
    if per_hour is not None:
        heads.append(f"price a {point}")
    rows = [_row(price, per_hour is not None) for price in found]
    said = (
        f"With {size:,} examples, by what was trained; the search of learning rates is not in it. "
        "Nothing is said of a method that gains nothing."
    )
    if per_hour is not None:
        said += f" An hour of the device is taken at {per_hour:g}."
    return f'<h2>Price of a {text(point)}</h2><p class="soft">{text(said)}</p>{grid(heads, rows)}'


def _row(price: Price, with_money: bool) -> list[str]:
    seconds = None if price.hours is None else price.hours * SECONDS_PER_HOUR
    kilojoules = None if price.joules is None else price.joules / 1e3
    gibibytes = None if price.peak_bytes is None else price.peak_bytes / 2**30
    megabytes = None if price.bytes_per_task is None else price.bytes_per_task / 1e6
    cells = [
        ABSENT if price.gain is None else f"{price.gain:+.2f}",
        _shown(price.per_point(seconds)),
        _shown(price.per_point(kilojoules)),
        _shown(gibibytes),
        _shown(megabytes),
    ]
    return [price.method, *cells, *([_shown(price.per_point(price.money))] if with_money else [])]


def _shown(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
