"""What a user may say of a network's size, and what is said of the impossible."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snas import InputError
from snas.budget import Budget
from snas.densities import Layer

LAYERS = (Layer("conv1", (6, 2, 3, 3), positions=16), Layer("conv2", (5, 6, 1, 1), positions=4), Layer("fc", (10, 7)))
TOTALS = {"conv1": 108, "conv2": 30, "fc": 70}  # 208


def test_what_each_word_means():
    def ends(**said):
        limits = Budget(**said).limits(LAYERS)
        return limits.least, limits.most

    assert ends(density=0.1) == (21, 21)  # 20.8
    assert ends(weights=77) == (77, 77)
    assert ends(weights=np.int64(77)) == (77, 77)
    assert ends(max_density=0.1) == (3, 20)
    assert ends(min_density=0.1) == (21, 208)
    assert ends(min_density=0.1, max_weights=25) == (21, 25)
    assert ends(max_density=0.5, max_weights=25) == (3, 25)
    assert ends(max_weights=10**30) == (3, 208)
    assert ends(density=0.05, whole=1000) == (50, 50)
    assert ends(max_flops=2 * (16 + 4 + 1)) == (3, 3)
    assert ends(max_flops=2 * (16 + 4 + 70 + 3 * 4)) == (3, 1 + 4 + 70)
    assert ends(floors={"fc": 0.5}, caps={"conv*": 0.1}) == (37, 10 + 3 + 70)


def test_bounds_of_layers():
    limits = Budget(density=0.3, floors={"conv*": 0.101, "conv2": 0.2}, caps={"fc": 0.5}).limits(LAYERS, {"fc": 0.25})
    assert limits.low == (11, 6, 18)  # up from 10.908; the name goes before the pattern; pinned at 17.5
    assert limits.high == (108, 30, 18)
    assert Budget(density=0.3).limits(LAYERS, {"conv2": 1e-9}).low[1] == 1


def test_a_decimal_that_is_no_binary_number_costs_no_weight():
    layer = Layer("fc", (1000,))
    for thousandth in range(1, 1001):
        text = thousandth / 1000
        limits = Budget(floors={"fc": text}, caps={"fc": text}).limits([layer, Layer("out", (9,))])
        assert (limits.low[0], limits.high[0]) == (thousandth, thousandth)
        assert Budget(max_density=text).limits([layer]).most == thousandth
        assert Budget(min_density=text).limits([layer]).least == thousandth


def test_a_floor_and_a_pin_of_the_same_density_agree_whatever_their_rounding():
    for density in np.linspace(0.05, 0.95, 19):
        bounds = {"*": float(density)}
        limits = Budget(floors=bounds, caps=bounds).limits(LAYERS, {layer.name: float(density) for layer in LAYERS})
        assert limits.low == limits.high


def test_where_a_search_begins():
    assert Budget(max_density=0.5).limits(LAYERS).smallest == 10  # a tenth of 104
    assert Budget(max_density=0.5, min_density=0.3).limits(LAYERS).smallest == 63
    assert Budget(max_density=0.5, min_density=1e-9).limits(LAYERS).smallest == 3  # as asked
    assert Budget(max_density=0.5, floors={"fc": 0.9}).limits(LAYERS).smallest == 65


def test_what_is_recorded():
    assert Budget().describe() == {}
    assert not Budget()
    assert Budget(density=0.1, floors={"fc": 0.2}).describe() == {"density": 0.1, "floors": {"fc": 0.2}}
    assert [Budget(**{name: 1}).bounded for name in ("density", "max_flops", "max_weights", "min_density")] == [
        True
    ] * 4
    assert not Budget(caps={"fc": 0.5}).bounded
    assert Budget(weights=3).exact
    assert not Budget(max_weights=3).exact


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"density": 0}, "density is 0; expected 0 < density <= 1"),
        ({"density": 1.5}, "density is 1.5; expected 0 < density <= 1"),
        ({"max_density": float("nan")}, "max-density is nan; expected"),
        ({"min_density": -1}, "min-density is -1; expected"),
        ({"floors": {"fc": 0.0}}, "floor of layer 'fc' is 0.0; expected"),
        ({"caps": {"fc": 2}}, "cap of layer 'fc' is 2; expected"),
        ({"weights": 0}, "weights is 0; expected an integer of at least 1"),
        ({"weights": 1.5}, "weights is 1.5; expected an integer of at least 1"),
        ({"max_weights": True}, "max-weights is True; expected an integer of at least 1"),
        ({"max_flops": "many"}, "max-flops is many; expected an integer of at least 1"),
        ({"density": 0.1, "weights": 5}, "density and weights both say exactly how much is kept; give one of them"),
        ({"density": 0.1, "max_density": 0.2}, "density says exactly how much is kept, max-density gives a range"),
        ({"weights": 9, "min_density": 0.2}, "weights says exactly how much is kept, min-density gives a range"),
    ],
)
def test_words_that_make_no_budget(said, message):
    with pytest.raises(InputError, match=message):
        Budget(**said)


@pytest.mark.parametrize(
    ("said", "pinned", "message"),
    [
        (
            {"density": 0.001},
            {},
            "density 0.001 (0 of 208 weights) cannot be met: one weight in each of 3 layers take 3 weights; "
            "the nearest budget is density 0.02 (4 weights)",
        ),
        ({"weights": 2}, {}, "weights 2 cannot be met: one weight in each of 3 layers take 3 weights; the nearest"),
        ({"max_weights": 2}, {}, "the nearest budget is max-weights 4"),
        ({"max_density": 0.001, "max_weights": 1}, {}, "nearest budget is max-density 0.02 (4 weights) and max-weig"),
        (
            {"density": 0.3, "floors": {"fc": 1.0}},
            {"conv2": 0.5},
            "one weight in each of 3 layers and the floors and the pins take 86 weights; the nearest budget is "
            "density 0.42 (87 weights)",
        ),
        ({"density": 0.1}, {"conv1": 1.0}, "and the pins take 110 weights; the nearest budget is density 0.534 (111"),
        ({"weights": 209}, {}, "weights 209 cannot be met: the layers have 208 weights; the nearest budget is weigh"),
        ({"density": 0.9, "caps": {"*": 0.5}}, {}, "the caps and pins of the layers leave 104 weights; the nearest bu"),
        ({"min_density": 0.9, "caps": {"*": 0.5}}, {}, "the nearest budget is min-density 0.495 (103 weights)"),
        (
            {"min_density": 0.5, "max_weights": 10},
            {},
            "min-density 0.5 (104 of 208 weights) is above max-weights 10; the nearest budget is min-density 0.048",
        ),
        ({"min_density": 0.5, "max_density": 0.1}, {}, "is above max-density 0.1 (20 of 208 weights); the near"),
        ({"min_density": 0.1, "max_density": 0.1}, {}, "min-density 0.1 (21 of 208 weights) is above max-density 0."),
        ({"max_flops": 41}, {}, "max-flops 41 cannot be met: one weight in each of 3 layers take 42 operations; "),
        (
            {"max_flops": 50, "weights": 90},
            {},
            "max-flops 50 cannot be met: 90 weights, wherever they are, take 324 operations; the nearest budget is "
            "max-flops 324, or weights 7",
        ),
        ({"weights": 2, "max_flops": 10}, {}, "the nearest budget is weights 4 and max-flops 44"),
        ({"caps": {"*": 0.001}}, {}, "layer 'conv1' cannot keep at least 1 of its 108 weights under cap 0.001, whic"),
        ({"caps": {"conv*": 0.001, "fc": 0.01}}, {}, "the nearest budget is cap conv*=0.04 and cap fc=0.02"),
        ({"floors": {"fc": 0.5}, "caps": {"fc": 0.2}}, {}, "cap 0.2, which leaves 14; the nearest budget is cap fc="),
        ({"floors": {"fc": 0.5}}, {"fc": 0.4}, "density 0.4, below its floor 0.5; the nearest budget pins it at 0.5"),
        ({"caps": {"f*": 0.5}}, {"fc": 1.0}, "density 1, above its cap 0.5; the nearest budget pins it at 0.5"),
        ({"floors": {"deep*": 0.5}}, {}, "floor 'deep*' matches no layer; layers: conv1, conv2, fc"),
    ],
)  # fmt: skip
def test_a_budget_that_cannot_be_met_names_the_nearest(said, pinned, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        Budget(**said).limits(LAYERS, pinned)
    assert "\n" not in str(error.value)


WORDS = {"density": "density", "max_density": "max-density", "min_density": "min-density", "weights": "weights"}
WORDS |= {"max_weights": "max-weights", "max_flops": "max-flops"}


def typed(message):
    """What the message offers, as a user would type it."""
    offer = message.partition("the nearest budget is ")[2].partition(", or ")[0]
    offer = re.sub(r" \(\d+ weights\)", "", offer)
    found = {}
    for part in offer.split(" and "):
        word, value = part.split(" ", 1)
        name = next(name for name, spelled in WORDS.items() if spelled == word)
        found[name] = float(value) if "density" in name else int(value)
    return found


densities = st.one_of(st.floats(1e-9, 1.0), st.sampled_from([0.01, 0.1, 0.5, 1.0]))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.fixed_dictionaries({"density": densities}),
        st.fixed_dictionaries({"weights": st.integers(1, 300)}),
        st.fixed_dictionaries(
            {}, optional={"max_density": densities, "min_density": densities, "max_weights": st.integers(1, 300)}
        ),
    ),
    st.one_of(st.none(), st.integers(1, 4000)),
    st.fixed_dictionaries({}, optional={"fc": st.floats(0.01, 1), "conv*": st.floats(0.01, 1)}),
    st.fixed_dictionaries({}, optional={"conv2": st.floats(0.4, 1), "fc": st.floats(0.4, 1)}),
)
def test_every_budget_is_met_or_the_nearest_one_named_can_be(said, max_flops, floors, caps):
    """Enumerates all totals and operations that the layers' bounds allow."""
    said = dict(said) | ({} if max_flops is None else {"max_flops": max_flops})
    caps = {name: min(1.0, cap + max([0.0, *floors.values()]) + 0.05) for name, cap in caps.items()}
    free = Budget(floors=floors, caps=caps).limits(LAYERS)
    positions = np.repeat([layer.positions for layer in LAYERS], np.subtract(free.high, free.low))
    start = 2 * sum(n * layer.positions for n, layer in zip(free.low, LAYERS, strict=True))
    fewest_flops = start + 2 * np.concatenate([[0], np.cumsum(np.sort(positions))])  # of each total from the least on
    totals = sum(free.low) + np.arange(len(fewest_flops))

    def possible(said):
        fits = fewest_flops <= said.get("max_flops", 10**9)
        if "density" in said:
            fits &= totals == int(np.floor(said["density"] * 208 + 0.5))
        fits &= totals == said.get("weights", totals)
        fits &= totals <= said.get("max_weights", 10**9)
        fits &= totals <= said.get("max_density", 1.0) * 208 + 1e-9
        return fits & (totals >= said.get("min_density", 0.0) * 208 - 1e-9)

    budget = Budget(**said, floors=floors, caps=caps)
    if possible(said).any():
        limits = budget.limits(LAYERS)
        assert limits.most == totals[possible(said)].max()
        return
    with pytest.raises(InputError) as error:
        budget.limits(LAYERS)
    nearest = said | typed(str(error.value))
    assert nearest != said
    assert possible(nearest).any()
    Budget(**nearest, floors=floors, caps=caps).limits(LAYERS)


def test_both_ways_out_of_too_many_operations_work():
    for weights, max_flops in itertools.product((80, 120, 200), (60, 100, 200)):
        with pytest.raises(InputError) as error:
            Budget(weights=weights, max_flops=max_flops).limits(LAYERS)
        fewer = re.search(r", or weights (\d+)", str(error.value))
        assert fewer is not None
        Budget(weights=int(fewer[1]), max_flops=max_flops).limits(LAYERS)
        with pytest.raises(InputError):
            Budget(weights=int(fewer[1]) + 1, max_flops=max_flops).limits(LAYERS)
