"""Mutations: steps of coordinates, and weights that move between layers inside a budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas.budget import Budget
from snas.densities import Densities, Layer
from snas.encoding import Encoding
from snas.search_spaces.base import SearchSpace
from snas.strategies.evolution import Evolution
from snas.strategies.mutation import BudgetMutation, move_weights, mutate, reflect
from snas.trials import Status, Trial


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
)
def test_reflection_stays_in_bounds_and_keeps_what_is_inside(values):
    folded = reflect(np.array(values))
    assert ((folded >= 0) & (folded <= 1)).all()
    assert np.array_equal(reflect(folded), folded)


@given(value=st.floats(0, 1), periods=st.integers(-3, 3))
def test_reflection_is_even_and_has_period_two(value, periods):
    assert reflect(np.array([value + 2 * periods])) == pytest.approx([value], abs=1e-12)
    assert reflect(np.array([-value + 2 * periods])) == pytest.approx([value], abs=1e-12)


@given(
    point=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    sigma=st.floats(1e-3, 10),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_mutation_stays_in_bounds_and_changes_something(point, sigma, rate, seed):
    parent = np.array(point)
    child = mutate(parent, sigma=sigma, rate=rate, rng=np.random.default_rng(seed))
    assert child.shape == parent.shape
    assert ((child >= 0) & (child <= 1)).all()
    assert (child != parent).any()
    assert np.array_equal(parent, point)


def test_mutation_does_not_pile_up_at_the_bounds():
    rng = np.random.default_rng(0)
    children = np.stack([mutate(np.full(10, 0.02), sigma=0.2, rate=1.0, rng=rng) for _ in range(200)])
    assert ((children > 0) & (children < 1)).all()
    assert (children < 0.02).mean() < 0.2


def test_rate_zero_changes_exactly_one_coordinate():
    rng = np.random.default_rng(0)
    changed = [(mutate(np.full(6, 0.5), sigma=0.1, rate=0.0, rng=rng) != 0.5).nonzero()[0] for _ in range(60)]
    assert {len(indices) for indices in changed} == {1}
    assert {int(indices[0]) for indices in changed} == set(range(6))


def test_rate_one_changes_every_coordinate():
    child = mutate(np.full(6, 0.5), sigma=0.1, rate=1.0, rng=np.random.default_rng(0))
    assert (child != 0.5).all()


def test_rate_is_the_fraction_that_changes():
    """Expected with rate 0.3 and 50 coordinates: 15 of 50; at least one is forced only with probability 0.7 ** 50."""
    rng = np.random.default_rng(0)
    changed = np.mean([(mutate(np.full(50, 0.5), sigma=0.1, rate=0.3, rng=rng) != 0.5).mean() for _ in range(200)])
    assert changed == pytest.approx(0.3, abs=0.02)


LAYERS = (
    Layer("first", (40, 30), block="a"),
    Layer("second", (30, 30), block="a"),
    Layer("third", (50, 30), block="b"),
    Layer("last", (10, 50), block="c"),
)
MANY = tuple(Layer(f"conv{i}", (8 + 4 * (i // 5), 8 + 4 * (i // 5), 3, 3)) for i in range(20))


def space_of(layers=LAYERS, **options) -> SearchSpace:
    def factory():
        raise TypeError("no network is built here")

    return SearchSpace("layers", factory, tuple(layers), input_shape=(30,), classes=10, **options)


def changes(encoding: Encoding, *, sigma: float = 0.1, rate: float = 0.5, number: int = 60):
    """Densities before and after many mutations, one following another."""
    mutation = BudgetMutation(encoding, rate=rate, switch=0.0)
    rng = np.random.default_rng(0)
    point = encoding.encode(encoding.decode(np.full(encoding.dimensions, 0.5)).densities)
    points = [point]
    for _ in range(number):
        points.append(mutation(points[-1], sigma=sigma, rng=rng))
    return [encoding.decode(point).densities for point in points]


@given(
    data=st.data(),
    floors=st.dictionaries(st.sampled_from(["first", "third"]), st.floats(0.01, 0.04)),
    caps=st.dictionaries(st.sampled_from(["second", "last"]), st.floats(0.15, 0.9)),
    total=st.integers(200, 600),
    weights=st.integers(0, 2000),
)
def test_weights_move_exactly_and_within_bounds(data, floors, caps, total, weights):
    limits = Budget(weights=total, floors=floors, caps=caps).limits(LAYERS)
    before = limits.project([data.draw(st.floats(1, 1000)) for _ in LAYERS], total)
    order = data.draw(st.permutations(range(4)))
    first, last = data.draw(st.sampled_from([(1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4)]))
    giving, taking, others = order[:first], order[first:last], order[last:]
    after = move_weights(before, limits, giving=giving, taking=taking, weights=weights)
    spare = sum(before.kept[i] - limits.low[i] for i in giving)
    room = sum(limits.high[i] - before.kept[i] for i in taking)
    moved = min(weights, spare, room)
    assert sum(after.kept[i] for i in giving) == sum(before.kept[i] for i in giving) - moved
    assert sum(after.kept[i] for i in taking) == sum(before.kept[i] for i in taking) + moved
    assert all(after.kept[i] == before.kept[i] for i in others)
    assert all(low <= kept <= high for low, kept, high in zip(limits.low, after.kept, limits.high, strict=True))


def test_ratios_within_a_group_stay():
    limits = Budget(weights=700).limits(LAYERS)
    before = Densities(LAYERS, (300, 150, 200, 50))
    after = move_weights(before, limits, giving=[0, 1], taking=[2, 3], weights=150)
    assert after.kept == (200, 100, 320, 80)


@pytest.mark.parametrize("density", [0.01, 0.5])
@pytest.mark.parametrize("representation", ["layer", "block", "depth"])
def test_children_keep_an_exact_budget_and_differ(representation, density):
    encoding = Encoding(space_of(representation=representation), budget=Budget(density=density))
    found = changes(encoding)
    assert {densities.kept_weights for densities in found} == {round(density * 4100)}
    assert sum(before != after for before, after in pairwise(found)) > 50


def test_one_group_trades_with_some_others_and_the_rest_is_left_alone():
    """A rate of zero still makes one move: one layer against a random subset, all others as they were to the weight."""
    encoding = Encoding(space_of(MANY), budget=Budget(density=0.05))
    changed = []
    for before, after in pairwise(changes(encoding, rate=0.0, number=40)):
        moved = np.array(after.kept) - np.array(before.kept)
        changed.append(int((moved != 0).sum()))
        assert moved.sum() == 0
        assert 1 in ((moved > 0).sum(), (moved < 0).sum())
    assert min(changed) < 6
    assert max(changed) > 14


def test_nobody_trades_with_itself():
    mutation = BudgetMutation(Encoding(space_of(), budget=Budget(density=0.1)), rate=0.5, switch=0.0)
    groups, rng = [[0, 1], [2], [3]], np.random.default_rng(0)
    moves = [move for _ in range(100) for move in mutation._sides(groups, rng)]
    assert all(giving and taking and not set(giving) & set(taking) for giving, taking in moves)
    assert {tuple(sorted(giving)) for giving, _ in moves} >= {(0, 1), (2,), (3,), (2, 3), (0, 1, 2), (0, 1, 3)}


def test_the_larger_of_the_two_changes_is_the_step():
    """Of log10 ratios of the weights after and before, the larger side's is |z| * sigma * spread, z normal: its root
    mean square is sigma * spread, as for a step of one coordinate."""
    encoding = Encoding(space_of(MANY), budget=Budget(density=0.2))
    mutation, rng = BudgetMutation(encoding, rate=0.0, switch=0.0), np.random.default_rng(0)
    middle = encoding.encode(encoding.decode(np.full(encoding.dimensions, 0.5)).densities)
    before = np.array(encoding.decode(middle).densities.kept)
    steps = []
    for _ in range(400):
        after = np.array(encoding.decode(mutation(middle, sigma=0.02, rng=rng)).densities.kept)
        steps.append(np.abs(np.log10(after / before)).max())
    scale = encoding.architectures[0].scale
    assert np.sqrt(np.mean(np.square(steps))) == pytest.approx(0.02 * scale.spread, rel=0.1)


def test_pinned_layers_and_bounds_are_kept():
    encoding = Encoding(
        space_of(), budget=Budget(density=0.2, floors={"third": 0.1}, caps={"first": 0.25}), pins={"last": 0.5}
    )
    found = changes(encoding, sigma=0.4)
    assert {densities.counts["last"] for densities in found} == {250}
    assert all(densities.counts["third"] >= 150 and densities.counts["first"] <= 300 for densities in found)
    assert {densities.kept_weights for densities in found} == {820}


def test_the_total_moves_where_the_budget_leaves_it_open():
    encoding = Encoding(space_of(), budget=Budget(min_density=0.05, max_density=0.5))
    totals = [densities.kept_weights for densities in changes(encoding, number=100)]
    assert all(205 <= total <= 2050 for total in totals)
    assert max(totals) > 3 * min(totals)
    changed = np.mean([before != after for before, after in pairwise(totals)])
    assert changed == pytest.approx(0.5, abs=0.2)


def test_one_group_moves_the_total_alone():
    encoding = Encoding(space_of(representation="uniform"), budget=Budget(min_density=0.05, max_density=0.5))
    totals = [densities.kept_weights for densities in changes(encoding, number=30)]
    assert len(set(totals)) > 20


def test_choices_change_as_often_as_asked_and_never_to_themselves():
    encoding = Encoding(space_of(), budget=Budget(density=0.1), masks=("random", "snip", "magnitude"))
    mutation, rng = BudgetMutation(encoding, rate=0.5, switch=0.3), np.random.default_rng(0)
    point = encoding.encode(encoding.decode(np.full(5, 0.5)).densities, mask="snip")
    rules = [encoding.decode(mutation(point, sigma=0.1, rng=rng)).rule for _ in range(300)]
    assert rules.count("snip") / 300 == pytest.approx(0.7, abs=0.08)
    assert rules.count("random") / 300 == pytest.approx(0.15, abs=0.07)
    never = BudgetMutation(encoding, rate=0.5, switch=0.0)
    assert {encoding.decode(never(point, sigma=0.1, rng=rng)).rule for _ in range(20)} == {"snip"}


def test_without_a_budget_coordinates_take_steps():
    encoding = Encoding(space_of(), masks=("random", "snip"))
    mutation = BudgetMutation(encoding, rate=1.0, switch=0.0)
    child = mutation(np.array([0.5, 0.5, 0.5, 0.5, 0.25]), sigma=0.01, rng=np.random.default_rng(0))
    assert (child[:4] != 0.5).all()
    assert np.abs(child[:4] - 0.5).max() < 0.06
    assert child[4] == 0.25


def test_shapes_are_mutated_and_weights_move_in_the_new_one():
    def reopen(shape):
        width = shape["width"]
        return space_of((Layer("in", (width, 30)), Layer("out", (10, width))), arguments=dict(shape))

    encoding = Encoding(reopen({"width": 20}), budget=Budget(weights=200), shapes={"width": (20, 40)}, reopen=reopen)
    mutation, rng = BudgetMutation(encoding, rate=0.5, switch=1.0), np.random.default_rng(0)
    point = np.array([0.5, 0.5, 0.25])
    widths = []
    for _ in range(6):
        point = mutation(point, sigma=0.1, rng=rng)
        candidate = encoding.decode(point)
        widths.append(candidate.space.arguments["width"])
        assert candidate.densities.kept_weights == 200
    assert widths == [40, 20, 40, 20, 40, 20]


def test_evolution_bound_to_an_encoding_proposes_children_of_the_budget():
    encoding = Encoding(space_of(), budget=Budget(density=0.1), masks=("random", "snip"))
    unbound = Evolution(initial=3, parents=2)
    strategy = unbound.bind(encoding)
    first = np.stack(strategy.ask([], 3, dimensions=5, rng=np.random.default_rng(0)))
    assert ((first[:, :4] >= 0.25) & (first[:, :4] <= 0.75)).all()
    history = [Trial(i, point, Status.FINISHED, {1: 0.1 * i}) for i, point in enumerate(first)]
    children = strategy.ask(history, 20, dimensions=5, rng=np.random.default_rng(1))
    assert {encoding.decode(point).densities.kept_weights for point in children} == {410}
    again = unbound.bind(encoding).ask(history[::-1], 20, dimensions=5, rng=np.random.default_rng(1))
    assert np.array_equal(children, again)
    assert not np.array_equal(children, unbound.ask(history, 20, dimensions=5, rng=np.random.default_rng(1)))


def test_a_choice_of_a_child_is_some_parents():
    """Choices have no mean: between rules 0 and 2 of three, no child has rule 1 that no parent had."""
    encoding = Encoding(space_of(), budget=Budget(density=0.1), masks=("random", "snip", "magnitude"))
    points = [
        encoding.encode(encoding.decode(np.full(5, 0.5)).densities, mask=mask) for mask in ("random", "magnitude")
    ]
    history = [Trial(i, point, Status.FINISHED, {1: 0.5}) for i, point in enumerate(points)]
    strategy = Evolution(initial=1, parents=2, switch=0.0).bind(encoding)
    children = strategy.ask(history, 40, dimensions=5, rng=np.random.default_rng(0))
    assert {encoding.decode(point).rule for point in children} == {"random", "magnitude"}
