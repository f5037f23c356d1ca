"""Tests, power, crossover, curves and worth: against worked numbers, scipy, and simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from peftkit.statistics.across import (
    expected_best,
    interquartile_mean,
    probability_of_improvement,
)
from peftkit.statistics.crossover import crossover, smooth
from peftkit.statistics.curves import (
    JointLaw,
    PowerLaw,
    crossing,
    fit_joint_law,
    fit_power_law,
    learning_curve,
)
from peftkit.statistics.estimates import Estimate, crossed_estimate
from peftkit.statistics.hypotheses import better_by, equivalent, holm, not_worse, wilson
from peftkit.statistics.power import Components, components, items_needed, power, seeds_needed
from peftkit.statistics.worth import capacity, factor_in_examples

GAP = Estimate(mean=0.002, standard_error=0.004, df=9.0, num_seeds=3, num_items=1000)


# ---- hypotheses


def test_not_worse_and_better_are_tails_of_one_t() -> None:
    t = (0.002 - 0.01) / 0.004

    assert not_worse(GAP, 0.01) == pytest.approx(stats.t.cdf(t, 9))
    assert better_by(GAP, 0.01) == pytest.approx(1 - stats.t.cdf(t, 9))
    assert equivalent(GAP, 0.01) == pytest.approx(max(stats.t.cdf(-2.0, 9), stats.t.cdf(-3.0, 9)))


def test_an_adapter_that_is_far_better_is_not_worse_and_not_equivalent() -> None:
    ahead = Estimate(mean=-0.05, standard_error=0.004, df=9.0, num_seeds=3, num_items=1000)

    assert not_worse(ahead, 0.01) < 1e-5
    assert equivalent(ahead, 0.01) > 0.99


def test_holm_is_the_published_example() -> None:
    # Worked by hand: 4 x .005, 3 x .01, 2 x .03 (kept at .06), 1 x .04 raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_wilson_is_the_textbook_interval() -> None:
    # Wilson's formula at 5 of 100, z = 1.959964.
    assert wilson(5, 100) == pytest.approx((0.02154, 0.11175), abs=1e-5)


# ---- power


def simulated(
    random: np.random.Generator, gap: float, shape: tuple[int, int], sd: tuple[float, float, float]
) -> NDArray[np.float64]:
    seeds, items = shape
    return np.asarray(
        gap
        + sd[0] * random.normal(size=(seeds, 1))
        + sd[1] * random.normal(size=(1, items))
        + sd[2] * random.normal(size=(seeds, items))
    )


def test_components_are_found_again() -> None:
    random = np.random.default_rng(0)
    found = [components(simulated(random, 0.0, (6, 200), (0.3, 0.5, 1.0))) for _ in range(200)]

    assert np.mean([c.seeds for c in found]) == pytest.approx(0.09, rel=0.15)
    assert np.mean([c.items for c in found]) == pytest.approx(0.25, rel=0.05)
    assert np.mean([c.rest for c in found]) == pytest.approx(1.0, rel=0.02)


def test_components_of_one_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="one seed"):
        components([[1.0, 2.0, 3.0]])


@pytest.mark.parametrize(("seeds", "items"), [(3, 400), (8, 400), (5, 60)])
def test_power_is_the_share_of_studies_that_decide(seeds: int, items: int) -> None:
    spread, sd = Components(0.01, 0.04, 0.5), (0.1, 0.2, 0.5**0.5)
    random = np.random.default_rng(seeds)
    decided = [
        not_worse(crossed_estimate(simulated(random, 0.0, (seeds, items), sd)), 0.15) <= 0.05
        for _ in range(1000)
    ]

    assert power(spread, 0.15, seeds, items) == pytest.approx(np.mean(decided), abs=0.06)


def test_what_is_needed_is_the_least_that_has_the_power() -> None:
    spread = Components(seeds=0.005**2, items=0.05**2, rest=0.28**2)
    seeds = seeds_needed(spread, 0.01, 3000)
    items = items_needed(spread, 0.01, 5)

    assert seeds is not None
    assert power(spread, 0.01, seeds, 3000) >= 0.8
    assert power(spread, 0.01, seeds - 1, 3000) < 0.8
    assert items is not None
    assert power(spread, 0.01, 5, items) >= 0.8
    assert power(spread, 0.01, 5, items - 1) < 0.8


def test_no_number_of_seeds_helps_where_items_are_too_few_and_the_other_way_round() -> None:
    assert seeds_needed(Components(0.0, 1.0, 1.0), 0.01, 500) is None
    assert items_needed(Components(0.05**2, 0.0, 0.01), 0.01, 3) is None


# ---- crossover


def curves(
    gap: NDArray[np.float64], seeds: int, items: int, sd: float, seed: int
) -> NDArray[np.float64]:
    """Differences (K, S, I) around a gap at each size, with seeds of their own at each size."""
    random = np.random.default_rng(seed)
    shared = 0.1 * random.normal(size=(1, 1, items))
    own = sd * random.normal(size=(len(gap), seeds, 1))
    return np.asarray(
        gap[:, None, None] + own + shared + 0.3 * random.normal(size=(len(gap), seeds, items))
    )


SIZES = np.array([64.0, 256.0, 1024.0, 4096.0])


def test_a_smoothed_difference_has_the_error_of_the_plain_formulas() -> None:
    """Against the contrast of every seed and item, written out."""
    values = curves(np.array([0.0, 0.01, 0.02, 0.05]), 4, 300, 0.01, 0)
    found = smooth(list(SIZES), values, points=7)
    logs = np.log(SIZES)
    for i, x in enumerate(np.log(found.sizes)):
        weights = np.vander([x], 3) @ np.linalg.pinv(np.vander(logs, 3))
        contrast = np.tensordot(weights[0], values, axes=1)
        seeds, items = contrast.mean(axis=1), contrast.mean(axis=0)
        left = contrast - seeds[:, None] - items[None] + contrast.mean()
        mss = 300 * seeds.var(ddof=1)
        msi, mse = 4 * items.var(ddof=1), (left**2).sum() / (3 * 299)
        scaled = mss + max(msi - mse, 0)
        assert found.mean[i] == pytest.approx(contrast.mean())
        assert found.standard_error[i] == pytest.approx(
            max(math.sqrt(scaled / 1200), 1 / 302), rel=1e-6
        )
        assert found.df[i] == pytest.approx(scaled**2 / (mss**2 / 3), rel=1e-6)


def test_a_clear_crossover_lies_between_closed_ends() -> None:
    gap = 0.05 * (np.log(SIZES) - np.log(512)) + 0.01  # rises over the margin at 512
    found = crossover(list(SIZES), curves(gap, 5, 2000, 0.003, 1), 0.01)

    assert found.answer == "between"
    assert None not in (found.lower, found.upper, found.estimate)
    assert found.lower < 512 < found.upper  # type: ignore[operator]
    assert found.estimate == pytest.approx(512, rel=0.3)
    assert [found.holds(size) for size in (64, 512, math.inf)] == [False, True, False]


@pytest.mark.parametrize(
    ("gap", "answer", "truth"),
    [(-0.05, "not reached", math.inf), (0.09, "from the smallest", 1.0), (0.01, "open", 512.0)],
)
def test_never_always_and_undecided_are_answers(gap: float, answer: str, truth: float) -> None:
    found = crossover(list(SIZES), curves(np.full(4, gap), 5, 2000, 0.003, 2), 0.01)

    assert found.answer == answer
    assert found.holds(truth)
    if answer == "from the smallest":  # exp(log(100)) is not 100
        there = crossover([100, 400, 1600, 6400], curves(np.full(4, gap), 5, 2000, 0.003, 2), 0.01)
        assert there.answer == answer


def test_ends_are_measured_sizes_where_three_are_all() -> None:
    """A difference that turns late is no parabola through three sizes, and nothing would tell."""
    sizes = [64.0, 1024.0, 16384.0]
    found = crossover(sizes, curves(np.array([-0.03, -0.01, 0.02]), 10, 4500, 0.002, 4), 0.01)

    assert (found.lower, found.upper) == (1024.0, 16384.0)
    assert found.estimate is not None
    assert found.lower < found.estimate < found.upper
    always = crossover(sizes, curves(np.full(3, 0.09), 5, 2000, 0.003, 2), 0.01)
    assert (always.lower, always.upper) == (None, 64.0)


def test_losses_that_never_vary_leave_the_crossover_open() -> None:
    """As they leave the verdict open."""
    found = crossover([10.0, 20.0, 30.0], np.zeros((3, 3, 20)), 0.5, shares=False)

    assert (found.lower, found.upper) == (None, None)


def test_two_sizes_have_no_crossover() -> None:
    with pytest.raises(ValueError, match="three sizes"):
        crossover([64, 512], curves(np.array([0.0, 0.05]), 3, 50, 0.01, 0), 0.01)


def test_the_set_holds_the_true_size_as_often_as_it_says() -> None:
    gap = 0.02 * (np.log(SIZES) - np.log(512)) + 0.01
    held = [
        crossover(list(SIZES), curves(gap, 3, 400, 0.01, seed), 0.01).holds(512)
        for seed in range(400)
    ]

    assert wilson(sum(held), len(held))[1] >= 0.95


# ---- curves


def test_a_power_law_is_found_again() -> None:
    law = PowerLaw(scale=3.0, exponent=0.4, floor=0.12)
    sizes = [32, 128, 512, 2048, 8192]
    found = fit_power_law(sizes, [law.at(n) for n in sizes])

    assert (found.scale, found.exponent, found.floor) == pytest.approx((3.0, 0.4, 0.12), rel=1e-3)


def test_a_joint_law_is_found_again() -> None:
    law = JointLaw(scale=40.0, alpha=0.2, beta=0.1, floor=0.5)
    x, d = (g.ravel() for g in np.meshgrid([1e4, 1e5, 1e6, 1e7], [1e3, 1e4, 1e5, 1e6]))
    losses = [law.given(p).at(n) for p, n in zip(x, d, strict=True)]
    found = fit_joint_law(x, d, losses)

    assert (found.alpha, found.beta, found.floor) == pytest.approx((0.2, 0.1, 0.5), rel=0.02)


# Zhang et al. (ICLR 2024), table 4, model size and data: full fine-tuning, LoRA and prompt tuning.
EN_ZH_FULL, EN_ZH_LORA = JointLaw(3.3e3, 0.34, 0.14, 1.0), JointLaw(660, 0.31, 0.025, 0.73)
EN_DE_FULL, EN_DE_LORA = JointLaw(1.2e5, 0.52, 0.15, 0.75), JointLaw(2.1e3, 0.36, 0.081, 0.62)
EN_DE_PROMPT = JointLaw(3.9e3, 0.40, 0.051, 0.62)


@pytest.mark.parametrize(
    ("cheaper", "full", "parameters", "size"),
    [
        (EN_ZH_LORA, EN_ZH_FULL, 1e9, 2.0e5),
        (EN_ZH_LORA, EN_ZH_FULL, 2e9, 6.8e5),
        (EN_ZH_LORA, EN_ZH_FULL, 4e9, 6.2e6),
        (EN_ZH_LORA, EN_ZH_FULL, 8e9, None),
        (EN_DE_PROMPT, EN_DE_FULL, 1e9, 2.4e5),
        (EN_DE_PROMPT, EN_DE_LORA, 1e9, 1.1e3),
        (EN_DE_LORA, EN_DE_FULL, 1e9, None),
    ],
)
def test_crossings_of_published_laws(
    cheaper: JointLaw, full: JointLaw, parameters: float, size: float | None
) -> None:
    found = crossing(cheaper.given(parameters), full.given(parameters))

    if size is None:
        assert found is None
    else:
        assert found == pytest.approx(size, rel=0.06)


def test_a_curve_that_is_no_power_law_is_flagged() -> None:
    random = np.random.default_rng(0)
    sizes = [64.0, 128.0, 256.0, 512.0, 1024.0]
    law = np.array([PowerLaw(2.0, 0.5, 0.05).at(n) for n in sizes])
    noise = 1 + 0.01 * random.normal(size=(5, 5))
    fits = learning_curve(sizes, law[:, None] * noise)
    jump = law.copy()
    jump[-1] *= 0.5  # the last size learns what the others do not
    broken = learning_curve(sizes, jump[:, None] * noise)

    assert fits is not None
    assert fits.holds
    assert fits.law.exponent == pytest.approx(0.5, abs=0.15)
    assert broken is not None
    assert not broken.holds
    assert (fits.low <= fits.high).all()
    assert learning_curve(sizes[:3], law[:3, None] * noise[:3]) is None


# ---- worth, and many tasks


def test_a_curve_moved_to_the_right_needs_so_many_times_the_examples() -> None:
    sizes = [100, 200, 400, 800, 1600]
    full = [0.5, 0.6, 0.7, 0.8, 0.9]

    assert factor_in_examples(sizes, [0.4, *full[:-1]], full) == pytest.approx(2.0, rel=1e-6)
    assert factor_in_examples(sizes, full, [0.4, *full[:-1]]) == pytest.approx(0.5, rel=1e-6)
    assert factor_in_examples(sizes, [0.1] * 5, full) is None


def test_a_plateau_is_climbed_from_its_end() -> None:
    """From .5 to .7 the cheaper curve rises over the last octave, full over both."""
    found = factor_in_examples([1, 2, 4], [0.5, 0.5, 0.7], [0.5, 0.6, 0.7])

    assert found == pytest.approx(math.sqrt(2), rel=1e-3)


def test_bits_of_data_and_of_adapters() -> None:
    found = capacity(4000, 2.0, 1000)
    assert (found.data_bits, found.adapter_bits, found.share) == (8000.0, 2000.0, 4.0)


def test_interquartile_mean_leaves_out_both_ends() -> None:
    assert interquartile_mean([0, 1, 2, 100]) == 1.5


def test_probability_of_improvement_counts_ties_half() -> None:
    assert probability_of_improvement([[1.0, 2.0]], [[1.0, 0.0]]) == pytest.approx(0.875)


def test_the_expected_best_is_the_mean_over_all_draws() -> None:
    scores = [0.3, 0.9, 0.5, 0.1]
    pairs = [max(a, b) for i, a in enumerate(scores) for b in scores[i + 1 :]]

    assert expected_best(scores, 2) == pytest.approx(np.mean(pairs))
    assert expected_best(scores, 1) == pytest.approx(np.mean(scores))
    assert expected_best(scores, 4) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="1 to 4"):
        expected_best(scores, 5)
