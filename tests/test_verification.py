"""Agreement of two models: by hand, and where there is nothing to compare."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from peftkit.errors import InvalidInput, UnknownName
from peftkit.verification import agreement, largest_logit, tolerance

REFERENCE = np.log([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])


def test_it_is_as_computed_by_hand() -> None:
    other = np.log([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]])
    found = agreement(REFERENCE, other, {"accuracy": (0.5, 1.0)})

    # KL of the first row: 0.5 ln(0.5 / 0.25) + 0.25 ln(0.25 / 0.5) = 0.25 ln 2; of the second 0.
    assert found.kl == pytest.approx(0.125 * math.log(2))
    assert found.largest_difference == pytest.approx(math.log(2))
    assert (found.num_rows, found.equal_predictions) == (2, 0.5)
    assert found.to_dict()["metrics"] == {"accuracy": [0.5, 1.0]}


def test_tensors_of_any_format_and_leading_axes_are_read() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    found = agreement(logits, logits.bfloat16())

    assert 0 < found.largest_difference < 2**-8 * float(logits.abs().max())
    assert found.num_rows == 2


def test_what_both_mask_does_not_count() -> None:
    masked = np.concatenate([REFERENCE, np.full((2, 1), -np.inf)], axis=1)
    nothing = np.full((1, 4), np.nan)
    found = agreement(np.concatenate([masked, nothing]), np.concatenate([masked, nothing]))

    assert (found.largest_difference, found.kl, found.equal_predictions) == (0.0, 0.0, 1.0)
    assert largest_logit(masked) == pytest.approx(-math.log(0.2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_in_one_only_never_holds(value: float) -> None:
    other = REFERENCE.copy()
    other[0, 1] = value
    for found in (agreement(REFERENCE, other), agreement(other, REFERENCE)):
        assert found.largest_difference == math.inf
        assert not found.holds("bfloat16", 10.0)
        assert found.to_dict()["largest_difference"] is None


def test_nothing_to_compare_never_holds() -> None:
    nothing = np.full((2, 3), np.nan)

    assert not agreement(nothing, nothing).holds("bfloat16", 10.0)


def test_shapes_must_be_equal() -> None:
    with pytest.raises(InvalidInput, match=r"\(2, 3\) and \(2, 2\)"):
        agreement(REFERENCE, REFERENCE[:, :2])


def test_bounds_grow_as_formats_get_coarser() -> None:
    exact, half, coarse = map(tolerance, ("torch.float32", "float16", "bfloat16"))

    assert exact < half < coarse < 0.1
    with pytest.raises(UnknownName, match="int4"):
        tolerance("int4")
