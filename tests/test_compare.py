"""Paired statistics against hand-worked cases, definitions written out, and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from snas.compare import compare_all, holm, paired_difference, signed_rank_p, smallest_p


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(values))


def test_paired_t_worked_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3); with 2 degrees of freedom p is 1 - t / sqrt(t^2 + 2).
    found = paired_difference(by_seed([2.0, 4.0, 6.0]), by_seed([1.0, 2.0, 3.0]))
    t = 2 * math.sqrt(3)
    assert found.seeds == 3
    assert found.mean == 2
    assert found.t_p == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-12)
    # The t with 2 degrees of freedom that leaves 2.5 % above it: q = 0.95 / sqrt(2 * 0.975 * 0.025).
    margin = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - margin, 2 + margin), rel=1e-9)
    assert found.wilcoxon_p == 0.25  # 2 of the 8 choices of signs


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_paired_difference_is_that_of_scipy(seeds):
    rng = np.random.default_rng(seeds)
    one, two = rng.uniform(0.8, 0.9, seeds), rng.uniform(0.8, 0.92, seeds)
    found = paired_difference(by_seed(one), by_seed(two))
    expected = stats.ttest_rel(one, two)
    assert found.t_p == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(one, two, method="exact").pvalue, rel=1e-12)


def test_only_common_seeds_count():
    found = paired_difference({0: 0.9, 2: 0.7, 4: 0.6}, {1: 0.1, 2: 0.5, 4: 0.5})
    assert found.seeds == 2
    assert found.mean == pytest.approx(0.15)
    assert (found.t_p, found.wilcoxon_p) == (pytest.approx(stats.ttest_1samp([0.2, 0.1], 0).pvalue), 0.5)


def test_too_few_seeds_have_no_tests():
    one = paired_difference({0: 0.75}, {0: 0.5, 1: 0.9})
    assert (one.seeds, one.mean, one.low, one.t_p, one.wilcoxon_p) == (1, 0.25, None, None, None)
    none = paired_difference({}, {0: 0.5})
    assert (none.seeds, none.mean, none.t_p) == (0, None, None)


def test_equal_differences_are_no_proof():
    # 0.7 - 0.6 and 0.3 - 0.2 differ by rounding only: a t test of that spread would be sure of anything.
    found = paired_difference(by_seed([0.7, 0.3, 0.4]), by_seed([0.6, 0.2, 0.3]))
    assert (found.low, found.high, found.t_p) == (None, None, None)
    assert found.wilcoxon_p == 0.25
    same = paired_difference(by_seed([0.7, 0.3]), by_seed([0.7, 0.3]))
    assert (same.mean, same.low, same.high, same.t_p, same.wilcoxon_p) == (0, 0, 0, 1, 1)


def enumerated(values) -> float:
    """The signed-rank test by its definition: all signs, each as likely."""
    values = [value for value in values if value]
    ranks = [sum(abs(b) < abs(a) for b in values) + (sum(abs(b) == abs(a) for b in values) + 1) / 2 for a in values]
    seen = sum(rank for rank, value in zip(ranks, values, strict=True) if value > 0)
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=len(values))
    ]
    below = sum(total <= seen for total in sums) / len(sums)
    above = sum(total >= seen for total in sums) / len(sums)
    return min(1.0, 2 * min(below, above))


@pytest.mark.parametrize(
    "values", [[1, 1, -1], [1, 2, 2, -3], [0, 0, 5, -1, 2], [2, 2, 2, 2, 2], [-1, -2, 4, 4, -4, 7, 0, 3], [0, 0], [-3]]
)
def test_signed_rank_test_is_exact_with_ties_and_zeros(values):
    assert signed_rank_p(values) == pytest.approx(enumerated(values), rel=1e-12)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 8, 20])
def test_smallest_p_is_that_of_equal_signs(seeds):
    assert signed_rank_p(range(1, seeds + 1)) == pytest.approx(smallest_p(seeds), rel=1e-12)


def test_holm_worked_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([None, 0.2, None]) == [None, 0.2, None]
    assert holm([]) == []


def test_holm_is_bonferroni_closed():
    # By the closure principle: the largest Bonferroni p of all families that hold the test.
    values = [0.012, 0.4, 0.012, 0.03, 0.9, 0.0004]
    places = range(len(values))
    expected = [
        max(
            min(1.0, size * min(values[other] for other in family))
            for size in range(1, len(values) + 1)
            for family in itertools.combinations(places, size)
            if place in family
        )
        for place in places
    ]
    assert holm(values) == pytest.approx(expected)


def test_pairs_are_one_family():
    rng = np.random.default_rng(3)
    ours, *others = (by_seed(rng.uniform(0.8, 0.9, 6)) for _ in range(4))
    found = compare_all(0.1, [("searched", ours, name, other) for name, other in zip("abc", others, strict=True)])
    assert [(one.method, one.reference, one.density) for one in found] == [("searched", name, 0.1) for name in "abc"]
    expected = [stats.ttest_rel(list(ours.values()), list(other.values())).pvalue for other in others]
    assert [one.difference.t_p for one in found] == pytest.approx(expected)
    assert [one.t_adjusted for one in found] == pytest.approx(holm(expected))
    assert [one.wilcoxon_adjusted for one in found] == holm([one.difference.wilcoxon_p for one in found])
    assert compare_all(0.1, []) == []
