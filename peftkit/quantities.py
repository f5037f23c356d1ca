"""Numbers as a person reads them: three digits and a unit."""

from __future__ import annotations

import math

ABSENT = "-"
PLUS_MINUS = "\u00b1"
_PREFIXES = ("", "k", "M", "G", "T", "P")


def count(value: float | None) -> str:
    """A count: 950, 3.85k, 147k, 22.7M."""
    return ABSENT if _absent(value) else "".join(_scaled(float(value or 0)))


def size_in_bytes(value: float | None) -> str:
    """Bytes in decimal units: 594 kB, 1.25 GB."""
    if _absent(value):
        return ABSENT
    number, prefix = _scaled(float(value or 0))
    return f"{number} {prefix}B"


def joules(value: float | None) -> str:
    """Energy: 85 J, 1.25 kJ."""
    if _absent(value):
        return ABSENT
    number, prefix = _scaled(float(value or 0))
    return f"{number} {prefix}J"


def seconds(value: float | None) -> str:
    """A duration: 0.42 s, 35 s, 12.5 min, 3.2 h."""
    if _absent(value):
        return ABSENT
    value = float(value or 0)
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (math.inf, 3600, "h")):
        if value < limit:
            return f"{_digits(value / divisor)} {unit}"
    return ABSENT


def milliseconds(value: float | None) -> str:
    """Seconds shown as milliseconds: 4.12 ms."""
    return ABSENT if _absent(value) else f"{_digits(1000 * float(value or 0))} ms"


def percent(value: float | None) -> str:
    """A share: 0.65 %, 100 %."""
    return ABSENT if _absent(value) else f"{_digits(100 * float(value or 0), 2)} %"


def ratio(value: float | None) -> str:
    """A ratio: 1.02x."""
    return ABSENT if _absent(value) else f"{float(value or 0):.2f}x"


def nats(value: float | None) -> str:
    """A change in loss, with its sign: +0.031, -0.004."""
    return ABSENT if _absent(value) else f"{float(value or 0):+.3f}"


def _absent(value: float | None) -> bool:
    """Whether there is no number to show."""
    return value is None or not math.isfinite(value)


def _scaled(value: float) -> tuple[str, str]:
    """Three digits and the decimal prefix they need."""
    power = 0
    while abs(value) >= 999.5 and power < len(_PREFIXES) - 1:
        value /= 1000
        power += 1
    digits = f"{value:.0f}" if power == 0 and value == int(value) else _digits(value)
    return digits, _PREFIXES[power]


def _digits(value: float, digits: int = 3) -> str:
    """`value` with that many significant digits, but never fewer than its whole part has."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(float(f"{abs(value):.{digits - 1}e}")))
    return f"{value:.{max(0, digits - 1 - power)}f}"
