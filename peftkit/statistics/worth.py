"""What a difference is worth: in labelled examples, and in bits that an adapter can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from collections.abc import Sequence

BINS = 1000
BITS_PER_PARAMETER = 2.0
"""What a trained parameter stores (Allen-Zhu and Li, ICLR 2025; LoRA Without Regret, 2025)."""


@dataclass(frozen=True)
class Capacity:
    """What the training data hold against what an adapter can store, in bits."""

    data_bits: float
    adapter_bits: float

    @property
    def share(self) -> float:
        """Data over adapter: far below 1 no adapter is strained, above 1 it is too small."""
        return self.data_bits / self.adapter_bits if self.adapter_bits else math.inf


def capacity(num_examples: int, bits_per_example: float, trainable_parameters: int) -> Capacity:
    """Compare the bits in labels (or answers) with what the trained parameters can hold."""
    return Capacity(num_examples * bits_per_example, trainable_parameters * BITS_PER_PARAMETER)


def factor_in_examples(
    sizes: Sequence[float], cheaper: Sequence[float], full: Sequence[float]
) -> float | None:
    """How many times the examples the cheaper method needs to be as good as full fine-tuning.

    Between the two curves over the logarithm of the size, each made monotone, lies an area; over
    the heights that both reach, its mean width is the logarithm of that factor. Below 1: it needs
    fewer.

    Args:
        sizes: K sizes, ascending.
        cheaper: Scores at them, higher being better.
        full: Likewise.

    Returns:
        The factor; None: there is no height that both curves pass through.
    """
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    ours, theirs = (
        scipy.optimize.isotonic_regression(np.asarray(y, dtype=np.float64)).x
        for y in (cheaper, full)
    )
    low, high = max(ours[0], theirs[0]), min(ours[-1], theirs[-1])
    if not high > low:
        return None
    # Middles of bins: none lies on a plateau, where a height is reached at more than one size.
    heights = low + (high - low) * (np.arange(BINS) + 0.5) / BINS
    widths = np.interp(heights, ours, logs) - np.interp(heights, theirs, logs)
    return float(np.exp(widths.mean()))
