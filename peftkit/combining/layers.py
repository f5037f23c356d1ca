"""One layer of the result at a time: its updates read, combined, factored, and compared.

The error is that of the numbers as they are stored, in float32, against what the rule gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from peftkit.combining.factoring import Spectrum, decompose, decompose_product
from peftkit.combining.reading import Adapter, Factors
from peftkit.combining.request import SPARSE, Request
from peftkit.combining.rules import disjoint_mean, drop, magnitude_threshold, trim
from peftkit.combining.updates import Update, update_of, weight_of, weighted_sum
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CombinedLayer:
    """One layer of the result.

    Attributes:
        name: Of the module.
        factors: What is stored of it, in float32, of scale 1.
        norm: Frobenius norm of the update that the rule gives.
        error: Relative Frobenius error of the stored factors against that update.
        rank_for_99_percent: The rank that would keep 0.99 of the squared norm.
    """

    name: str
    factors: Factors = field(repr=False)
    norm: float
    error: float
    rank_for_99_percent: int

    @property
    def rank(self) -> int:
        return int(self.factors.a.shape[0])


@dataclass(kw_only=True)
class Combination:
    """Adapters on their way to one.

    Attributes:
        adapters: To be combined.
        weights: One each.
        request: The rule and its options.
        model: The backbone, weights read if any adapter needs them.
    """

    adapters: Sequence[Adapter]
    weights: Sequence[float]
    request: Request
    model: Any

    @cached_property
    def has_bias(self) -> bool:
        return any(f.bias is not None for a in self.adapters for f in a.layers.values())

    @cached_property
    def reads_weights(self) -> bool:
        """Whether W itself is needed: where an adapter trained lengths of its rows."""
        return any(f.length is not None for a in self.adapters for f in a.layers.values())

    @property
    def keeps_lengths(self) -> bool:
        """Whether the result is a DoRA: sums of its updates are exact only in that form."""
        return self.reads_weights and self.request.method not in (*SPARSE, "svd")

    def layer(self, name: str) -> CombinedLayer:
        """Combine what the adapters do to one layer.

        Raises:
            InvalidInput: The sum of DoRA's updates leaves a row of the weights no length.
        """
        method, weight = self.request.method, self._weight(name)
        updates = self._updates(name, weight)
        if method in SPARSE:
            sparse = self._sparse(name, {i: u.dense(weight) for i, u in updates.items()})
            biases = {i: u.bias for i, u in updates.items() if u.bias is not None}
            bias = self._sparse(f"{name}.bias", biases) if biases else None
            total = Update(up=sparse, down=sparse[:0], bias=bias)  # never used as factors
            target, parts = sparse, decompose(sparse)
        else:
            chosen = [self.weights[i] for i in updates]
            total = weighted_sum(list(updates.values()), chosen)
            target = total.dense(weight)
            whole = method == "svd" and total.stretch is not None
            parts = decompose(target) if whole else decompose_product(total.up, total.down)
        cut = (total.up, total.down)
        if method != "cat":
            cut = parts.cut(self._rank(parts, updates))
        stored = self._stored(name, cut, total, weight)
        left = update_of(stored, weight).dense(weight) - target
        norm = float(target.norm())
        return CombinedLayer(
            name=name,
            factors=stored,
            norm=norm,
            error=float(left.norm()) / norm if norm else float(left.norm()),
            rank_for_99_percent=parts.rank_of(0.99),
        )

    def _weight(self, name: str) -> Tensor | None:
        return weight_of(self.model, name) if self.reads_weights else None

    def _updates(self, name: str, weight: Tensor | None) -> dict[int, Update]:
        """By the index of the adapter; those that leave the layer alone are left out."""
        found = enumerate(adapter.layers.get(name) for adapter in self.adapters)
        return {i: update_of(factors, weight) for i, factors in found if factors is not None}

    def _rank(self, parts: Spectrum, updates: dict[int, Update]) -> int:
        if self.request.rank is not None:
            return min(self.request.rank, len(parts.values))
        exact = self.request.method in ("linear", "task_arithmetic")
        if self.request.energy is not None or exact:
            products = (self.weights[i] * u.up @ u.down for i, u in updates.items())
            return parts.rank_of(
                self.request.energy or 1.0, sum(float(each.square().sum()) for each in products)
            )
        ranks = [update.rank for update in updates.values()]
        wanted = max(ranks) if self.request.method == "svd" else sum(ranks)
        return min(wanted, len(parts.values))

    def _sparse(self, name: str, vectors: dict[int, Tensor]) -> Tensor:
        """TIES or DARE on one tensor of each adapter that has it."""
        import torch

        method, density = self.request.method, self.request.share
        thinned = []
        for i, vector in vectors.items():
            if method == "ties":
                kept = trim(vector, self._thresholds[i])
            else:
                kept = drop(vector, density, seed=self.request.drawn_from, purpose=f"{i}|{name}")
            thinned.append(self.weights[i] * kept)
        if method == "dare_linear":
            return torch.stack(thinned).sum(dim=0)
        return disjoint_mean(thinned)

    @cached_property
    def _thresholds(self) -> list[float]:
        """Of each adapter, the least magnitude that TIES keeps."""
        density = self.request.share
        if density == 1:
            return [0.0] * len(self.adapters)
        return [
            magnitude_threshold(partial(self._task_vector, i), density)
            for i in range(len(self.adapters))
        ]

    def _task_vector(self, index: int) -> Iterator[Tensor]:
        for name, factors in self.adapters[index].layers.items():
            weight = self._weight(name)
            update = update_of(factors, weight)
            yield update.dense(weight)
            if update.bias is not None:
                yield update.bias

    def _stored(
        self, name: str, cut: tuple[Tensor, Tensor], total: Update, weight: Tensor | None
    ) -> Factors:
        """The factors as PEFT keeps them, lengths and biases included."""
        import torch

        up, down = cut
        length = bias = None
        if self.keeps_lengths:
            assert weight is not None
            stretched = torch.ones(len(up), dtype=up.dtype)
            if total.stretch is not None:
                stretched = stretched + total.stretch
            if float(stretched.abs().min()) < 1e-6:
                raise InvalidInput(
                    f"the sum leaves a row of {name} no length, and DoRA cannot hold that",
                    received=f"weights {', '.join(f'{w:g}' for w in self.weights)}",
                    next_step="choose --method svd, whose result is a plain LoRA",
                )
            up = up / stretched[:, None]
            length = (stretched * (weight + up @ down).norm(dim=1)).float()
        if self.has_bias:
            bias = torch.zeros(len(up)) if total.bias is None else total.bias.float()
        return Factors(a=down.float(), b=up.float(), scale=1.0, bias=bias, length=length)
