"""TIES, DARE and factoring on numbers small enough to be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from peftkit.combining.factoring import decompose, decompose_product
from peftkit.combining.rules import disjoint_mean, drop, magnitude_threshold, trim


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_ties_as_worked_out_by_hand() -> None:
    """Three vectors of six entries, half of each kept."""
    vectors = [
        vector(4.0, -2.0, 0.1, 0.2, 4.0, -0.3),
        vector(-1.0, 3.0, 2.0, 0.1, 0.2, 0.3),
        vector(-2.5, 1.0, 0.4, 0.0, 4.0, 0.5),
    ]
    kept = [trim(v, magnitude_threshold(lambda v=v: [v], 0.5)) for v in vectors]

    assert kept[0].tolist() == [4.0, -2.0, 0.0, 0.0, 4.0, 0.0]
    assert kept[1].tolist() == [-1.0, 3.0, 2.0, 0.0, 0.0, 0.0]
    assert kept[2].tolist() == [-2.5, 1.0, 0.0, 0.0, 4.0, 0.0]
    # Sums: 0.5, 2, 2, 0, 8, 0. One against two wins the first. Means are of those of that sign.
    assert disjoint_mean(kept).tolist() == [4.0, 2.0, 2.0, 0.0, 4.0, 0.0]


def test_votes_that_balance_elect_nothing() -> None:
    assert disjoint_mean([vector(1.0, 2.0), vector(-1.0, 2.0)]).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 0.999, 1.0])
def test_the_threshold_is_that_of_all_layers_together(density: float) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [
        torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        for shape, scale in (((40, 30), 1e-3), ((17, 9), 10.0), ((64,), 1.0))
    ]
    every = torch.cat([layer.abs().float().flatten() for layer in layers])
    wanted = max(1, round(density * len(every)))
    expected = float(every.sort(descending=True).values[wanted - 1])
    found = magnitude_threshold(lambda: layers, density)

    assert found == expected
    assert sum(int(trim(layer, found).count_nonzero()) for layer in layers) == wanted


def test_a_threshold_among_zeros_keeps_everything() -> None:
    layer = vector(0.0, 0.0, 0.0, 5.0)

    assert magnitude_threshold(lambda: [layer], 0.75) == 0.0
    assert trim(layer, 0.0).tolist() == layer.tolist()


def test_dare_drops_its_share_and_keeps_the_expected_value() -> None:
    ones = torch.ones(200, 100, dtype=torch.float64)
    found = drop(ones, 0.2, seed=0, purpose="0|layer")
    share = float((found != 0).double().mean())

    assert set(found.flatten().tolist()) == {0.0, 5.0}
    assert abs(share - 0.2) < 5 * (0.2 * 0.8 / ones.numel()) ** 0.5
    assert torch.equal(found, drop(ones, 0.2, seed=0, purpose="0|layer"))
    for other in ({"seed": 1, "purpose": "0|layer"}, {"seed": 0, "purpose": "1|layer"}):
        assert not torch.equal(found, drop(ones, 0.2, **other))
    assert torch.equal(drop(ones, 1.0, seed=0, purpose="0|layer"), ones)


def test_ranks_follow_from_energy() -> None:
    """Singular values 4, 2, 1, 0: of 21, the squares are 16, 4, 1."""
    left, right = (torch.linalg.qr(torch.randn(n, 4, dtype=torch.float64))[0] for n in (6, 5))
    matrix = (left * vector(4.0, 2.0, 1.0, 0.0)) @ right.T
    parts = decompose(matrix)

    assert [parts.rank_of(e) for e in (0.5, 0.76, 0.77, 0.95, 0.96, 1.0)] == [1, 1, 2, 2, 3, 3]
    assert parts.rank_of(1.0, summands=2.0**46 * 4.9) == 2  # 1 is rounding beside such summands
    for rank, lost in ((1, 5**0.5), (2, 1.0), (3, 0.0)):
        up, down = parts.cut(rank)
        assert up.shape == (6, rank)
        assert down.shape == (rank, 5)
        assert float((up @ down - matrix).norm()) == pytest.approx(lost, abs=1e-12)


def test_nothing_has_rank_one() -> None:
    parts = decompose(torch.zeros(4, 3, dtype=torch.float64))
    up, down = parts.cut(parts.rank_of(1.0))

    assert (up.shape, down.shape) == ((4, 1), (1, 3))
    assert not (up @ down).any()


@pytest.mark.parametrize("rank", [2, 5, 9])  # 9 is more than either side
def test_a_product_is_decomposed_as_the_matrix_it_is(rank: int) -> None:
    up, down = (torch.randn(shape, dtype=torch.float64) for shape in ((7, rank), (rank, 6)))
    parts = decompose_product(up, down)
    expected = torch.linalg.svdvals(up @ down)[: len(parts.values)]

    torch.testing.assert_close(parts.values, expected)
    torch.testing.assert_close((parts.left * parts.values) @ parts.right, up @ down)
