"""Bounds of numeric options, written in annotations: `Annotated[int, Ge(1)]`.

They mean what those of `annotated-types` mean, and pydantic enforces them; they are here so that
listing what there is needs nothing installed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


class _Bound:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Ge(_Bound):
    """At least."""

    ge: float


@dataclass(frozen=True)
class Gt(_Bound):
    """Above."""

    gt: float


@dataclass(frozen=True)
class Le(_Bound):
    """At most."""

    le: float


@dataclass(frozen=True)
class Lt(_Bound):
    """Below."""

    lt: float
