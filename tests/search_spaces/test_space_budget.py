"""Points inside budgets, over real networks: every total exact, every layer within its bounds."""

import functools
import itertools
import math
import re

import numpy as np
import pytest
from torch import nn

from snas import InputError
from snas.budget import Budget
from snas.pruning.allocations import allocations
from snas.search_spaces import open_space
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.coordinates import KNOTS, SPREAD, blend

REPRESENTATIONS = ("layer", "block", "depth", "uniform")
SPACES = ("lenet-300-100", "mlp", "lenet-5-caffe", "vgg-d", "wrn-16-8", "resnet32", "own")
BUDGETS = {
    "exactly one per cent": {"density": 0.01},
    "exactly half": {"density": 0.5},
    "a number of weights": {"weights": 1009},
    "a range": {"max_density": 0.2},
    "two ends": {"min_density": 0.02, "max_density": 0.3},
    "floors and caps": {"density": 0.1, "floors": {"*": 0.002}, "caps": {"*": 0.4}},
    "operations": {"max_flops": 200_000},
    "operations and weights": {"weights": 1009, "max_flops": 200_000},
    "bounds alone": {"floors": {"*": 0.004}, "caps": {"*": 0.7}},
}
POINTS = 10_000
PIN = 0.005


def own():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(392, 40), nn.ReLU(), nn.Linear(40, 10)
    )


@functools.cache
def space_of(name):
    if name == "own":
        return SearchSpace.from_model(own, input_shape=(3, 32, 32), name="own", groups={"[46]": "dense"})
    return open_space(name, input_shape=(3, 32, 32), classes=10)


@functools.cache
def opened(name, budget, representation, *, pinned):
    """The space inside the budget, with its last layer pinned or not."""
    space = space_of(name).with_options(representation=representation)
    pins = {space.layers[-1].name: PIN} if pinned else {}
    return space.with_budget(Budget(**BUDGETS[budget]), pinned=pins)


def require_within(space, decoded):
    """The budget again, from its words."""
    said, whole = space.budget, space.total_weights
    kept = np.array(decoded.kept)
    sizes = np.array([layer.total for layer in space.layers])
    floor = next(iter(said.floors.values()), 0.0)
    cap = next(iter(said.caps.values()), 1.0)
    free = np.array([layer.name not in space.pinned for layer in space.layers])
    assert (kept >= 1).all()
    assert (kept[free] >= floor * sizes[free] - 1e-6).all()
    assert (kept[free] <= cap * sizes[free] + 1e-6).all()
    assert (kept[~free] == np.maximum(1, np.floor(PIN * sizes[~free] + 0.5))).all()
    assert all(0 <= n <= layer.total for n, layer in zip(decoded.kept, space.layers, strict=True))
    if said.exact:
        assert kept.sum() == (said.weights or math.floor(said.density * whole + 0.5))
    assert kept.sum() <= (said.max_density or 1.0) * whole
    assert kept.sum() >= (said.min_density or 0.0) * whole
    if said.max_flops is not None:
        assert 2 * sum(n * layer.positions for n, layer in zip(decoded.kept, space.layers, strict=True)) <= (
            said.max_flops
        )


def test_ten_thousand_points_are_within_their_budgets_and_projecting_them_again_changes_nothing():
    rng = np.random.default_rng(0)
    every = list(itertools.product(SPACES, BUDGETS, REPRESENTATIONS, (False, True)))
    rounds = math.ceil(POINTS / len(every))
    for name, budget, representation, pinned in every:
        space = opened(name, budget, representation, pinned=pinned)
        for _ in range(rounds):
            point = rng.random(space.dimensions) ** rng.choice([0.2, 1.0, 5.0])
            if rng.random() < 0.1:
                point = np.round(point)  # a corner
            decoded = space.densities(point)
            require_within(space, decoded)
            assert space.limits.project(decoded.kept) == decoded


@pytest.mark.parametrize("representation", ["layer", "block"])
@pytest.mark.parametrize("name", ["lenet-300-100", "resnet32", "own"])
@pytest.mark.parametrize("budget", ["exactly one per cent", "exactly half", "floors and caps"])
def test_raising_a_coordinate_takes_nothing_from_its_layers_and_gives_the_others_nothing(name, budget, representation):
    space = opened(name, budget, representation, pinned=False)
    rng = np.random.default_rng(1)
    middle = np.full(space.dimensions, 0.5)  # where many layers are wished in whole ratios, and ties abound
    for point in [middle, *rng.random((12, space.dimensions))]:
        before = np.array(space.densities(point).kept)
        place = int(rng.integers(space.dimensions))
        raised = point.copy()
        raised[place] += rng.random() * (1 - raised[place])
        change = np.array(space.densities(raised).kept) - before
        members = list(space.coordinates[place])
        assert (change[members] >= 0).all()
        assert (np.delete(change, members) <= 0).all()


def test_raising_the_total_takes_nothing_from_any_layer():
    space = opened("resnet32", "two ends", "layer", pinned=False)
    rng = np.random.default_rng(2)
    for point in rng.random((20, space.dimensions)):
        totals = np.sort(rng.random(4))
        found = [np.array(space.densities(np.append(point[:-1], size)).kept) for size in totals]
        assert all((more >= fewer).all() for fewer, more in itertools.pairwise(found))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("budget", ["exactly one per cent", "a number of weights", "a range"])
def test_the_middle_of_the_cube_is_erk_and_uniform_densities_are_in_it(name, budget):
    space = opened(name, budget, "layer", pinned=False)
    middle = np.full(space.dimensions, 0.5)
    total = space.densities(middle).kept_weights
    by_rule = allocations.get("erk")(space.layers, total, pinned={}).kept
    assert np.abs(np.subtract(space.densities(middle).kept, by_rule)).max() <= 1  # rounded in another way
    for rule in ("erk", "uniform"):
        wanted = space.limits.project(allocations.get(rule)(space.layers, total, pinned={}).kept)
        assert space.densities(space.encode(wanted)) == wanted


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_point_of_decoded_densities_stands_for_them(budget, representation):
    rng = np.random.default_rng(3)
    for name in ("lenet-5-caffe", "own"):
        space = opened(name, budget, representation, pinned=True)
        for point in 0.3 + 0.4 * rng.random((5, space.dimensions)):
            decoded = space.densities(point)
            back = space.densities(space.encode(decoded))
            require_within(space, back)
            if decoded.kept_weights < space.limits.smallest:  # below where the total's coordinate begins
                continue
            if representation == "layer":
                assert back == decoded
            assert back.kept_weights == pytest.approx(decoded.kept_weights, rel=0.02, abs=len(space.layers))


def test_a_coordinate_is_a_logarithm():
    space = space_of("own").with_budget(Budget(density=0.01))
    spread = space.scale.spread
    assert spread == SPREAD
    for low, high in ((0.4, 0.5), (0.6, 0.7)):
        few, many = (np.array(space.densities([high, u, high]).kept, dtype=float) for u in (low, high))
        ratio = (many[1] / many[2]) / (few[1] / few[2])
        assert ratio == pytest.approx(10 ** (spread * 0.1), rel=0.1)
    whole = space_of("own").with_budget(Budget(max_density=0.4, min_density=0.004))
    totals = [whole.densities([0.5, 0.5, 0.5, size]).kept_weights for size in (0, 0.5, 1)]
    assert np.array(totals) / space.total_weights == pytest.approx([0.004, 0.04, 0.4], rel=0.02)


def test_what_tells_no_networks_apart_has_no_coordinate():
    space = space_of("lenet-300-100")  # three layers

    def lengths(pinned=None, **said):
        spaces = (space.with_options(representation=name) for name in REPRESENTATIONS)
        return [one.with_budget(Budget(**said), pinned=pinned).dimensions for one in spaces]

    assert lengths(density=0.1) == [3, 3, KNOTS, 0]
    assert lengths(max_density=0.1) == [4, 4, KNOTS + 1, 1]
    assert lengths(density=0.9, pinned={"fc1": 0.92}) == [2, 2, KNOTS, 0]
    assert lengths(density=0.036, pinned={"fc1": 0.02, "fc2": 0.5}) == [0, 0, 0, 0]  # the third has what is left
    assert lengths(density=1.0) == [0, 0, 0, 0]
    assert lengths(weights=3) == [0, 0, 0, 0]
    assert lengths(caps={"*": 0.5}) == [3, 3, KNOTS, 1]
    nothing = space.with_options(representation="uniform").with_budget(Budget(density=0.1))
    assert nothing.coordinates == ()
    assert nothing.densities([]).kept_weights == round(0.1 * space.total_weights)
    assert nothing.encode(nothing.densities([])).shape == (0,)


def test_straight_lines_along_the_depth():
    space = space_of("resnet32").with_options(representation="depth")
    mixture = space.mixture
    assert mixture.shape == (34, KNOTS)
    assert mixture.sum(axis=1) == pytest.approx(np.ones(34))
    values = mixture @ np.array([9.0, 0.0, 10.0, 20.0, 7.0])
    assert values[0] == 9
    assert values[-1] == 7
    assert np.diff(values[1:-1]) == pytest.approx(np.full(31, 20 / 31))
    for number in range(1, 6):
        small = blend(space.layers, range(number), "depth")
        assert small.shape == (number, KNOTS)
        assert (small.sum(axis=1) == 1).all()


def test_without_a_budget_a_coordinate_is_a_density():
    space = space_of("lenet-5-caffe")
    rng = np.random.default_rng(4)
    sizes = [layer.total for layer in space.layers]
    for point in rng.random((50, len(sizes))):
        assert space.densities(point).kept == tuple(
            min(size, math.floor(u * size + 0.5)) for u, size in zip(point, sizes, strict=True)
        )
        assert space.densities(space.encode(space.densities(point))) == space.densities(point)
    uniform = space.with_options(representation="uniform")
    assert uniform.densities([1 / 3]).kept == tuple(math.floor(size / 3 + 0.5) for size in sizes)


def test_an_open_budget_comes_and_goes():
    space = space_of("own")
    within = space.with_budget(Budget(density=0.1))
    assert within.describe()["budget"] == {"density": 0.1}
    assert "budget" not in space.describe()
    assert within.with_budget(None).describe() == space.describe()
    assert space.with_budget(Budget()).budget is None


@pytest.mark.parametrize(
    ("options", "pinned", "message"),
    [
        ({"density": 0.1}, {"9": 0.5}, "pinned layer '9' matches no layer; layers: 0, 4, 6"),
        ({"density": 0.1}, {"*": 0.1}, "space 'own' has nothing to search: every layer is pinned; pin fewer"),
        ({}, {"0": 1.5}, "density of pinned layer '0' is 1.5; expected 0 < density <= 1"),
        ({"density": 1e-9}, {}, "the nearest budget is density 0.00025 (4 weights)"),
    ],
)
def test_wrong_budgets_of_a_space(options, pinned, message):
    with pytest.raises(InputError, match=re.escape(message)):
        space_of("own").with_budget(Budget(**options), pinned=pinned)


def test_a_pin_of_the_name_goes_before_patterns_and_the_longest_of_these_before_others():
    pins = {"*[12]": 0.1, "fc[12]": 0.2, "fc1": 0.3, "*2": 0.4}
    for given in (pins, dict(reversed(pins.items()))):
        assert space_of("lenet-300-100").with_budget(None, pinned=given).pinned == {"fc1": 0.3, "fc2": 0.2}
        assert Budget(floors=given).limits(space_of("lenet-300-100").layers).low == (276480, 6000, 1)


def test_a_layer_is_pinned_once():
    space = space_of("own").with_options(first_layer="dense")
    assert space.with_budget(Budget(density=0.5), pinned={"0": 1.0}).pinned == {"0": 1.0}
    with pytest.raises(InputError, match=r"layer '0' is pinned at density 0.5, and at 1 by its space or the policy"):
        space.with_budget(Budget(density=0.5), pinned={"[04]": 0.5})
