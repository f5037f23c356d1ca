"""Subsets are nested and stratified; label noise is exact and stays with its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.data import flip_labels, subset
from peftkit.errors import InvalidInput

NUMBERS = [0, 1, 2] * 4

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120)


def smallest_size(labels: Sequence[int]) -> int:
    return sum(min(2, count) for count in Counter(labels).values())


@settings(max_examples=150, deadline=None)
@given(LABELS, st.integers(0, 5))
def test_subsets_are_nested_and_every_prefix_is_stratified(labels: list[int], seed: int) -> None:
    counts, n = Counter(labels), len(labels)
    whole = subset(labels, n, seed)
    assert sorted(whole) == list(range(n))
    for size in range(smallest_size(labels), n + 1):
        drawn = subset(labels, size, seed)
        assert drawn == whole[:size]
        got = Counter(labels[row] for row in drawn)
        assert all(got[c] >= min(2, counts[c]) for c in counts)
        # One m for all classes: |got - m * share| < 1, or the floor holds a class above that.
        # As integers: m * count lies in ((got - 1) * n, (got + 1) * n).
        above = [c for c in counts if got[c] > min(2, counts[c])]
        low = max(((got[c] - 1) * n / counts[c] for c in above), default=0)
        high = min((got[c] + 1) * n / counts[c] for c in counts)
        assert low < high
        assert any(low < m < high for m in range(size + 1))
        if all(size * count >= 3 * n for count in counts.values()):
            assert all(abs(got[c] * n - size * counts[c]) < n for c in counts)


def test_one_large_class_among_many_small_ones_gets_its_share() -> None:
    """149 classes of 100 and one of 1,000: in step, the small ones would starve or feed it."""
    labels = [c for c in range(149) for _ in range(100)] + [149] * 1000
    for size in (500, 777, 1000, 4000):
        got = Counter(labels[row] for row in subset(labels, size, 0))
        assert abs(got[149] - size * 1000 / 15900) < 1


def test_seeds_draw_other_rows_and_all_rows_equally_often() -> None:
    labels = [0] * 30 + [1] * 10
    drawn = Counter(row for seed in range(400) for row in subset(labels, 12, seed))
    # 9 of 30 and 3 of 10: each row in 30 % of the subsets, 120 of 400, standard deviation 9.2.
    assert all(120 - 42 < drawn[row] < 120 + 42 for row in range(40))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (5, "too small.*size 5 for 3 classes.*at least 6"),
        (0, "1 to 12"),
        (13, "1 to 12, the number of training rows available.*smaller"),
    ],
)
def test_impossible_subset_sizes_are_refused(size: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        subset(NUMBERS, size, 0)


def test_a_class_of_one_row_is_always_in() -> None:
    labels = [0] * 10 + [1]
    assert 10 in subset(labels, 3, 0)
    with pytest.raises(InvalidInput, match="at least 3"):
        subset(labels, 2, 0)


# ---- label noise


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=80), st.floats(0, 0.99), st.integers(0, 9))
def test_noise_flips_exactly_its_share_to_other_classes(
    labels: list[int], rate: float, seed: int
) -> None:
    noisy = flip_labels(labels, 5, rate, seed)
    flipped = [i for i, (a, b) in enumerate(zip(labels, noisy, strict=True)) if a != b]
    assert len(flipped) == round(rate * len(labels))
    assert all(0 <= label < 5 for label in noisy)
    more = flip_labels(labels, 5, (1 + rate) / 2, seed)
    assert all(more[i] == noisy[i] for i in flipped)


def test_noise_stays_with_the_row_across_subsets() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 4000).tolist()
    large, small = subset(labels, 4000, 1), subset(labels, 1000, 1)
    noisy = {
        len(rows): dict(
            zip(rows, flip_labels([labels[r] for r in rows], 4, 0.3, 1, rows=rows), strict=True)
        )
        for rows in (large, small)
    }
    agree = sum(noisy[4000][row] == noisy[1000][row] for row in small)
    # The cut of 1,000 draws is a quantile, 0.3 give or take 0.0145: few rows lie between.
    assert agree > 940
    assert flip_labels(labels[:1000], 4, 0.3, 1) != flip_labels(labels[:1000], 4, 0.3, 2)


def test_noise_is_uniform_over_rows_and_other_classes() -> None:
    noisy = np.array(flip_labels([1] * 60000, 4, 0.5, 0))
    counts = np.bincount(noisy, minlength=4)
    assert counts[1] == 30000
    assert abs(counts[[0, 2, 3]] - 10000).max() < 5 * 82  # binomial standard deviation 82
    assert abs((noisy[:30000] != 1).sum() - 15000) < 5 * 61  # hypergeometric


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_impossible_noise_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInput, match="from 0 up to, but not including, 1"):
        flip_labels([0, 1], 2, rate, 0)
    with pytest.raises(InvalidInput, match=r"outside the classes.*0 to 1"):
        flip_labels([0, 2], 2, 0.5, 0)
