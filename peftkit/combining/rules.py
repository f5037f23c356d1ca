"""Rules by which updates become one, entry by entry.

Linear, svd, cat, task arithmetic: `sum_i w_i Delta_i`; a negative weight takes what an adapter has
learned away (Ilharco et al. 2023, arXiv:2212.04089, section 2).

TIES (Yadav et al. 2023, arXiv:2306.01708, section 3): of each task vector keep the share `density`
of entries with the largest magnitude, over all layers together; elect for each entry the sign of
the sum over task vectors; take the mean over those entries that have that sign and were kept.

DARE (Yu et al. 2024, arXiv:2311.03099, section 3): drop each entry with probability `1 - density`
and divide the others by `density`, so that each keeps its expected value; then add, or elect and
take the disjoint mean as TIES does, in place of trimming.

Departures: a weight multiplies a task vector before the election, so that a negative one votes for
the other sign. Where votes balance exactly there is no sign to elect, and the entry is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def disjoint_mean(vectors: Sequence[Tensor]) -> Tensor:
    """Elect signs, then take the mean of the entries that have them; all of one shape."""
    import torch

    stacked = torch.stack(list(vectors))
    elected = stacked.sum(dim=0).sign()
    agreeing = (stacked.sign() == elected) & (stacked != 0)
    return (stacked * agreeing).sum(dim=0) / agreeing.sum(dim=0).clamp(min=1)


def trim(vector: Tensor, threshold: float) -> Tensor:
    """Zero what is smaller in magnitude than `threshold`, a float32 as the magnitudes then are."""
    return vector * (vector.abs().float() >= threshold)


def drop(vector: Tensor, density: float, *, seed: int, purpose: str) -> Tensor:
    """Zero entries at random and rescale the rest.

    Args:
        vector: Any shape.
        density: Probability of being kept.
        seed: Of the combination.
        purpose: Names the stream the mask is drawn from: adapters and layers have their own.
    """
    import torch

    from peftkit.seeds import seeded

    if density == 1:
        return vector
    with seeded(seed, f"dare|{purpose}"):
        kept = torch.rand(vector.shape, dtype=torch.float64) < density
    return vector * kept / density


def magnitude_threshold(parts: Callable[[], Iterable[Tensor]], density: float) -> float:
    """The magnitude that the share `density` of all entries reach.

    Entries are counted by the upper half of their magnitude's bits in float32, which order as the
    magnitudes do; so layers pass by one at a time, and only those of the deciding bucket are kept.

    Args:
        parts: Gives a task vector, layer by layer; called twice.
        density: In (0, 1].

    Returns:
        The k-th largest magnitude in float32, k being the share rounded to a whole number of
        entries, at least one. Entries that equal it are all kept.
    """
    import torch

    counts = torch.zeros(1 << 15, dtype=torch.int64)
    for part in parts():
        counts += torch.bincount(_bits(part) >> 16, minlength=1 << 15)
    wanted = max(1, round(density * int(counts.sum())))
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, wanted))
    bucket, above = (1 << 15) - 1 - place, int(from_top[place - 1]) if place else 0
    near = torch.cat([bits[bits >> 16 == bucket] for bits in map(_bits, parts())])
    chosen = near.sort(descending=True).values[wanted - above - 1]
    return float(chosen.view(torch.float32))


def _bits(part: Tensor) -> Tensor:
    """Bits of the magnitudes in float32, as whole numbers that order as they do."""
    import torch

    return part.abs().float().flatten().view(torch.int32)
