"""Which training rows a smaller study uses, and which of their labels are made wrong.

**Subsets are nested and stratified.** Rows of each class are shuffled; classes then take turns so
that after any number m of rows each class c, with share p_c of all rows, has had fewer than one
row more or less than m * p_c (Tijdeman's chairman assignment, 1980). It is found by giving the
k-th row of class c the window of turns

    [floor((k - 1) / p_c) + 1, ceil(k / p_c)]

and serving the open window that closes first; all arithmetic is in integers. The subset of size m
is the first m rows of: two rows of every class, then the turns without those. So a smaller subset
is the beginning of a larger one, and beyond the floor of two rows every class has its share to
within one row.

**Label noise is symmetric and tied to rows.** Row i draws one number u_i, which decides whether it
is flipped, and one that decides to which other class. Exactly round(rate * n) rows are flipped:
those with the smallest u_i. So at one seed a lower rate flips a part of what a higher rate flips,
to the same classes; and a row common to two subsets is treated alike unless its u_i lies between
the two cuts.

Draws come from `numpy.random.default_rng(derive(seed, purpose))`, one stream for each purpose.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.errors import InvalidInput
from peftkit.seeds import derive

if TYPE_CHECKING:
    import numpy as np

_FLOOR = 2


def subset(labels: Sequence[int], size: int, seed: int) -> list[int]:
    """Draw a stratified subset of rows, nested in every larger one of the same seed.

    Args:
        labels: Class of each row.
        size: Number of rows to draw.
        seed: Drives which rows, and which class goes first where classes tie.

    Returns:
        Row indices; the subset of a smaller size is the beginning of this list.

    Raises:
        InvalidInput: More rows than there are, or fewer than two of each class (one, of a class
            that has only one row).
    """
    import numpy as np

    if not 0 < size <= len(labels):
        raise InvalidInput(
            "the training subset cannot be drawn",
            received=f"size {size}",
            allowed=f"1 to {len(labels)}, the number of training rows available",
            next_step="ask for a smaller size" if size > 0 else "ask for a positive size",
        )
    _, classes = np.unique(np.asarray(labels[:]), return_inverse=True)
    counts = np.bincount(classes)
    smallest = int(np.minimum(counts, _FLOOR).sum())
    if size < smallest:
        raise InvalidInput(
            "the training subset is too small to hold two rows of each class",
            received=f"size {size} for {len(counts)} classes",
            allowed=f"at least {smallest}",
            next_step=f"ask for {smallest} or more rows",
        )
    draws = _draws(seed, "subset rows", len(classes))
    rows = np.lexsort((draws, classes)).tolist()  # one shuffled queue of rows after another
    ranks = np.argsort(np.argsort(_draws(seed, "subset classes", len(counts)))).tolist()
    starts = (np.cumsum(counts) - counts).tolist()
    turns = _floor_first(_turns(counts.tolist(), ranks, size), counts.tolist(), ranks, size)
    return [rows[starts[c] + k] for c, k in turns]


def _floor_first(
    turns: Sequence[tuple[int, int]], counts: Sequence[int], ranks: Sequence[int], size: int
) -> list[tuple[int, int]]:
    """Return `size` turns (class, row of the class), the floor's rows ahead of all others."""
    in_turn = sorted(range(len(counts)), key=ranks.__getitem__)
    floor = [(c, k) for k in range(_FLOOR) for c in in_turn if k < counts[c]]
    return (floor + [turn for turn in turns if turn[1] >= _FLOOR])[:size]


def _turns(counts: Sequence[int], ranks: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Return the class, and which of its rows, of the turns 1 to `size`.

    Each class has one window in hand. Windows that have not opened wait in `closed`.
    """
    total = sum(counts)
    closed = [(1, c, 0) for c in range(len(counts))]
    heapq.heapify(closed)
    ready: list[tuple[int, int, int, int]] = []
    turns = []
    for turn in range(1, size + 1):
        while closed and closed[0][0] <= turn:
            _, c, k = heapq.heappop(closed)
            closes = -(-(k + 1) * total // counts[c])
            heapq.heappush(ready, (closes, ranks[c], c, k))
        closes, _, c, k = heapq.heappop(ready)
        assert closes >= turn, "the windows always admit a schedule"
        turns.append((c, k))
        if k + 1 < counts[c]:
            heapq.heappush(closed, ((k + 1) * total // counts[c] + 1, c, k + 1))
    return turns


def flip_labels(
    labels: Sequence[int],
    num_classes: int,
    rate: float,
    seed: int,
    *,
    rows: Sequence[int] | None = None,
) -> list[int]:
    """Give exactly round(rate * n) rows another class, each other class being equally likely.

    Args:
        labels: Class of each row, 0 to `num_classes` - 1.
        num_classes: Number of classes.
        rate: Share of labels made wrong, in [0, 1).
        seed: Drives which rows are flipped and to what.
        rows: What each row is called in all subsets, such as its index in the training split;
            its position here if left out (enough for subsets that begin alike).

    Returns:
        The labels, in the same order.

    Raises:
        InvalidInput: A rate outside [0, 1), or a label outside the classes.
    """
    import numpy as np

    if not 0 <= rate < 1:
        raise InvalidInput(
            "the label noise cannot be applied",
            received=f"rate {rate}",
            allowed="a share of rows from 0 up to, but not including, 1",
        )
    noisy = np.array(labels[:], dtype=np.int64)
    if len(noisy) and not (noisy.min() >= 0 and noisy.max() < num_classes):
        raise InvalidInput(
            "labels lie outside the classes",
            received=f"labels from {noisy.min()} to {noisy.max()}",
            allowed=f"0 to {num_classes - 1}",
        )
    num_flipped = round(rate * len(noisy))
    if num_flipped and num_classes < 2:
        raise InvalidInput("labels of one class cannot be made wrong", received=f"rate {rate}")
    names = np.arange(len(noisy)) if rows is None else np.asarray(rows, dtype=np.int64)
    known = int(names.max()) + 1 if len(names) else 0
    cut = np.argsort(_draws(seed, "label noise rows", known)[names], kind="stable")[:num_flipped]
    draws = _draws(seed, "label noise classes", known)[names]
    step = 1 + (draws * (num_classes - 1)).astype(np.int64)
    noisy[cut] = (noisy[cut] + step[cut]) % num_classes
    return [int(label) for label in noisy]


def _draws(seed: int, purpose: str, count: int) -> np.ndarray:
    """Return `count` uniform numbers in [0, 1); a longer draw begins with the shorter one."""
    import numpy as np

    return np.random.default_rng(derive(seed, purpose)).random(count)
