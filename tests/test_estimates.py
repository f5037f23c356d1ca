"""The crossed interval: against numbers worked out by hand, against scipy, and by its coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from peftkit.statistics.estimates import crossed_estimate, mean_squares, seed_estimate

# Two seeds, three items. Means of seeds 2 and 3, of items 2, 2 and 3.5, of all 2.5.
# Seeds: 3 (0.25 + 0.25) / 1 = 1.5. Items: 2 (0.25 + 0.25 + 1) / 2 = 1.5.
# Rest: residuals -0.5, 0.5, 0 and 0.5, -0.5, 0, so 1 / (1 * 2) = 0.5.
WORKED = [[1, 2, 3], [3, 2, 4]]


def test_mean_squares_are_those_worked_out_by_hand() -> None:
    found = mean_squares(WORKED)

    assert (found.seeds, found.items, found.rest) == pytest.approx((1.5, 1.5, 0.5))


def test_crossed_estimate_is_the_one_worked_out_by_hand() -> None:
    found = crossed_estimate(WORKED)
    # V = max(1.5 + 1.5 - 0.5, 1.5, 1.5) / 6; df = 2.5^2 / (1.5^2/1 + 1.5^2/2 + 0.5^2/2) = 6.25/3.5
    half = stats.t.ppf(0.975, 6.25 / 3.5) * math.sqrt(2.5 / 6)

    assert found.mean == 2.5
    assert found.standard_error == pytest.approx(math.sqrt(2.5 / 6))
    assert found.df == pytest.approx(6.25 / 3.5)
    assert found.half_width(0.95) == pytest.approx(half)
    assert found.interval(0.95) == pytest.approx((2.5 - half, 2.5 + half))
    assert (found.num_seeds, found.num_items, found.sources) == (2, 3, "test items and seeds")


def test_mean_squares_add_up_to_the_total_sum_of_squares() -> None:
    values = np.random.default_rng(0).normal(size=(4, 7))
    found = mean_squares(values)

    total = 3 * found.seeds + 6 * found.items + 18 * found.rest
    assert total == pytest.approx(np.square(values - values.mean()).sum())


def test_variance_never_falls_below_what_one_factor_explains() -> None:
    # Means of seeds 0.5 and 0.5, of items 1, 0.5, 0.5 and 0: MSs 0, MSi 2 * 0.5 / 3 = 1/3, and
    # residuals 0, 0.5, -0.5, 0 and their opposites: MSe 1/3. So MSs + MSi - MSe = 0 < MSi.
    found = crossed_estimate([[1, 1, 0, 0], [1, 0, 1, 0]])

    assert found.standard_error == pytest.approx(math.sqrt(1 / 3 / 8))


def test_one_seed_gives_the_ordinary_t_interval_over_items_and_says_so() -> None:
    values = np.random.default_rng(1).integers(0, 2, size=60)
    found = crossed_estimate(values[None, :])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)

    assert found.interval(0.9) == pytest.approx((expected.low, expected.high))
    assert found.sources == "test items"


def test_items_that_all_agree_do_not_make_a_mean_certain() -> None:
    found = crossed_estimate(np.zeros((3, 48)))

    assert (found.mean, found.standard_error, found.df) == (0.0, 1 / 50, 47.0)
    assert not found.excludes_zero()


def test_the_least_error_is_in_the_unit_of_the_scores() -> None:
    """Nats per token that differ by thousandths are not as uncertain as answers right or wrong."""
    values = 0.001 * np.random.default_rng(0).random((3, 48))

    assert crossed_estimate(values).standard_error == pytest.approx(1 / 50)
    found = crossed_estimate(values, shares=False)
    assert found.standard_error < 0.0002
    scaled = crossed_estimate(1000 * values, shares=False)
    assert scaled.standard_error == pytest.approx(1000 * found.standard_error)


def test_degrees_of_freedom_stay_usable_where_the_formula_falls_to_zero() -> None:
    found = crossed_estimate([[1, 0], [0, 1]])  # MSs = MSi = 0, MSe = 1

    assert found.df == 1.0
    assert math.isfinite(found.half_width())


def test_the_order_of_seeds_and_items_does_not_matter() -> None:
    draw = np.random.default_rng(2)
    values = draw.normal(size=(3, 20))
    shuffled = values[[2, 0, 1]][:, draw.permutation(20)]

    assert crossed_estimate(shuffled).interval() == pytest.approx(
        crossed_estimate(values).interval()
    )


def test_seed_estimate_is_the_t_interval_of_scipy() -> None:
    values = [0.71, 0.74, 0.69, 0.75]
    found = seed_estimate(values)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))

    assert found.interval(0.95) == pytest.approx(expected)
    assert found.sources == "seeds"


def test_one_value_alone_has_no_interval() -> None:
    found = seed_estimate([0.7])

    assert found.sources == "nothing"
    assert math.isnan(found.half_width())
    assert not found.excludes_zero()


@pytest.mark.parametrize("values", [[1, 0], [[1], [0]], np.zeros((0, 5)), np.zeros((2, 2, 2))])
def test_other_shapes_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match="shape"):
        crossed_estimate(values)  # type: ignore[arg-type]


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        crossed_estimate([[1.0, math.nan], [0.0, 1.0]])


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_outside_the_unit_interval_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        crossed_estimate(WORKED).half_width(level)


STUDIES, SEEDS, ITEMS = 800, 3, 500


def simulate(seed_sd: float, paired: bool) -> tuple[NDArray[np.float64], float]:
    """Studies of probit items, shape (studies, seeds, items), and the true mean.

    An answer is right when 1.2 + difficulty + seed + rest is positive (accuracy near .80). Paired:
    two methods that share difficulty and differ by 0.05 in level, and each has seeds of its own.
    """
    draw = np.random.default_rng(int(1000 * seed_sd) + paired)
    shape = (STUDIES, SEEDS, ITEMS)
    difficulty = draw.normal(0, 1, (STUDIES, 1, ITEMS))

    def answers(level: float) -> NDArray[np.float64]:
        own_item = draw.normal(0, 0.3, (STUDIES, 1, ITEMS))
        seed = draw.normal(0, seed_sd, (STUDIES, SEEDS, 1))
        return (level + difficulty + own_item + seed + draw.normal(0, 0.5, shape) > 0) * 1.0

    spread = math.sqrt(1 + 0.3**2 + seed_sd**2 + 0.5**2)
    if not paired:
        return answers(1.2), float(stats.norm.cdf(1.2 / spread))
    truth = stats.norm.cdf(1.2 / spread) - stats.norm.cdf(1.15 / spread)
    return answers(1.2) - answers(1.15), float(truth)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seed_sd", [0.0, 0.03, 0.15])
def test_intervals_cover_as_often_as_they_promise(seed_sd: float, paired: bool) -> None:
    """STATISTICS: errors per side 3-7 % where 5 % are nominal."""
    studies, truth = simulate(seed_sd, paired)
    found = [crossed_estimate(values) for values in studies]

    for level in (0.90, 0.95):
        ends = np.array([each.interval(level) for each in found])
        errors = [float((ends[:, 0] > truth).mean()), float((ends[:, 1] < truth).mean())]
        per_side = (1 - level) / 2
        monte_carlo = 3 * math.sqrt(per_side * (1 - per_side) / STUDIES)
        assert max(errors) <= 1.4 * per_side + monte_carlo
        assert sum(errors) >= 0.4 * 2 * per_side - monte_carlo


def test_the_coverage_test_would_notice_an_interval_over_items_alone() -> None:
    studies, truth = simulate(0.15, paired=True)
    found = [crossed_estimate(values.mean(axis=0)[None, :]).interval(0.90) for values in studies]

    assert np.mean([low <= truth <= high for low, high in found]) < 0.75
