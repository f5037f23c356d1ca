"""What a verdict is made of: scores of every test item, by method, training size and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

POINT = 1.0
"""Margin where nothing else is said, of metrics that are shares and counted in percent."""
Scores = Mapping[tuple[str, int], Mapping[int, "NDArray[np.float64]"]]


def require_margin(margin: float | None) -> None:
    """Refuse a margin that nothing can be tested against; None is for the default to decide.

    Raises:
        InvalidInput: It is not above 0, or not finite.
    """
    if margin is not None and not 0 < margin < float("inf"):
        raise InvalidInput(
            "the margin is nothing to test against",
            received=f"{margin:g}",
            allowed="a number above 0",
            next_step="--margin 1, or how much would matter to you",
        )


def no_margin(name: str, unit: str) -> InvalidInput:
    """The error where a metric is no share, so that no margin can be assumed."""
    return InvalidInput(
        f"{name} is measured in {unit}, of which no margin is known",
        allowed="--margin M, by how much full fine-tuning has to be better for it to count",
        next_step="add --margin",
    )


@dataclass(frozen=True, kw_only=True)
class Results:
    """Scores of one backbone on one task.

    Attributes:
        scores: For each method and size, by seed: one score a test item `(I,)`, higher being
            better; of a metric that is no mean over items, one score `(1,)`.
        full: The method that everything is compared with.
        ladder: The cheaper methods, cheapest first.
        untrained: Those of them that train nothing.
        scale: What scores are multiplied by for people: 100 where they are shares.
        unit: What they are counted in then: "points", "nats".
        less_is_better: Whether the metric had its sign turned, so that higher is better here.
        name: What was measured on, for people.
    """

    scores: Scores
    full: str
    ladder: tuple[str, ...]
    untrained: frozenset[str] = frozenset()
    scale: float = 100.0
    unit: str = "points"
    less_is_better: bool = False
    name: str = ""

    def sizes(self, method: str) -> list[int]:
        """Training sizes of a method that full has too, ascending."""
        return sorted(n for m, n in self.scores if m == method and (self.full, n) in self.scores)

    def difference(self, method: str, size: int) -> NDArray[np.float64]:
        """Full minus method on the seeds that both have, `(S, I)`; of no seeds `(0, I)`."""
        full, other = self.scores[self.full, size], self.scores[method, size]
        seeds = sorted(set(full) & set(other))
        if not seeds:
            return np.empty((0, 1))
        return np.stack([full[seed] - other[seed] for seed in seeds])

    def differences(
        self, method: str, sizes: Sequence[int]
    ) -> tuple[list[int], NDArray[np.float64]]:
        """Full minus method at several sizes, `(K, S, I)`, on the seeds that most of them share.

        Returns:
            The sizes that have these seeds, and the differences there.
        """
        seeds = {
            size: set(self.scores[self.full, size]) & set(self.scores[method, size])
            for size in sizes
        }
        most = max((len(found) for found in seeds.values()), default=0)
        kept = [size for size in sizes if len(seeds[size]) == most and most]
        shared = sorted(set.intersection(*(seeds[size] for size in kept))) if kept else []
        if not shared:
            return [], np.empty((0, 0, 1))
        found = [
            np.stack([self.scores[self.full, n][s] - self.scores[method, n][s] for s in shared])
            for n in kept
        ]
        return kept, np.stack(found)
