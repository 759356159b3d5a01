import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas import InputError
from snas.densities import Densities, Layer, check_density, count

LAYERS = (Layer("conv", (2, 3, 3, 3), positions=10), Layer("fc", (4, 5)))


def test_layer_defaults_come_from_its_name():
    assert (LAYERS[0].total, LAYERS[1].total) == (54, 20)
    assert (LAYERS[0].parameter, LAYERS[0].block) == ("conv.weight", "conv")
    named = Layer("a", (1,), parameter="b", block="c")
    assert (named.parameter, named.block) == ("b", "c")


@pytest.mark.parametrize(
    ("fraction", "total", "expected"),
    [(0.0, 7, 0), (1.0, 7, 7), (0.5, 7, 4), (0.5, 5, 3), (0.49, 1, 0), (0.5, 1, 1), (0.1, 1000, 100)],
)
def test_count_rounds_to_the_nearest_and_halves_up(fraction, total, expected):
    assert count(fraction, total) == expected


@given(st.floats(0, 1), st.integers(1, 10**9))
def test_count_stays_within_the_layer_and_near_the_fraction(fraction, total):
    kept = count(fraction, total)
    assert 0 <= kept <= total
    assert abs(kept - fraction * total) <= 0.5 + 1e-6


@given(st.integers(1, 10**9).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_count_survives_its_fraction(kept_and_total):
    kept, total = kept_and_total
    assert count(kept / total, total) == kept


def test_numbers_by_hand():
    densities = Densities.from_fractions(LAYERS, [0.5, 0.25])
    assert densities.kept == (27, 5)
    assert (densities.kept_weights, densities.total_weights) == (32, 74)
    assert densities.density == pytest.approx(32 / 74)
    assert densities.fractions == {"conv": 0.5, "fc": 0.25}
    assert densities.counts == {"conv": 27, "fc": 5}
    assert densities.flops == 2 * (27 * 10 + 5)
    assert densities.empty_layers == ()


def test_ways_to_make_one():
    assert Densities.dense(LAYERS).kept == (54, 20)
    assert Densities.from_counts(LAYERS, {"fc": 0, "conv": 1}).kept == (1, 0)
    assert Densities.from_counts(LAYERS, {"fc": 0, "conv": 1}).empty_layers == ("fc",)


@given(st.tuples(st.integers(0, 54), st.integers(0, 20)))
def test_counts_and_fractions_lead_back(kept):
    densities = Densities(LAYERS, kept)
    assert Densities.from_counts(LAYERS, densities.counts) == densities
    assert Densities.from_fractions(LAYERS, list(densities.fractions.values())) == densities


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Densities(LAYERS, (1,)), "1 counts for 2 layers"),
        (lambda: Densities(LAYERS, (1, 21)), "layer 'fc' cannot keep 21 of its 20 weights"),
        (lambda: Densities(LAYERS, (-1, 0)), "layer 'conv' cannot keep -1"),
        (lambda: Densities.from_fractions(LAYERS, [0.5]), "1 densities for 2 layers"),
        (lambda: Densities.from_fractions(LAYERS, [0.5, 1.3]), "density for layer 'fc' is 1.3; expected 0 <= density"),
        (lambda: Densities.from_fractions(LAYERS, [math.nan, 1]), "density for layer 'conv' is nan"),
        (lambda: Densities.from_counts(LAYERS, {"conv": 3}), "no count for layer 'fc'; give one for each of 2 layers"),
    ],
)
def test_wrong_counts_and_fractions(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("value", [0, 1.5, -0.1, math.nan, math.inf, "0.5", None])
def test_wrong_density(value):
    with pytest.raises(InputError, match=r"budget is .*; expected 0 < density <= 1"):
        check_density(value, "budget")


def test_right_density():
    assert [check_density(value) for value in (1, 0.25, 1e-9)] == [1.0, 0.25, 1e-9]
