"""The way from a wish to exact counts, against slow ways that share no code with it."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas import InputError
from snas.budget import Budget
from snas.densities import Layer
from snas.projection import Limits


def limits_of(bounds, total, *, positions=None, most=None, max_flops=None):
    layers = tuple(
        Layer(f"fc{i}", (high,), positions=1 if positions is None else positions[i])
        for i, (_, high) in enumerate(bounds)
    )
    low, high = zip(*bounds, strict=True)
    return Limits(layers, low, high, total, total if most is None else most, max_flops)


def weight_by_weight(wish, bounds, total):
    """Webster's rule as a race: the next weight goes where (kept + 1/2) / wish is least, in exact fractions."""
    kept = [low for low, _ in bounds]
    while sum(kept) < total:
        turns = [
            (Fraction(2 * n + 1, 2) / Fraction(w), i)
            for i, (n, w, (_, high)) in enumerate(zip(kept, wish, bounds, strict=True))
            if n < high
        ]
        kept[min(turns)[1]] += 1
    return tuple(kept)


def every(bounds):
    return itertools.product(*(range(low, high + 1) for low, high in bounds))


bounded = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=4).map(
    lambda pairs: [(low, low + more) for low, more in pairs]
)


@st.composite
def asked(draw):
    """Bounds, a total within them, a wish, positions."""
    bounds = draw(bounded)
    total = draw(st.integers(sum(low for low, _ in bounds), sum(high for _, high in bounds)))
    size = len(bounds)
    wish = draw(st.lists(st.integers(1, 40), min_size=size, max_size=size))
    positions = draw(st.lists(st.integers(1, 9), min_size=size, max_size=size))
    return bounds, total, wish, positions


@given(asked())
def test_counts_are_those_of_the_race_for_each_weight(case):
    bounds, total, wish, _ = case
    assert limits_of(bounds, total).project(wish).kept == weight_by_weight(wish, bounds, total)


@given(asked())
def test_no_other_counts_are_nearer_in_ratios(case):
    bounds, total, wish, _ = case
    kept = limits_of(bounds, total).project(wish).kept

    def distance(counts):
        return sum(Fraction(n * n, w) for n, w in zip(counts, wish, strict=True))

    assert distance(kept) == min(distance(counts) for counts in every(bounds) if sum(counts) == total)


@given(asked(), st.integers(0, 3), st.floats(1.0, 30.0))
def test_a_larger_wish_never_gets_less_nor_the_others_more(case, place, factor):
    bounds, total, wish, _ = case
    place %= len(bounds)
    larger = [w * factor if i == place else w for i, w in enumerate(wish)]
    before, after = (np.array(limits_of(bounds, total).project(w).kept) for w in (wish, larger))
    change = after - before
    assert change[place] >= 0
    assert (np.delete(change, place) <= 0).all()


@given(asked(), st.sampled_from([0.1, 1 / 3, 7.0, 1e-9, 1e9]))
def test_only_ratios_count(case, factor):
    bounds, total, wish, _ = case
    limits = limits_of(bounds, total)
    kept = limits.project([float(w) + 1e-7 * i for i, w in enumerate(wish)], total).kept  # without ties
    assert limits.project([(w + 1e-7 * i) * factor for i, w in enumerate(wish)], total).kept == kept


@given(asked(), st.integers(1, 200))
def test_fewer_weights_until_the_operations_are_met(case, max_flops):
    bounds, total, wish, positions = case
    least = sum(low for low, _ in bounds)
    limits = limits_of(bounds, least, positions=positions, most=total, max_flops=max_flops)

    def flops(counts):
        return 2 * sum(n * p for n, p in zip(counts, positions, strict=True))

    ladder = [weight_by_weight(wish, bounds, number) for number in range(least, total + 1)]
    if flops(ladder[0]) > max_flops:
        return
    expected = max((counts for counts in ladder if flops(counts) <= max_flops), key=sum)
    found = limits.project(wish, total)
    assert (found.kept, found.flops) == (expected, flops(expected))
    assert limits.project(found.kept).kept == found.kept


@given(asked(), st.integers(1, 200))
def test_an_exact_total_keeps_within_the_operations_wherever_that_can_be(case, max_flops):
    bounds, total, wish, positions = case
    layers = [
        Layer(f"fc{i}", (high,), positions=p) for i, ((_, high), p) in enumerate(zip(bounds, positions, strict=True))
    ]
    floors = {layer.name: low / high for layer, (low, high) in zip(layers, bounds, strict=True)}
    flops = [
        2 * sum(n * p for n, p in zip(counts, positions, strict=True))
        for counts in every(bounds)
        if sum(counts) == total
    ]
    budget = Budget(weights=total, max_flops=max_flops, floors=floors)
    if min(flops) > max_flops:
        with pytest.raises(InputError, match=r"cannot be met: .* take \d+ operations"):
            budget.limits(layers)
        return
    found = budget.limits(layers).project(wish)
    assert found.kept_weights == total
    assert found.flops <= max_flops
    assert all(low <= n <= high for n, (low, high) in zip(found.kept, bounds, strict=True))
    assert budget.limits(layers).project(found.kept).kept == found.kept


@given(asked(), st.integers(1, 200))
def test_most_weights_within_the_operations(case, max_flops):
    bounds, _, _, positions = case
    limits = limits_of(bounds, 0, positions=positions, max_flops=max_flops)
    possible = [
        sum(counts)
        for counts in every(bounds)
        if 2 * sum(n * p for n, p in zip(counts, positions, strict=True)) <= max_flops
    ]
    if possible:
        assert limits.most_within_flops == max(possible)


def test_by_hand():
    limits = limits_of([(1, 100), (1, 20)], 12)
    assert limits.project([100, 20]).kept == (10, 2)
    assert limits.project([6, 6]).kept == (6, 6)  # within the limits: as it is
    assert limits.project([1, 50]).kept == (1, 11)  # of 12, 0.24 and 11.76: nobody below one
    assert limits.project([0, 0]).kept == (6, 6)  # nothing wished: alike
    assert limits.project([0, 3]).kept == (1, 11)
    assert limits_of([(1, 9), (1, 9), (1, 9)], 10).project([1, 1, 1]).kept == (4, 3, 3)  # of equal ones the first
    assert limits_of([(1, 9), (1, 9)], 4, most=10).project([2, 5]).kept == (2, 5)
    assert limits_of([(1, 9), (1, 9)], 4, most=10).project([1, 1]).kept == (2, 2)
    assert limits_of([(1, 9), (1, 9)], 4, most=10).project([9, 9]).kept == (5, 5)


def test_where_operations_are_few_an_exact_total_moves_to_layers_with_few_positions():
    limits = limits_of([(1, 9), (1, 9)], 6, positions=[10, 1], max_flops=2 * (2 * 10 + 4))
    assert limits.project([5, 1]).kept == (2, 4)
    assert limits.project([1, 5]).kept == (1, 5)


def test_enormous_layers_and_ratios():
    bounds = [(1, 10**12), (1, 10**12), (1, 10)]
    limits = limits_of(bounds, 10**12 + 3)
    kept = limits.project([0.0, 1e12, 1e-200]).kept
    assert kept == (1, 10**12, 2)  # the second is full; what is left goes to the larger wish
    assert sum(limits.project([1e300, 1e-300, 1.0]).kept) == 10**12 + 3
    assert sum(limits.project([1e-300, 1e300, 1e299]).kept) == 10**12 + 3


@pytest.mark.parametrize("wish", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], [-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_wish_that_is_none(wish):
    with pytest.raises(InputError, match=r"give one number per layer|expected a finite number of at least 0"):
        limits_of([(1, 9), (1, 9)], 4).project(wish)
