"""The price of a point: what each method takes for what it gains over the backbone as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftkit.reporting.summary import Row, Table

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one method gains at one size, and what that takes.

    Attributes:
        method: Label of the method.
        gain: Over `none`, in the unit shown, above 0 where it is better; None without `none`.
        hours: Of training, on the device that it ran on (a GPU's, where there was one).
        joules: Of training; None where no meter could be read.
        peak_bytes: Memory at the peak of training.
        bytes_per_task: What is kept for each further task.
        money: Of training; None without a price per hour.
    """

    method: str
    gain: float | None
    hours: float | None
    joules: float | None
    peak_bytes: float | None
    bytes_per_task: float | None
    money: float | None

    def per_point(self, cost: float | None) -> float | None:
        """A cost for each point gained; None where nothing is gained, or nothing was measured."""
        if cost is None or self.gain is None or self.gain <= 0:
            return None
        return cost / self.gain


def prices(table: Table, size: int, per_hour: float | None = None) -> list[Price]:
    """Price of every method that trains, at one size, in the order of the table.

    Args:
        table: Of measured runs; searches of learning rates are not in it.
        size: Training examples.
        per_hour: What an hour of the device costs, in any currency.
    """
    rows = [row for row in table.rows if row.size == size and row.quality]
    none = next((row for row in rows if row.name == "none"), None)
    trained = [row for row in rows if row.rung not in ("reference", "none", "")]
    return [_price(table, row, none, per_hour) for row in trained]


def _price(table: Table, row: Row, none: Row | None, per_hour: float | None) -> Price:
    gain = None
    if none is not None and none.quality is not None and row.quality is not None:
        gain = table.metric.direction * table.metric.scale * (row.quality.mean - none.quality.mean)
    seconds = row.cost("train_seconds")
    hours = None if seconds is None else seconds / SECONDS_PER_HOUR
    return Price(
        method=row.method,
        gain=gain,
        hours=hours,
        joules=row.cost("energy_joules", "train"),
        peak_bytes=row.cost("peak_memory_bytes", "train"),
        bytes_per_task=row.cost("adapter_bytes"),
        money=None if hours is None or per_hour is None else hours * per_hour,
    )
