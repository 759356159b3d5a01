"""Allocations keep exactly what was asked for, pinned layers included, or say what is possible."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snas.densities import Densities, Layer, count
from snas.errors import InputError
from snas.pruning.allocations import (
    allocations,
    between,
    er,
    erk,
    global_by_score,
    in_proportion,
    kept_between,
    kept_from_density,
    smart,
    smart_vgg,
    uniform,
    uniform_dense_first,
)
from snas.pruning.shares import share

AB = (Layer("a", (2, 3)), Layer("b", (2, 2)))


@st.composite
def problems(draw):
    """Layers, pinned densities, and a feasible number of weights to keep."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    layers = [Layer(f"l{i}", (1, size)) for i, size in enumerate(sizes)]
    pinned = {x.name: draw(st.floats(0.01, 1)) for x in layers[1:] if draw(st.integers(0, 3)) == 0}
    fixed = sum(count(pinned[x.name], x.total) for x in layers if x.name in pinned)
    free = [x.total for x in layers if x.name not in pinned]
    return layers, pinned, fixed + draw(st.integers(len(free), sum(free)))


@given(problems())
def test_uniform_is_exact_even_and_empties_nothing(problem):
    layers, pinned, kept = problem
    result = uniform(layers, kept, pinned=pinned)
    assert result.kept_weights == kept
    free = [(x.total, result.counts[x.name]) for x in layers if x.name not in pinned]
    assert all(result.counts[name] == count(pinned[name], total_of(layers, name)) for name in pinned)
    assert all(1 <= number <= total for total, number in free)
    # Layers that hold more than their floor of one weight have one density, to the weight.
    large = [(total, number) for total, number in free if number > 1]
    for total, number in large:
        for other_total, other in large:
            assert (number - 1) / total < (other + 1) / other_total + 1e-12


def total_of(layers, name):
    return next(x.total for x in layers if x.name == name)


def test_uniform_by_hand():
    assert uniform(AB, 5, pinned={}).kept == (3, 2)
    # Shares of 4: 2.4 and 1.6; the larger remainder rounds up.
    assert uniform(AB, 4, pinned={}).kept == (2, 2)
    assert uniform(AB, 10, pinned={}).kept == (6, 4)
    # One weight of 102 would leave nothing for the small layer: it keeps one, the large one has the rest.
    assert uniform([Layer("big", (10, 10)), Layer("small", (1, 2))], 9, pinned={}).kept == (8, 1)
    assert uniform(AB, 5, pinned={"a": 0.5}).kept == (3, 2)


def test_floors_can_push_others_below_one():
    """Sizes 1, 1, 10, 3 and five weights: both small layers take one, then 3 are shared 2.3 to 0.7: 2 and 1."""
    sizes = (1, 1, 10, 3)
    assert uniform([Layer(f"l{i}", (1, size)) for i, size in enumerate(sizes)], 5, pinned={}).kept == (1, 1, 2, 1)


@given(problems(), st.integers(0, 2**32))
def test_global_counts_the_best_of_all_free_layers(problem, seed):
    layers, pinned, kept = problem
    generator = torch.Generator().manual_seed(seed)
    scores = {x.name: torch.randint(0, 9, x.shape, generator=generator).float() for x in layers}
    result = global_by_score(scores, layers, kept, pinned=pinned, generator=generator)
    assert result.kept_weights == kept
    free = [x for x in layers if x.name not in pinned]
    number = sum(result.counts[x.name] for x in free)
    values = sorted((value for x in free for value in scores[x.name].flatten().tolist()), reverse=True)
    if 0 < number < len(values):
        for x in free:
            above = int((scores[x.name] > values[number - 1]).sum())
            tied = int((scores[x.name] == values[number - 1]).sum())
            assert above <= result.counts[x.name] <= above + tied


def test_global_by_hand():
    scores = {"a": torch.tensor([[9.0, 8, 1], [1, 1, 1]]), "b": torch.tensor([[7.0, 6], [0, 0]])}
    generator = torch.Generator()
    assert global_by_score(scores, AB, 3, pinned={}, generator=generator).kept == (2, 1)
    assert global_by_score(scores, AB, 2, pinned={}, generator=generator).kept == (2, 0)
    assert global_by_score(scores, AB, 5, pinned={"a": 0.5}, generator=generator).kept == (3, 2)


def test_global_ties_are_broken_over_all_layers():
    layers = [Layer("a", (1, 100)), Layer("b", (1, 300))]
    scores = {x.name: torch.zeros(x.shape) for x in layers}
    kept = [
        global_by_score(scores, layers, 200, pinned={}, generator=torch.Generator().manual_seed(seed)).kept
        for seed in range(20)
    ]
    assert len(set(kept)) > 5
    assert 45 < sum(a for a, _ in kept) / len(kept) < 55


@pytest.mark.parametrize(
    ("kept", "pinned", "nearest"),
    [
        (1, {}, r"possible .* 2 to 10; nearest: 2 \(density 0.2\)"),
        (11, {}, r"nearest: 10 \(density 1\)"),
        (3, {"a": 0.5}, "4 to 7, 3 of them in pinned layers; nearest: 4"),
        (8, {"a": 0.5}, "nearest: 7"),
        (4, {"a": 0.5, "b": 0.5}, "5 to 5"),
    ],
)
def test_impossible_totals_name_the_nearest(kept, pinned, nearest):
    scores = {x.name: torch.ones(x.shape) for x in AB}
    with pytest.raises(InputError, match=nearest):
        uniform(AB, kept, pinned=pinned)
    with pytest.raises(InputError, match=nearest):
        global_by_score(scores, AB, kept, pinned=pinned, generator=torch.Generator())


def test_everything_pinned():
    assert uniform(AB, 5, pinned={"a": 0.5, "b": 0.5}).kept == (3, 2)
    scores = {x.name: torch.ones(x.shape) for x in AB}
    pinned = {"a": 0.5, "b": 0.5}
    assert global_by_score(scores, AB, 5, pinned=pinned, generator=torch.Generator()).kept == (3, 2)


def test_kept_from_density():
    assert kept_from_density(0.25, 10) == 3  # 2.5 rounds up
    assert kept_from_density(1.0, 464_432) == 464_432


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan"), "0.5"])
def test_density_out_of_range(density):
    with pytest.raises(InputError, match="expected 0 < density <= 1"):
        kept_from_density(density, 10)


# Shares


@st.composite
def shares_problems(draw):
    """Weights, caps, and a total within reach."""
    size = draw(st.integers(1, 8))
    weights = [Fraction(draw(st.integers(1, 200)), draw(st.integers(1, 9))) for _ in range(size)]
    caps = [draw(st.integers(1, 60)) for _ in range(size)]
    return weights, caps, draw(st.integers(size, sum(caps)))


def filled(weights, caps, total):
    """The unrounded parts in floating point, by bisection of the level."""
    low, high = 0.0, 1e9
    for _ in range(200):
        level = (low + high) / 2
        parts = [min(cap, max(1.0, level * float(weight))) for weight, cap in zip(weights, caps, strict=True)]
        low, high = (level, high) if sum(parts) < total else (low, level)
    return parts


@given(shares_problems())
def test_shares_are_exact_and_next_to_the_filled_ones(problem):
    weights, caps, total = problem
    result = share(weights, caps, total)
    assert sum(result) == total
    for number, cap, part in zip(result, caps, filled(weights, caps, total), strict=True):
        assert 1 <= number <= cap
        assert abs(number - part) < 1 + 1e-6


@given(shares_problems())
def test_a_larger_total_takes_at_most_one_from_any_part(problem):
    weights, caps, total = problem
    if total < sum(caps):
        pairs = zip(share(weights, caps, total), share(weights, caps, total + 1), strict=True)
        assert all(after >= before - 1 for before, after in pairs)


# Erdos-Renyi, smart ratios


def test_erdos_renyi_by_hand():
    """Weights in proportion to (in + out) times the kernel, and to the sum of all dimensions."""
    layers = [Layer("a", (16, 8, 3, 3)), Layer("b", (32, 16, 3, 3)), Layer("c", (10, 32))]
    # 24 * 9 = 216, 48 * 9 = 432, 42; a tenth of each
    assert er(layers, 69, pinned={}).kept == (22, 43, 4)
    # 30, 54, 42
    assert erk(layers, 63, pinned={}).kept == (15, 27, 21)
    # A depthwise convolution sees one channel: 8 + 1 + 3 + 3 = 15
    assert erk([Layer("a", (8, 1, 3, 3)), Layer("c", (5, 10))], 30, pinned={}).kept == (15, 15)


def test_what_a_full_layer_cannot_take_goes_to_the_others():
    layers = [Layer("a", (2, 2)), Layer("b", (10, 20)), Layer("c", (20, 10))]
    # 4, 30 and 30 of 64: all of 40 in thirds of the rest is above the first layer's 4 only from 64 on
    assert er(layers, 32, pinned={}).kept == (2, 15, 15)
    assert er(layers, 84, pinned={}).kept == (4, 40, 40)
    assert er(layers, 404, pinned={}).kept == (4, 200, 200)


def test_rigls_iteration_gives_the_same_layers():
    """The published way to ERK: solve for the scale, make layers above density 1 dense, repeat."""
    layers = [
        Layer("a", (64, 3, 3, 3)),
        Layer("b", (64, 64, 3, 3)),
        Layer("c", (128, 64, 1, 1)),
        Layer("d", (10, 128)),
    ]
    kept, dense = 9000, set()
    while True:
        rest = [layer for layer in layers if layer.name not in dense]
        scale = (kept - sum(layer.total for layer in layers if layer.name in dense)) / sum(sum(x.shape) for x in rest)
        above = {layer.name for layer in rest if scale * sum(layer.shape) > layer.total}
        if not above:
            break
        dense |= above
    assert dense
    result = erk(layers, kept, pinned={})
    for layer, number in zip(layers, result.kept, strict=True):
        expected = layer.total if layer.name in dense else scale * sum(layer.shape)
        assert abs(number - expected) < 1


def test_smart_ratios_by_hand():
    """k = 4, 3, 2: 20, 12, 6 of equal layers, the classifier at 0.3 of 40."""
    layers = [*(Layer(name, (10, 20)) for name in "abc"), Layer("fc", (4, 10))]
    assert smart(layers, 12 + 38, pinned={}).kept == (20, 12, 6, 12)
    # divided by 1, 4 and 9: 20, 3, 2/3
    assert smart_vgg(layers, 12 + 71, pinned={}).kept == (60, 9, 2, 12)
    assert smart(layers, 20 + 38, pinned={"fc": 0.5}).kept == (20, 12, 6, 20)
    # Densities fall with depth, and a full first layer leaves the rest to the others, two to one.
    assert smart(layers, 12 + 200 + 180, pinned={}).kept == (200, 120, 60, 12)


def test_uniform_with_a_dense_first_layer():
    layers = [Layer("a", (2, 3)), Layer("b", (4, 5)), Layer("c", (4, 10))]
    assert uniform_dense_first(layers, 12, pinned={}).kept == (6, 2, 4)
    assert uniform_dense_first(layers, 13, pinned={"c": 0.125}).kept == (6, 2, 5)
    assert uniform_dense_first(layers, 9, pinned={"a": 0.5}).kept == (3, 2, 4)


@pytest.mark.parametrize("name", allocations.names())
def test_a_single_layer_keeps_what_was_asked_for(name):
    assert allocations.get(name)([Layer("a", (5, 5))], 7, pinned={}).kept == (7,)


@given(problems(), st.sampled_from(["er", "erk", "smart", "smart-vgg", "uniform-dense-first"]))
def test_every_allocation_is_exact_or_says_what_is_possible(problem, name):
    layers, pinned, kept = problem
    try:
        result = allocations.get(name)(layers, kept, pinned=pinned)
    except InputError as error:
        message = str(error)
        # Only what the allocation fixes itself can put a total out of reach that `uniform` meets.
        nearest = int(message.partition("nearest: ")[2].split()[0])
        result = allocations.get(name)(layers, nearest, pinned=pinned)
    else:
        message, nearest = "", kept
    assert not message or ("this allocation fixes" in message and message.endswith(f"off by {abs(nearest - kept)}"))
    kept = nearest
    assert result.kept_weights == kept
    assert all(result.counts[other] == count(pinned[other], total_of(layers, other)) for other in pinned)
    assert all(result.counts[x.name] >= 1 for x in layers if x.name not in pinned)


def test_a_classifier_beyond_the_budget_is_named():
    layers = [Layer("a", (10, 10)), Layer("fc", (10, 10))]
    message = (
        r"31 to 130, 30 of them in layer 'fc', which this allocation fixes; nearest: 31 \(density 0.155\), off by 11"
    )
    with pytest.raises(InputError, match=message):
        smart(layers, 20, pinned={})
    with pytest.raises(InputError, match=r"nearest: 101 .* off by 81"):
        uniform_dense_first(layers, 20, pinned={})


def test_shares_of_ones_own():
    assert in_proportion(AB, 6, [1, Fraction(1, 2)], pinned={}).kept == (4, 2)
    assert in_proportion(AB, 6, [1, 9], pinned={"a": 0.5}).kept == (3, 3)


# Ways from one count to another


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", (100, 75, 51, 26, 1)),  # 75.25, 50.5, 25.75
        ("exponential", (100, 32, 10, 3, 1)),  # 100 / sqrt(10) each half way
        ("cubic", (100, 43, 13, 3, 1)),  # 1 + 99 / (64 / 27), / 8, / 64
    ],
)
def test_ways_by_hand(shape, expected):
    assert tuple(kept_between(100, 1, quarter / 4, shape=shape) for quarter in range(5)) == expected


SHAPES = st.sampled_from(["exponential", "linear", "cubic"])


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1), SHAPES)
def test_ways_are_exact_at_both_ends_and_never_rise(one, other, first, second, shape):
    start, target = max(one, other), min(one, other)
    assert kept_between(start, target, 0.0, shape=shape) == start
    assert kept_between(start, target, 1.0, shape=shape) == target
    early, late = (kept_between(start, target, p, shape=shape) for p in sorted((first, second)))
    assert start >= early >= late >= target


@given(st.integers(2, 10**6), st.integers(1, 10**6), st.integers(1, 99), SHAPES)
def test_ways_follow_their_formula(one, other, percent, shape):
    start, target, p = max(one, other), min(one, other), percent / 100
    exact = {
        "exponential": math.exp((1 - p) * math.log(start) + p * math.log(target)),
        "linear": (1 - p) * start + p * target,
        "cubic": target + (start - target) * (1 - p) ** 3,
    }[shape]
    assert abs(kept_between(start, target, p, shape=shape) - exact) <= 0.5 + 1e-6 * exact


def test_the_way_to_nothing_empties_at_the_end_only():
    assert [kept_between(64, 0, p / 3, shape="exponential") for p in range(4)] == [64, 16, 4, 0]


def test_layers_go_their_own_ways():
    layers = (Layer("a", (10, 10)), Layer("b", (8, 2)), Layer("c", (3, 1)))
    start, target = Densities.dense(layers), Densities(layers, (1, 4, 3))
    assert between(start, target, 0.0, shape="cubic") == start
    assert between(start, target, 0.5, shape="exponential").kept == (10, 8, 3)
    assert between(start, target, 1.0, shape="linear") == target


@pytest.mark.parametrize(
    ("start", "target", "progress", "shape", "message"),
    [
        (10, 5, 1.1, "linear", "progress is 1.1; expected 0 <= progress <= 1"),
        (10, 5, float("nan"), "linear", "progress is nan"),
        (10, 5, 0.5, "square", "shape is 'square'; choices: exponential, linear, cubic"),
        (5, 10, 0.5, "linear", "cannot go from 5 to 10 weights"),
        (5, -1, 0.5, "linear", "cannot go from 5 to -1 weights"),
    ],
)
def test_impossible_ways(start, target, progress, shape, message):
    with pytest.raises(InputError, match=message):
        kept_between(start, target, progress, shape=shape)


def test_impossible_ways_of_layers():
    dense = Densities.dense(AB)
    with pytest.raises(InputError, match="different layers"):
        between(dense, Densities.dense(AB[:1]), 0.5, shape="linear")
    with pytest.raises(InputError, match="layer 'b' would grow from 1 to 2 weights"):
        between(Densities(AB, (3, 1)), Densities(AB, (3, 2)), 0.5, shape="linear")
