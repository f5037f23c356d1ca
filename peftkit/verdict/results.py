"""What a verdict is made of: scores of every test item, by method, training size and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

FEWEST_SEEDS = 3
"""Of a method and full fine-tuning together; with fewer nothing is shown of it."""
PERCENT = 100.0
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
        failed: Seeds whose run came to no score, likewise.
        full: The method that everything is compared with.
        ladder: The cheaper methods, cheapest first.
        untrained: Those of them that train nothing.
        scale: What scores are multiplied by for people: 100 where they are shares.
        unit: What they are counted in then: "points", "nats".
        less_is_better: Whether the metric had its sign turned, so that higher is better here.
        name: What was measured on, for people.
        whole: Whether everything that was asked for has been run: else nothing can be said of
            every cheaper method.
    """

    scores: Scores
    full: str
    ladder: tuple[str, ...]
    untrained: frozenset[str] = frozenset()
    failed: Mapping[tuple[str, int], frozenset[int]] = field(default_factory=dict)
    scale: float = PERCENT
    unit: str = "points"
    less_is_better: bool = False
    name: str = ""
    whole: bool = True

    @property
    def shares(self) -> bool:
        """Whether scores are shares, so that no item can differ by more than 1."""
        return self.scale == PERCENT

    def sizes(self, method: str) -> list[int]:
        """Training sizes of a method that full has too, ascending."""
        return sorted(n for m, n in self.scores if m == method and (self.full, n) in self.scores)

    def seeds(self, method: str, size: int) -> set[int]:
        """Those that both the method and full have scores of."""
        full, other = (self.scores.get((name, size), {}) for name in (self.full, method))
        return set(full) & set(other)

    def tried(self, method: str, size: int) -> set[int]:
        """Those that both were run with, whether they came to scores or not."""
        full, other = (
            {*self.scores.get((name, size), ()), *self.failed.get((name, size), ())}
            for name in (self.full, method)
        )
        return full & other

    def difference(
        self, method: str, size: int, among: Collection[int] | None = None
    ) -> NDArray[np.float64]:
        """Full minus method on the seeds that both have, `(S, I)`; of no seeds `(0, 1)`.

        Args:
            method: Of the ladder.
            size: Of the training set.
            among: Seeds to keep to; none: all.
        """
        seeds = self.seeds(method, size)
        kept = sorted(seeds if among is None else seeds.intersection(among))
        if not kept:
            return np.empty((0, 1))
        full, other = self.scores[self.full, size], self.scores[method, size]
        return np.stack([full[seed] - other[seed] for seed in kept])

    def differences(
        self, method: str, sizes: Sequence[int]
    ) -> tuple[list[int], NDArray[np.float64]]:
        """Full minus method at several sizes, `(K, S, I)`, on seeds that these share.

        Of the sizes as many as share enough seeds, at the price of seeds that only some have.

        Returns:
            The sizes that have these seeds, and the differences there.
        """
        seeds = {size: self.seeds(method, size) for size in sizes}
        kept: list[int] = []
        shared: set[int] = set()
        for fewest in sorted({len(found) for found in seeds.values()}):
            at = [size for size in sizes if len(seeds[size]) >= fewest]
            common = set.intersection(*(seeds[size] for size in at))
            if len(common) >= FEWEST_SEEDS and (len(at), len(common)) > (len(kept), len(shared)):
                kept, shared = at, common
        if not kept:
            return [], np.empty((0, 0, 1))
        return kept, np.stack([self.difference(method, size, shared) for size in kept])
