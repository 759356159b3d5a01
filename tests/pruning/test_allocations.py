"""Allocations keep exactly what was asked for, pinned layers included, or say what is possible."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snas.densities import Layer, count
from snas.errors import InputError
from snas.pruning.allocations import global_by_score, kept_from_density, uniform

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
