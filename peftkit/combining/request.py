"""What is asked of a combination, checked before anything is read."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Annotated, Literal

from peftkit.bounds import Ge, Gt, Le
from peftkit.errors import InvalidInput
from peftkit.fields import settle

Rule = Literal["linear", "svd", "cat", "task_arithmetic", "ties", "dare_linear", "dare_ties"]
METHODS: tuple[str, ...] = typing.get_args(Rule)
SPARSE = ("ties", "dare_linear", "dare_ties")
"""Rules that leave entries out, so that sums of low rank do not stay of low rank."""
DENSITY = 0.5
"""Share of entries that TIES and DARE keep unless told: our choice, untested, between all of them
and what their papers keep of models that were trained whole (0.2 and 0.1)."""
SUMMED = ("task_arithmetic", "ties", "dare_ties")
"""Rules whose papers add task vectors up; the others take the mean unless weights are given."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """How adapters are combined."""

    method: Rule = "linear"
    """The rule; see `peftkit.combining.rules`."""
    weights: tuple[float, ...] | None = None
    """One a run, negative ones take away; none: 1 each where task vectors are added (task
    arithmetic, TIES, DARE with TIES), else 1 / number of runs."""
    rank: Annotated[int, Ge(1)] | None = None
    """Rank of the result in every layer; none: see `peftkit.combining.factoring`."""
    energy: Annotated[float, Gt(0), Le(1)] | None = None
    """Instead of a rank: the share of each layer's squared Frobenius norm that is to be kept."""
    density: Annotated[float, Gt(0), Le(1)] | None = None
    """TIES and DARE: the share of entries kept; none: 0.5."""
    seed: Annotated[int, Ge(0)] | None = None
    """DARE: what its random masks are drawn from; none: 0."""

    def __post_init__(self) -> None:
        settle(self, "combine")
        self._refuse_unless(self.method in SPARSE, "density", "ties, dare_linear and dare_ties")
        self._refuse_unless(self.method.startswith("dare"), "seed", "dare_linear and dare_ties")
        if self.rank is not None and self.energy is not None:
            raise InvalidInput(
                "the rank follows from the energy, so only one of them can be asked for",
                received=f"rank {self.rank}, energy {self.energy}",
                next_step="leave out --rank or --energy",
            )
        if self.method == "cat" and (self.rank is not None or self.energy is not None):
            raise InvalidInput(
                "cat keeps every factor, so its rank is the sum of the ranks",
                next_step="choose --method svd, or leave --rank and --energy out",
            )

    def _refuse_unless(self, fits: bool, option: str, methods: str) -> None:
        value = getattr(self, option)
        if value is not None and not fits:
            raise InvalidInput(
                f"{option} is an option of {methods}",
                received=f"--{option} {value} with --method {self.method}",
                next_step=f"leave --{option} out, or choose one of these methods",
            )

    @property
    def share(self) -> float:
        """Of TIES and DARE: of entries kept."""
        return DENSITY if self.density is None else self.density

    @property
    def drawn_from(self) -> int:
        """Of DARE: the seed."""
        return self.seed or 0

    def weights_of(self, num_runs: int) -> tuple[float, ...]:
        """The weight of each run.

        Raises:
            InvalidInput: There are not as many weights as runs.
        """
        if self.weights is None:
            return (1.0 if self.method in SUMMED else 1.0 / num_runs,) * num_runs
        if len(self.weights) != num_runs:
            raise InvalidInput(
                "every run needs a weight",
                received=f"{len(self.weights)} weights, {num_runs} runs",
                allowed=f"{num_runs} numbers with commas between them",
                next_step="give as many --weights as runs, or leave them out",
            )
        return self.weights
