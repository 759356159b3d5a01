"""Where pruning ends and how it gets there: exact counts in every round, survivors only, and no collapse."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snas.densities import Densities, Layer
from snas.errors import InputError, RefusedError
from snas.masks import Masks
from snas.pruning.goal import Goal, prune_in_rounds
from snas.pruning.paths import has_path
from snas.pruning.scores import Batch, scores

LAYERS = [Layer("a", (4, 5)), Layer("b", (3, 4)), Layer("c", (2, 3))]  # 20 + 12 + 6 = 38
BATCH = Batch(torch.zeros(1, 5), torch.zeros(1, dtype=torch.long))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fixed(values):
    """A score that is the same in every round, and remembers the masks it was asked about."""
    asked = []

    def score(model, layers, batch, *, generator):
        asked.append(batch.masks)
        return values

    score.asked = asked
    return score


def draw(seed=0):
    generator = seeded(seed)
    return {layer.name: torch.rand(layer.shape, generator=generator) for layer in LAYERS}


def prune(score, goal, *, iterations, revive=False, guarded=False, model=None, batch=BATCH):
    return prune_in_rounds(
        model or nn.Identity(),
        score,
        goal,
        batch,
        iterations=iterations,
        revive=revive,
        guarded=guarded,
        scoring=seeded(1),
        choosing=seeded(2),
    )


@pytest.mark.parametrize("revive", [True, False])
def test_counts_fall_exponentially_and_are_exact_in_every_round(revive):
    """38^(1 - k/4) 6^(k/4): 23.95, 15.10, 9.52, 6."""
    score = fixed(draw())
    masks = prune(score, Goal(LAYERS, 6), iterations=4, revive=revive)
    assert score.asked[0] is None
    assert [asked.kept.kept_weights for asked in score.asked[1:]] == [24, 15, 10]
    assert masks.kept.kept_weights == 6


@pytest.mark.parametrize("revive", [True, False])
@pytest.mark.parametrize("pinned", [{}, {"a": 0.5}, {"c": 1.0, "b": 0.25}])
def test_with_constant_scores_rounds_make_no_difference(revive, pinned):
    goal = Goal(LAYERS, 18, pinned=pinned)
    once = prune(fixed(draw()), goal, iterations=1)
    assert prune(fixed(draw()), goal, iterations=7, revive=revive) == once
    assert once.kept.kept_weights == 18
    for name, density in pinned.items():
        assert once.kept.fractions[name] == density


def test_a_small_pinned_layer_does_not_stop_the_first_rounds():
    """38 weights, but only 18 + 2 can be kept with a tenth of the first layer."""
    score = fixed(draw())
    masks = prune(score, Goal(LAYERS, 8, pinned={"a": 0.1}), iterations=3)
    assert [asked.kept.kept_weights for asked in score.asked[1:]] == [15, 11]
    assert masks.kept.counts["a"] == 2
    assert masks.kept.kept_weights == 8


@pytest.mark.parametrize("allocation", ["uniform", "er", "given"])
@pytest.mark.parametrize("revive", [True, False])
def test_given_and_allocated_counts_are_met_in_every_layer(allocation, revive):
    target = Densities(tuple(LAYERS), (5, 4, 3))
    goal = Goal(LAYERS, target if allocation == "given" else 12, allocation=allocation)
    score = fixed(draw())
    masks = prune(score, goal, iterations=3, revive=revive)
    assert masks == prune(fixed(draw()), goal, iterations=1)
    assert masks.kept.kept_weights == 12
    if allocation == "given":
        assert masks.kept == target
        # 20^(2/3) 5^(1/3) = 12.6, 12^(2/3) 4^(1/3) = 8.3, 6^(2/3) 3^(1/3) = 4.8; and so on
        assert [asked.kept.kept for asked in score.asked[1:]] == [(13, 8, 5), (8, 6, 4)]


def test_what_is_gone_comes_back_only_where_it_may():
    """The score favours weights that are gone, so that every round swaps as many as it can."""
    values = draw()

    def swap(model, layers, batch, *, generator):
        if batch.masks is None:
            return values
        return {name: value + (~batch.masks[name]).float() * 10 for name, value in values.items()}

    once = prune(swap, Goal(LAYERS, 24), iterations=1)
    back = prune(swap, Goal(LAYERS, 24), iterations=2, revive=True)
    away = prune(swap, Goal(LAYERS, 24), iterations=2, revive=False)
    assert away == once
    first_round = prune(fixed(values), Goal(LAYERS, 30), iterations=1)
    gone = [name for name in values if bool((back[name] & ~first_round[name]).any())]
    assert gone


def test_scores_of_weights_that_are_gone_are_not_looked_at():
    def lost(model, layers, batch, *, generator):
        values = draw()
        if batch.masks is not None:
            values = {name: value.masked_fill(~batch.masks[name], torch.nan) for name, value in values.items()}
        return values

    assert prune(lost, Goal(LAYERS, 10), iterations=4) == prune(fixed(draw()), Goal(LAYERS, 10), iterations=4)
    with pytest.raises(InputError, match="scores of layer 'a' are NaN"):
        prune(lost, Goal(LAYERS, 10), iterations=4, revive=True)


def test_inverted_scores_in_rounds_keep_the_lowest():
    goal = Goal(LAYERS, 10, invert=True)
    values = draw()
    masks = prune(fixed(values), goal, iterations=3)
    kept = torch.cat([values[x.name][masks[x.name]] for x in LAYERS])
    dropped = torch.cat([values[x.name][~masks[x.name]] for x in LAYERS])
    assert kept.max() < dropped.min()


@pytest.mark.parametrize("guarded", [True, False])
def test_shuffling_is_left_to_the_end(guarded):
    """Rounds see the masks that scores chose; the last one has its counts, in other places."""
    values = {name: value + 1 for name, value in draw().items()}
    score = fixed(values)
    plain = prune(fixed(values), Goal(LAYERS, 10), iterations=3, guarded=guarded)
    drawn = prune(score, Goal(LAYERS, 10, shuffle=True), iterations=3, guarded=guarded)
    assert drawn.kept == plain.kept
    assert drawn != plain
    best = torch.cat([value.flatten() for value in values.values()]).sort(descending=True).values
    for asked in score.asked[1:]:
        kept = torch.cat([values[x.name][asked[x.name]] for x in LAYERS])
        assert float(kept.min()) == float(best[len(kept) - 1])


@given(st.integers(0, 1000), st.integers(3, 37), st.integers(1, 6), st.booleans())
def test_the_best_are_kept_whatever_the_way(seed, kept, iterations, tied):
    values = draw(seed)
    if tied:
        values = {name: (value * 4).round() for name, value in values.items()}
    values = {name: value + 1 for name, value in values.items()}
    try:
        masks = prune(fixed(values), Goal(LAYERS, kept), iterations=iterations)
    except RefusedError:  # a layer was emptied before the end
        return
    best = torch.cat([value.flatten() for value in values.values()]).sort(descending=True).values[:kept]
    assert torch.equal(torch.cat([values[x.name][masks[x.name]] for x in LAYERS]).sort(descending=True).values, best)


def test_a_layer_that_is_emptied_on_the_way_is_refused_and_may_come_back_in_force():
    low = {"a": torch.ones(4, 5), "b": torch.zeros(3, 4), "c": torch.ones(2, 3)}
    with pytest.raises(RefusedError, match="layer 'b' keeps none of its 12 weights"):
        prune(fixed(low), Goal(LAYERS, 5), iterations=3)

    def rising(model, layers, batch, *, generator):
        return low if batch.masks is None else {**low, "b": torch.full((3, 4), 2.0)}

    assert prune(rising, Goal(LAYERS, 20), iterations=2, revive=True).kept.counts["b"] == 12


def test_goals_out_of_reach_are_refused_before_any_scoring():
    score = fixed(draw())
    for iterations in (1, 5):
        for kept in (2, 39):
            with pytest.raises(InputError, match="nearest: 3" if kept < 3 else "nearest: 38"):
                prune(score, Goal(LAYERS, kept), iterations=iterations)
    with pytest.raises(InputError, match="iterations is 0; expected an integer of at least 1"):
        prune(score, Goal(LAYERS, 5), iterations=0)
    assert score.asked == []


def chain(widths, seed=0):
    """A narrow VGG: convolutions, pooling, a classifier, with He-like weights."""
    modules = []
    for number, (before, after) in enumerate(pairwise([3, *widths]), start=1):
        modules += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        if number in (2, 4):
            modules.append(nn.MaxPool2d(2))
    model = nn.Sequential(*modules, nn.Flatten(), nn.Linear(widths[-1] * 4, 5)).double()
    generator = seeded(seed)
    weights = [(name, p) for name, p in model.named_parameters() if p.ndim > 1]
    with torch.no_grad():
        for _, weight in weights:
            weight.copy_(torch.randn(weight.shape, generator=generator) * (2 / weight[0].numel()) ** 0.5)
    return model, [Layer(name.removesuffix(".weight"), tuple(weight.shape)) for name, weight in weights]


IMAGES = Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize("iterations", [1, 3, 100])
@pytest.mark.parametrize("kept", [8, 9, 12, 100, 1000])
def test_synflow_keeps_a_path_down_to_one_weight_per_layer(kept, iterations):
    """Eight layers, one round or many: even where a single round was asked for, its cuts are fine enough."""
    model, layers = chain([4, 4, 8, 8, 8, 16, 16])
    masks = prune(
        scores.get("synflow"), Goal(layers, kept), iterations=iterations, guarded=True, model=model, batch=IMAGES
    )
    assert masks.kept.kept_weights == kept
    assert masks.kept.empty_layers == ()
    assert has_path(model, masks, input_shape=(3, 8, 8))


def test_without_the_guard_one_round_collapses():
    model, layers = chain([4, 4, 8, 8, 8, 16, 16])
    masks = prune(scores.get("synflow"), Goal(layers, 8), iterations=1, model=model, batch=IMAGES)
    assert masks.kept.empty_layers


def test_the_guard_cuts_less_than_the_flow_at_a_time_and_no_finer():
    """Flow 1 in both layers, of which the small parts of the first add up to 0.9: they go at once, then one of 0.5."""
    layers = [Layer("a", (1, 4)), Layer("b", (1, 2))]
    values = {"a": torch.tensor([[0.1, 0.3, 0.5, 0.1]]), "b": torch.tensor([[0.6, 0.4]])}
    score = fixed(values)
    prune_to = Goal(layers, 2)
    masks = prune(score, prune_to, iterations=1, guarded=True)
    # 0.1 + 0.1 + 0.3 + 0.4 = 0.9 < 1: all at once
    assert len(score.asked) == 1
    assert masks.kept.kept == (1, 1)
    score = fixed({**values, "b": torch.tensor([[0.5, 0.5]])})
    masks = prune(score, Goal(layers, 2), iterations=1, guarded=True)
    # the cut of 1.0 is too much: 0.5 goes in one of its own
    assert [asked.kept.kept_weights for asked in score.asked[1:]] == [3]
    assert masks.kept.kept_weights == 2


def test_the_guard_leaves_pinned_layers_alone():
    layers = [Layer("a", (1, 4)), Layer("b", (1, 2)), Layer("c", (1, 2))]
    values = {"a": torch.full((1, 4), 0.25), "b": torch.full((1, 2), 0.5), "c": torch.full((1, 2), 0.5)}
    masks = prune(fixed(values), Goal(layers, 4, pinned={"b": 1.0}), iterations=1, guarded=True)
    assert masks.kept.counts["b"] == 2
    assert masks.kept.kept_weights == 4


def test_the_guard_gives_up_where_nothing_flows():
    masks = prune(fixed({x.name: torch.zeros(x.shape) for x in LAYERS}), Goal(LAYERS, 20), iterations=1, guarded=True)
    assert masks.kept.kept_weights == 20


def test_masks_among_others_are_chosen_from_them():
    some = Masks(LAYERS, {x.name: torch.rand(x.shape, generator=seeded(4)) < 0.6 for x in LAYERS})
    values = {**draw(), "b": draw()["b"].bfloat16()}
    for goal in (Goal(LAYERS, 12), Goal(LAYERS, Densities(tuple(LAYERS), (4, 3, 2)))):
        masks = goal.masks(values, generator=seeded(), among=some)
        assert masks.kept.kept_weights == goal.kept_weights
        assert not any(bool((masks[x.name] & ~some[x.name]).any()) for x in LAYERS)
