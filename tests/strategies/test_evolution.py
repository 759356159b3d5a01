"""Ageing evolution, step by step and as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas.errors import InputError
from snas.strategies.base import make_strategy
from snas.strategies.evolution import Evolution, fitness, mutate, population, reflect, tournament
from snas.strategies.random import Random
from snas.trials import Status, Trial


def trial(number: int, score: float, *, epochs: int = 1, status: Status = Status.FINISHED) -> Trial:
    """A trial of three coordinates, all equal to a hundredth of its number."""
    return Trial(number, np.full(3, number / 100), status, {epochs: score})


def numbers(trials) -> list[int]:
    return [trial.number for trial in trials]


def test_longer_training_outranks_a_higher_score_at_a_shorter_length():
    short, long = Trial(0, np.zeros(1), scores={1: 0.9}), Trial(1, np.zeros(1), scores={1: 0.3, 4: 0.6})
    assert fitness(long) > fitness(short)


def test_equal_lengths_are_ranked_by_the_score_at_that_length_alone():
    first, second = Trial(0, np.zeros(1), scores={1: 0.9, 2: 0.5}), Trial(1, np.zeros(1), scores={1: 0.1, 2: 0.6})
    assert fitness(second) > fitness(first)


def test_the_earlier_one_wins_a_tie():
    assert fitness(trial(3, 0.5)) > fitness(trial(4, 0.5))


def test_the_oldest_leave():
    history = [trial(i, 0.1 * i) for i in range(6)]
    assert numbers(population(history, size=4, elites=0)) == [2, 3, 4, 5]


def test_elites_outlive_their_age():
    scores = [0.1, 0.9, 0.3, 0.8, 0.4, 0.5, 0.6]
    history = [trial(i, score) for i, score in enumerate(scores)]
    assert numbers(population(history, size=3, elites=0)) == [4, 5, 6]
    assert numbers(population(history, size=3, elites=1)) == [1, 4, 5, 6]
    assert numbers(population(history, size=3, elites=2)) == [1, 3, 4, 5, 6]


def test_a_young_elite_is_not_counted_twice():
    history = [trial(0, 0.8), trial(1, 0.7), trial(2, 0.9)]
    assert numbers(population(history, size=1, elites=1)) == [2]


def test_those_without_a_usable_score_neither_live_nor_take_a_place():
    history = [
        trial(0, 0.1),
        trial(1, 0.2),
        trial(2, 0.9, status=Status.FAILED),
        Trial(3, np.zeros(3), Status.REFUSED),
        Trial(4, np.zeros(3), Status.RUNNING),
        Trial(5, np.zeros(3), Status.PAUSED, {1: 0.9, 2: float("nan")}),
        trial(6, float("inf")),
        trial(7, 0.3, status=Status.RUNNING),
    ]
    assert numbers(population(history, size=3, elites=2)) == [0, 1, 7]


def test_the_order_of_the_history_does_not_matter():
    history = [trial(i, (7 * i % 11) / 11, epochs=1 + i % 2) for i in range(12)]
    strategy = Evolution(population=4)
    points = strategy.ask(history, 3, dimensions=3, rng=np.random.default_rng(0))
    again = strategy.ask(history[::-1], 3, dimensions=3, rng=np.random.default_rng(0))
    assert np.array_equal(points, again)


def test_the_fittest_of_a_tournament_of_all_wins():
    candidates = [trial(0, 0.2), trial(1, 0.6), trial(2, 0.4)]
    for size in (3, 10):
        assert tournament(candidates, size=size, rng=np.random.default_rng(0)).number == 1


def test_a_tournament_of_one_draws_anybody():
    candidates = [trial(0, 0.2), trial(1, 0.6), trial(2, 0.4)]
    rng = np.random.default_rng(0)
    assert {tournament(candidates, size=1, rng=rng).number for _ in range(50)} == {0, 1, 2}


def test_a_tournament_of_two_never_picks_the_worst():
    candidates = [trial(0, 0.2), trial(1, 0.6), trial(2, 0.4)]
    rng = np.random.default_rng(0)
    assert {tournament(candidates, size=2, rng=rng).number for _ in range(50)} == {1, 2}


def test_a_child_resembles_the_winner():
    history = [trial(i, 1.0 if i == 42 else 0.5) for i in range(80)]
    strategy = Evolution(population=80, tournament=80, sigma=1e-6, rate=1.0)
    children = strategy.ask(history, 5, dimensions=3, rng=np.random.default_rng(0))
    assert np.abs(np.stack(children) - 0.42).max() < 1e-5


@pytest.mark.parametrize(("proposed", "uniform"), [(0, 7), (2, 5), (4, 3), (7, 0), (9, 0)])
def test_the_first_population_is_uniform(proposed, uniform):
    history = [Trial(i, np.full(4, 0.5), Status.FINISHED, {1: 0.5}) for i in range(proposed)]
    points = Evolution(population=7, sigma=1e-9).ask(history, 7, dimensions=4, rng=np.random.default_rng(0))
    near = [bool(np.abs(point - 0.5).max() < 1e-6) for point in points]
    assert near == [False] * uniform + [True] * (7 - uniform)


def test_uniform_while_nothing_is_scored():
    history = [Trial(i, np.full(4, 0.5), Status.RUNNING) for i in range(30)]
    points = Evolution(population=2, sigma=1e-9).ask(history, 3, dimensions=4, rng=np.random.default_rng(0))
    assert all(np.abs(point - 0.5).max() > 1e-3 for point in points)


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


def best_on_the_sphere(strategy, *, dimensions: int, budget: int, seed: int) -> float:
    history: list[Trial] = []
    for number in range(budget):
        [point] = strategy.ask(history, 1, dimensions=dimensions, rng=np.random.default_rng([seed, number]))
        history.append(Trial(number, point, Status.FINISHED, {1: -float(((point - 0.3) ** 2).sum())}))
    return max(trial.scores[1] for trial in history)


def test_better_than_random_on_the_sphere():
    """120 evaluations in 8 dimensions: the median distance to the optimum is less than two thirds of random's."""
    seeds = range(7)
    evolved = np.median([best_on_the_sphere(Evolution(), dimensions=8, budget=120, seed=seed) for seed in seeds])
    drawn = np.median([best_on_the_sphere(Random(), dimensions=8, budget=120, seed=seed) for seed in seeds])
    assert np.sqrt(-evolved) < np.sqrt(-drawn) * 2 / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population": "0"}, "population is 0; expected at least 1"),
        ({"tournament": 0}, "tournament is 0; expected at least 1"),
        ({"elites": "-1"}, "elites is -1; expected at least 0"),
        ({"sigma": "0"}, "sigma is 0.0; expected a number above 0"),
        ({"sigma": "nan"}, "sigma is nan; expected a number above 0"),
        ({"rate": "1.5"}, "rate is 1.5; expected 0 <= rate <= 1"),
        ({"rate": "nan"}, "rate is nan; expected 0 <= rate <= 1"),
        ({"population": "many"}, "'population' of strategy 'evolution' is 'many'; expected a value of type int"),
    ],
)
def test_options_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_strategy("evolution", arguments)
