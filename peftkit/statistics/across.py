"""Many tasks, or many trials, in one number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

FEWEST_TASKS = 5  # below it, interquartile mean and probability of improvement say little


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores (Agarwal et al., NeurIPS 2021)."""
    return float(scipy.stats.trim_mean(np.ravel(np.asarray(scores, dtype=np.float64)), 0.25))


def probability_of_improvement(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> float:
    """How often a run of `first` beats one of `second` on a task drawn at random; ties count half.

    Args:
        first: Scores of runs, one array a task, higher being better.
        second: Likewise, of the same tasks.

    Source: Agarwal et al., NeurIPS 2021, section 4.3.
    """
    wins = []
    for ours, theirs in zip(first, second, strict=True):
        gap = np.subtract.outer(np.asarray(ours, float), np.asarray(theirs, float))
        wins.append(float(np.mean(gap > 0) + np.mean(gap == 0) / 2))
    return float(np.mean(wins))


def expected_best(scores: ArrayLike, trials: int) -> float:
    """Expected best of so many trials, drawn without replacement from those that were run.

    Unbiased, unlike the form of Dodge et al. (EMNLP 2019), which draws with replacement; see Tang
    et al. (ACL 2020).

    Raises:
        ValueError: More trials than there are scores, or less than one.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    if not 1 <= trials <= n:
        raise ValueError(f"expected 1 to {n} trials, got {trials}")
    chances = [math.comb(j, trials - 1) / math.comb(n, trials) for j in range(n)]
    return float(ordered @ np.asarray(chances))
