"""Ageing evolution, step by step and as a whole; its mutations are in test_mutation.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snas.errors import InputError
from snas.strategies.base import make_strategy
from snas.strategies.evolution import Evolution, population, recombination_weights, step_size, tournament
from snas.strategies.random import Random
from snas.trials import Status, Trial


def trial(number: int, score: float, *, epochs: int = 1, status: Status = Status.FINISHED) -> Trial:
    """A trial of three coordinates, all equal to a hundredth of its number."""
    return Trial(number, np.full(3, number / 100), status, {epochs: score})


def numbers(trials) -> list[int]:
    return [trial.number for trial in trials]


def test_the_oldest_leave():
    history = [trial(i, 0.1 * i) for i in range(6)]
    assert numbers(population(history, size=4, elites=0)) == [5, 4, 3, 2]


def test_elites_outlive_their_age():
    scores = [0.1, 0.9, 0.3, 0.8, 0.4, 0.5, 0.6]
    history = [trial(i, score) for i, score in enumerate(scores)]
    assert numbers(population(history, size=3, elites=0)) == [6, 5, 4]
    assert numbers(population(history, size=3, elites=1)) == [1, 6, 5, 4]
    assert numbers(population(history, size=3, elites=2)) == [1, 3, 6, 5, 4]


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
    assert numbers(population(history, size=3, elites=2)) == [7, 1, 0]


def test_the_order_of_the_history_does_not_matter():
    history = [trial(i, (7 * i % 11) / 11, epochs=1 + i % 2) for i in range(12)]
    strategy = Evolution(population=4)
    points = strategy.ask(history, 3, dimensions=3, rng=np.random.default_rng(0))
    again = strategy.ask(history[::-1], 3, dimensions=3, rng=np.random.default_rng(0))
    assert np.array_equal(points, again)


def test_the_fittest_of_a_tournament_of_all_win():
    candidates = [trial(i, 0.9 - 0.1 * i) for i in range(5)]
    for size in (5, 10):
        assert numbers(tournament(candidates, size=size, winners=3, rng=np.random.default_rng(0))) == [0, 1, 2]


def test_a_tournament_of_one_draws_anybody():
    candidates = [trial(i, 0.9 - 0.1 * i) for i in range(3)]
    rng = np.random.default_rng(0)
    assert {tournament(candidates, size=1, winners=2, rng=rng)[0].number for _ in range(50)} == {0, 1, 2}


def test_a_tournament_of_two_never_picks_the_worst():
    candidates = [trial(i, 0.9 - 0.1 * i) for i in range(3)]
    rng = np.random.default_rng(0)
    assert {tournament(candidates, size=2, winners=1, rng=rng)[0].number for _ in range(50)} == {0, 1}


def test_weights_of_two_parents():
    """log(2.5) and log(1.25), over their sum, log(3.125)."""
    assert recombination_weights(2) == pytest.approx([0.8042, 0.1958], abs=1e-4)
    assert recombination_weights(1) == [1.0]


def test_children_lie_around_the_weighted_mean_of_the_best():
    history = [trial(i, 1.0 - i / 100) for i in range(20)]
    strategy = Evolution(population=20, parents=3, sigma=1e-6, rate=1.0)
    children = strategy.ask(history, 5, dimensions=3, rng=np.random.default_rng(0))
    weights = np.log(3.5) - np.log([1, 2, 3])
    expected = weights / weights.sum() @ [0.0, 0.01, 0.02]
    assert np.abs(np.stack(children) - expected).max() < 1e-4


def test_with_one_parent_a_child_resembles_the_winner():
    history = [trial(i, 1.0 if i == 42 else 0.5) for i in range(80)]
    strategy = Evolution(population=80, tournament=80, parents=1, sigma=1e-6, rate=1.0)
    children = strategy.ask(history, 5, dimensions=3, rng=np.random.default_rng(0))
    assert np.abs(np.stack(children) - 0.42).max() < 1e-5


def test_with_costs_both_ends_of_the_front_have_children_and_none_between():
    history = [
        Trial(0, np.full(3, 0.1), Status.FINISHED, {1: 0.2}, costs=(1.0,)),
        Trial(1, np.full(3, 0.9), Status.FINISHED, {1: 0.9}, costs=(9.0,)),
        Trial(2, np.full(3, 0.5), Status.FINISHED, {1: 0.1}, costs=(10.0,)),
    ]
    strategy = Evolution(initial=3, sigma=1e-6)
    children = np.stack(strategy.ask(history, 30, dimensions=3, rng=np.random.default_rng(0)))
    near = [np.abs(children - value).max(axis=1) < 1e-4 for value in (0.1, 0.9, 0.5)]
    assert near[0].any()
    assert near[1].any()
    assert not near[2].any()


@pytest.mark.parametrize(("proposed", "uniform"), [(0, 7), (2, 5), (4, 3), (7, 0), (9, 0)])
def test_the_first_points_are_uniform(proposed, uniform):
    history = [Trial(i, np.full(4, 0.5), Status.FINISHED, {1: 0.5}) for i in range(proposed)]
    points = Evolution(initial=7, sigma=1e-9).ask(history, 7, dimensions=4, rng=np.random.default_rng(0))
    near = [bool(np.abs(point - 0.5).max() < 1e-6) for point in points]
    assert near == [False] * uniform + [True] * (7 - uniform)


def test_uniform_while_nothing_is_scored():
    history = [Trial(i, np.full(4, 0.5), Status.RUNNING) for i in range(30)]
    points = Evolution(initial=2, sigma=1e-9).ask(history, 3, dimensions=4, rng=np.random.default_rng(0))
    assert all(np.abs(point - 0.5).max() > 1e-3 for point in points)


def test_the_step_shortens_while_children_fail_and_recovers_when_they_succeed():
    """Worked out by hand: two uniform trials, then eight children worse than both: 8 * 0.3 / 4 = 0.6 off the logarithm;
    three children that are the best so far give back (1 - 0.3) / 4 each."""
    history = [trial(0, 0.8), trial(1, 0.9), *(trial(2 + i, 0.1) for i in range(8))]
    assert step_size(history, sigma=0.2, initial=2, parents=2) == pytest.approx(0.2 * np.exp(-0.6))
    better = [trial(10 + i, 1.0 + i) for i in range(3)]
    grown = step_size([*history, *better], sigma=0.2, initial=2, parents=2)
    assert grown == pytest.approx(0.2 * np.exp(-0.6 + 3 * 0.175))
    assert step_size([*better, *history][::-1], sigma=0.2, initial=2, parents=2) == grown


def test_the_step_has_bounds():
    failing = [trial(0, 0.9), *(trial(1 + i, 0.1) for i in range(90))]
    assert step_size(failing, sigma=0.2, initial=1, parents=1) == pytest.approx(0.02)
    succeeding = [trial(i, 0.01 * i) for i in range(40)]
    assert step_size(succeeding, sigma=0.2, initial=1, parents=1) == pytest.approx(0.2)


def test_only_children_count_for_the_step():
    history = [trial(0, 0.9), *(trial(1 + i, 0.1) for i in range(9))]
    assert step_size(history, sigma=0.2, initial=10, parents=1) == 0.2
    given_ones = [history[0], *(replace(item, given=True) for item in history[1:])]
    assert step_size(given_ones, sigma=0.2, initial=1, parents=1) == 0.2


def test_without_adaptation_the_step_stays():
    """After many failures, children of an adapted step lie nearer to the mean than those of a fixed one."""
    history = [trial(0, 0.9), *(trial(1 + i, 0.1) for i in range(60))]
    options = {"population": 1, "elites": 1, "parents": 1, "tournament": 1, "initial": 1, "rate": 1.0}

    def spread(*, adapt):
        strategy = Evolution(**options, adapt=adapt)
        points = np.stack(strategy.ask(history, 200, dimensions=3, rng=np.random.default_rng(0)))
        return np.median(np.minimum(points, np.abs(points - 0.60)))  # parents are trial 0, at 0, and trial 60, at 0.6

    assert spread(adapt=True) < 0.2 * spread(adapt=False)


def best_on_the_sphere(strategy, *, dimensions: int, budget: int, seed: int) -> float:
    history: list[Trial] = []
    for number in range(budget):
        [point] = strategy.ask(history, 1, dimensions=dimensions, rng=np.random.default_rng([seed, number]))
        history.append(Trial(number, point, Status.FINISHED, {1: -float(((point - 0.3) ** 2).sum())}))
    return max(trial.scores[1] for trial in history)


def test_better_than_random_on_the_sphere():
    """60 evaluations in 8 dimensions: the median distance to the optimum is less than two thirds of random's."""
    seeds = range(7)
    evolved = np.median([best_on_the_sphere(Evolution(), dimensions=8, budget=60, seed=seed) for seed in seeds])
    drawn = np.median([best_on_the_sphere(Random(), dimensions=8, budget=60, seed=seed) for seed in seeds])
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
        ({"parents": "0"}, "parents is 0; expected at least 1"),
        ({"initial": "0"}, "initial is 0; expected at least 1"),
        ({"switch": "-0.1"}, "switch is -0.1; expected 0 <= switch <= 1"),
        ({"rate": "nan"}, "rate is nan; expected 0 <= rate <= 1"),
        ({"population": "many"}, "'population' of strategy 'evolution' is 'many'; expected a value of type int"),
    ],
)
def test_options_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_strategy("evolution", arguments)
