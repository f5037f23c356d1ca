"""Which examples are seen when: a pure function of their number, lengths, seed and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from peftkit.seeds import derive

if TYPE_CHECKING:
    from peftkit.settings import Training

POOL_BATCHES = 50  # batches that are sorted by length together


def batch_order(
    lengths: Sequence[int], *, num_batches: int, batch_size: int, order: str, seed: int
) -> list[int]:
    """Indices of the examples of all batches, one after the other.

    Epochs follow each other without a gap: each is a permutation of its own, and every batch is
    full. With order "length", the examples of 50 batches at a time are sorted by length, cut into
    batches, and the batches shuffled, so that little padding is needed.

    Args:
        lengths: Tokens of each example.
        num_batches: Forward passes in all.
        batch_size: Examples in each.
        order: "length" or "random".
        seed: Of the recipe.
    """
    random = np.random.default_rng(derive(seed, "order"))
    needed = num_batches * batch_size
    epochs = math.ceil(needed / len(lengths))
    stream = np.concatenate([random.permutation(len(lengths)) for _ in range(epochs)])[:needed]
    if order == "random":
        return [int(i) for i in stream]
    size = np.asarray(lengths)
    batches: list[np.ndarray] = []
    for start in range(0, needed, POOL_BATCHES * batch_size):
        pool = stream[start : start + POOL_BATCHES * batch_size]
        pool = pool[np.argsort(size[pool], kind="stable")]
        cut = np.split(pool, range(batch_size, len(pool), batch_size))
        batches += [cut[i] for i in random.permutation(len(cut))]
    return [int(i) for i in np.concatenate(batches)]


def order_of(lengths: Sequence[int], training: Training, *, seed: int) -> list[int]:
    """Indices of the examples of all batches of a run, as `batch_order` makes them."""
    return batch_order(
        lengths,
        num_batches=training.num_steps(len(lengths)) * training.gradient_accumulation,
        batch_size=training.batch_size,
        order=training.order,
        seed=seed,
    )
