"""Tests and intervals of differences between strategies: cases computed by hand, and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from benchmarks.significance import World, percentage
from comparison.statistics import Difference, holm, mcnemar_exact, mean_interval, paired_difference

ADDITIVE = np.array([[1.0, 2.0], [3.0, 4.0]])  # seeds and examples add up: there is no residual


def worlds(count: int, n: int = 245, seeds: int = 3, points: float = 2.0) -> list[tuple[np.ndarray, np.ndarray]]:
    world = World(np.random.default_rng(1), n, seeds, points / 100)
    return [world.draw() for _ in range(count)]


def test_one_seed_each_is_the_paired_t_test() -> None:
    a, b = np.array([[1, 0, 1, 1, 0.0]]), np.array([[0, 0, 1, 0, 1.0]])
    found = paired_difference(a, b)
    # differences 1 0 0 1 -1: mean 0.2, variance 0.7; the t quantile of 4 degrees of freedom is 2.7764
    assert found.mean == pytest.approx(0.2) and found.standard_error == pytest.approx(math.sqrt(0.14))
    assert (found.low, found.high) == pytest.approx((0.2 - 1.03885, 0.2 + 1.03885), abs=1e-5)
    assert found.p_value == pytest.approx(scipy.stats.ttest_rel(a[0], b[0]).pvalue)
    assert found.n_examples == 5 and found.n_seeds == (1, 1)
    assert found.method.endswith("one seed each: says nothing of other seeds")


def test_variance_and_degrees_of_freedom_by_hand() -> None:
    found = paired_difference(ADDITIVE, np.zeros((2, 2)))
    # examples: means 2 and 3, variance 0.5, by 2 is 0.25; seeds: means 1.5 and 3.5, variance 2, by 2 is 1
    assert found.mean == 2.5 and found.standard_error == pytest.approx(math.sqrt(1.25))
    t = scipy.stats.t(1.25**2 / (0.25**2 / 1 + 1**2 / 1))
    assert found.high - found.mean == pytest.approx(t.ppf(0.975) * math.sqrt(1.25))
    assert found.p_value == pytest.approx(2 * t.sf(2.5 / math.sqrt(1.25)))
    assert mean_interval(ADDITIVE) == pytest.approx((found.low, found.high))


def test_detectable_is_2_8_standard_errors_and_more_where_they_are_uncertain() -> None:
    ((a, b),) = worlds(1, n=5000, seeds=1)
    found = paired_difference(a, b)
    assert found.detectable / found.standard_error == pytest.approx(1.96 + 0.8416, rel=1e-3)
    # two degrees of freedom: t quantiles 4.3027 and 1.0607; a standard deviation is sqrt(pi) / 2 of the true one
    found = paired_difference([[1, 0, 2]], [[0, 0, 0]])
    assert found.detectable / math.sqrt(1 / 3) == pytest.approx((4.3027 + 1.0607) * 2 / math.sqrt(math.pi), rel=1e-4)


def test_the_variance_is_that_of_drawn_resamples() -> None:
    """Examples drawn for both sides alike, seeds for each side alone; the residual is in both and taken out once."""
    random = np.random.default_rng(0)
    a, b = World(random, 150, 4, 0.03).draw()
    drawn = (a.mean(axis=0) - b.mean(axis=0))[random.integers(0, 150, (20_000, 150))].mean(axis=1)
    residual = 0.0
    for side in (a, b):
        deviations = (side.mean(axis=1) - side.mean()) * math.sqrt(4 / 3)
        drawn += deviations[random.integers(0, 4, (20_000, 4))].mean(axis=1)
        table = side - side.mean()
        of_cells = (table**2).sum() - 150 * (table.mean(axis=1) ** 2).sum() - 4 * (table.mean(axis=0) ** 2).sum()
        residual += of_cells / (3 * 149) / (4 * 150)
    error = paired_difference(a, b).standard_error
    assert error**2 == pytest.approx(drawn.var() - residual, rel=0.04)
    assert residual > 0.08 * error**2  # so that leaving it in would be seen


def test_pairs_are_columns_and_nothing_else() -> None:
    ((a, b),) = worlds(1)
    found = paired_difference(a, b)
    columns, rows = np.random.default_rng(0).permutation(245), [2, 0, 1]
    assert same(paired_difference(a[:, columns], b[:, columns]), found)
    assert same(paired_difference(a, b[rows]), found)
    assert not same(paired_difference(a, b[:, columns]), found)
    swapped = paired_difference(b, a)
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert (swapped.p_value, swapped.detectable) == pytest.approx((found.p_value, found.detectable))


def same(one: Difference, other: Difference) -> bool:
    return (one.mean, one.low, one.high, one.p_value) == pytest.approx(
        (other.mean, other.low, other.high, other.p_value)
    )


def test_seeds_that_differ_widen_the_interval() -> None:
    """Against the same runs taken for the strategy itself; with equal rows on one side, as a floor has, too."""
    a, b = World(np.random.default_rng(3), 1101, 3, 0.02).draw()
    alone = paired_difference(a.mean(axis=0)[None], b.mean(axis=0)[None])
    floor = np.repeat(b[:1], 3, axis=0)
    assert paired_difference(a, b).standard_error > 1.3 * alone.standard_error
    assert paired_difference(floor, floor[:, ::-1]).p_value == pytest.approx(
        paired_difference(floor[:1], floor[:1, ::-1]).p_value
    )
    one_sided = paired_difference(a, b[:1])
    assert one_sided.n_seeds == (3, 1) and "says nothing of other seeds" in one_sided.method
    assert same(one_sided, paired_difference(a.mean(axis=0)[None], b[:1]))


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_the_interval_excludes_zero_exactly_where_p_is_small(alpha: float) -> None:
    tests = [paired_difference(a, b, alpha=alpha) for a, b in worlds(150)]
    excluded = [test.low > 0 or test.high < 0 for test in tests]
    assert excluded == [test.p_value < alpha for test in tests]
    assert 0 < sum(excluded) < len(tests)


# ---------------------------------------------------------------------------------------------------------------------
# Edges
# ---------------------------------------------------------------------------------------------------------------------


def test_equal_scores_show_no_difference() -> None:
    ((a, _),) = worlds(1)
    once = a[:1] * 0.1  # thirds and fifths of it don't add up to it exactly
    for found in (
        paired_difference(np.ones((3, 8)), np.ones((5, 8))),
        paired_difference(np.repeat(once, 3, axis=0), np.repeat(once, 5, axis=0)),
    ):
        assert (found.mean, found.low, found.high, found.p_value, found.standard_error) == (0, 0, 0, 1, 0)
    assert mean_interval(np.ones((3, 8))) == (1, 1)


def test_the_interval_of_a_share_ends_at_0_and_1() -> None:
    right = np.ones((1, 60))
    exact = scipy.stats.binomtest(60, 60).proportion_ci()
    assert mean_interval(right, is_share=True) == pytest.approx((0.025 ** (1 / 60), 1.0)) == (exact.low, exact.high)
    assert mean_interval(np.repeat(1 - right, 3, axis=0), is_share=True) == pytest.approx((0.0, 1 - exact.low))
    right[0, 0] = 0
    low, high = mean_interval(right, is_share=True)
    assert high == 1.0 and low == pytest.approx(mean_interval(right)[0]) and mean_interval(right)[1] > 1
    assert mean_interval(1 - right, is_share=True)[0] == 0.0
    assert mean_interval([[0.0, 1.0], [1.0, 0.0]], is_share=True) == pytest.approx(
        (scipy.stats.binomtest(1, 2).proportion_ci().low, scipy.stats.binomtest(1, 2).proportion_ci().high)
    )


def test_too_few_examples_say_nothing() -> None:
    for n in (1, 5):  # the same sign five times: p = 2 / 32
        found = paired_difference(np.ones((3, n)), np.zeros((3, n)))
        assert (found.mean, found.low, found.high, found.p_value) == (1, -math.inf, math.inf, 1)
        assert found.detectable == math.inf and "too few examples" in found.method
    found = paired_difference(np.ones((3, 6)), np.zeros((3, 6)))
    assert (found.low, found.high, found.p_value) == (1, 1, 2 / 64)
    assert mean_interval([[0.5]]) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([[1, 0, math.nan]], [[1, 0, 1]], "1 of 3 scores are not finite"),
        ([[1, 0, 1]], [[1, math.inf, 1]], "not finite"),
        ([[1, 0, 1]], [[1, 0]], "3 and 2 examples"),
        ([1, 0, 1], [1, 0, 1], r"shape \(3,\)"),
        ([[]], [[]], r"shape \(1, 0\)"),
    ],
)
def test_what_can_not_be_compared_is_refused(a: list, b: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        paired_difference(a, b)


# ---------------------------------------------------------------------------------------------------------------------
# McNemar, Holm
# ---------------------------------------------------------------------------------------------------------------------


def test_mcnemar_counts_discordant_examples() -> None:
    a = np.array([1] * 10 + [0] * 2 + [1] * 30 + [0] * 8)
    b = np.array([0] * 10 + [1] * 2 + [1] * 30 + [0] * 8)
    assert mcnemar_exact(a, b) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar_exact(b, a) == mcnemar_exact(a, b)
    assert mcnemar_exact(a, a) == 1.0
    with pytest.raises(ValueError, match="0 and 1"):
        mcnemar_exact(a * 0.5, b)
    with pytest.raises(ValueError, match="shapes"):
        mcnemar_exact(a, b[:5])


def test_holm_steps_down_and_never_falls() -> None:
    # smallest first: 4 * 0.005, 3 * 0.01, 2 * 0.03, then 0.04, raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, math.nan])


# ---------------------------------------------------------------------------------------------------------------------
# Simulations; benchmarks/significance.py has more
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "points"), [(245, 0.0), (1101, 2.0)])
def test_rates_of_error_are_as_stated(n: int, points: float) -> None:
    world = World(np.random.default_rng(0), n, 3, points / 100)
    null = [world.draw() for _ in range(1000)]
    tests = [paired_difference(a, b) for a, b in null]
    assert 2.0 <= percentage(tests) <= 6.5
    covered = [low <= world.accuracy <= high for low, high in (mean_interval(a) for a, _ in null)]
    assert 0.935 <= np.mean(covered) <= 0.99
    if points:  # what a test over examples alone would do
        assert percentage([paired_difference(a.mean(axis=0)[None], b.mean(axis=0)[None]) for a, b in null]) > 15
    difference = float(np.mean([test.detectable for test in tests]))
    assert 75 <= percentage([paired_difference(*world.draw(difference)) for _ in range(600)]) <= 88
