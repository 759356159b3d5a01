"""NSGA-II: its operators against distributions worked out apart, and as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from snas import pareto
from snas.errors import InputError
from snas.strategies.base import make_strategy
from snas.strategies.nsga2 import Nsga2, cross, mutate_polynomially, winner
from snas.strategies.random import Random
from snas.trials import Status, Trial


def test_the_better_of_two_wins():
    """With four candidates the places 0, 1, 2 win in 3, 2 and 1 of the 6 pairs; the worst never does."""
    rng = np.random.default_rng(0)
    wins = np.bincount([winner(4, rng) for _ in range(6000)], minlength=4) / 6000
    assert wins == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0], abs=0.03)
    assert winner(1, rng) == 0


def test_crossover_has_the_distribution_of_simulated_binary_crossover():
    """Parents far from the bounds: the spread factor has the distribution function beta^(eta+1) / 2 up to 1 and
    1 - beta^-(eta+1) / 2 above ([Deb1995])."""
    eta, rng = 4.0, np.random.default_rng(1)
    mother, father = np.full(20000, 0.4999), np.full(20000, 0.5001)
    child = cross(mother, father, eta=eta, rng=rng)
    spread = np.abs(child[child != mother] - 0.5) / 0.0001

    def expected(beta):
        return np.where(beta <= 1, 0.5 * beta ** (eta + 1), 1 - 0.5 * np.maximum(beta, 1) ** -(eta + 1))

    assert kstest(spread, expected).pvalue > 0.01
    assert (child != mother).mean() == pytest.approx(0.5, abs=0.02)


def test_near_a_bound_the_crossover_is_cut_off_there():
    """Parents at 0.1 and 0.3: the lower child is at 0.2 - 0.1 beta, with the distribution of beta given beta <= 2."""
    eta, rng = 1.0, np.random.default_rng(3)
    mother, father = np.full(20000, 0.1), np.full(20000, 0.3)
    child = cross(mother, father, eta=eta, rng=rng)
    spread = (0.2 - child[(child != mother) & (child < 0.2)]) / 0.1

    def mass(beta):
        return np.where(beta <= 1, 0.5 * beta ** (eta + 1), 1 - 0.5 * np.maximum(beta, 1) ** -(eta + 1))

    assert spread.max() <= 2.0
    assert kstest(spread, lambda beta: mass(beta) / mass(2.0)).pvalue > 0.01


def test_crossover_keeps_what_parents_share():
    rng = np.random.default_rng(0)
    parent = np.array([0.0, 0.3, 1.0])
    assert np.array_equal(cross(parent, parent, eta=2.0, rng=rng), parent)


def test_mutation_has_the_polynomial_distribution():
    """In the middle, the step d has the density proportional to (1 - |d| )^eta cut off at 1/2, by symmetry even."""
    eta, rng = 3.0, np.random.default_rng(2)
    steps = mutate_polynomially(np.full(20000, 0.5), eta=eta, rate=1.0, rng=rng) - 0.5
    inside = 1 - 0.5 ** (eta + 1)

    def expected(step):
        tail = (1 - (1 - np.abs(step)) ** (eta + 1)) / inside / 2
        return 0.5 + np.sign(step) * tail

    assert kstest(steps, expected).pvalue > 0.01


@given(
    mother=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    father=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    eta=st.floats(0, 200),
    seed=st.integers(0, 2**32),
)
def test_operators_stay_in_the_cube(mother, father, eta, seed):
    rng = np.random.default_rng(seed)
    child = cross(np.array(mother), np.array(father), eta=eta, rng=rng)
    assert ((child >= 0) & (child <= 1)).all()
    child = mutate_polynomially(child, eta=eta, rate=0.5, rng=rng)
    assert ((child >= 0) & (child <= 1)).all()


def test_rate_zero_mutates_one_coordinate():
    rng = np.random.default_rng(0)
    changed = [
        (mutate_polynomially(np.full(5, 0.5), eta=20, rate=0.0, rng=rng) != 0.5).nonzero()[0].tolist()
        for _ in range(50)
    ]
    assert {len(places) for places in changed} == {1}
    assert {places[0] for places in changed} == set(range(5))


def test_parents_are_the_best_of_all_times():
    """One good trial among old ones: with two parents that are equal, children lie near them."""
    history = [Trial(i, np.full(2, 0.9), Status.FINISHED, {1: 0.1}) for i in range(8)]
    history[1] = Trial(1, np.full(2, 0.2), Status.FINISHED, {1: 0.9})
    history[2] = Trial(2, np.full(2, 0.2), Status.FINISHED, {1: 0.8})
    children = Nsga2(population=2, eta_mutation=1e6).ask(history, 4, dimensions=2, rng=np.random.default_rng(0))
    assert np.abs(np.stack(children) - 0.2).max() < 1e-3


def test_both_ends_of_a_front_are_parents():
    """Of several objectives the cheap and the accurate survive, the dominated does not."""
    history = [
        Trial(0, np.full(2, 0.1), Status.FINISHED, {1: 0.2}, costs=(1.0,)),
        Trial(1, np.full(2, 0.9), Status.FINISHED, {1: 0.9}, costs=(9.0,)),
        *(Trial(2 + i, np.full(2, 0.5), Status.FINISHED, {1: 0.1}, costs=(10.0 + i,)) for i in range(6)),
    ]
    strategy = Nsga2(population=2, crossover=0.0, eta_mutation=1e6)
    children = np.stack(strategy.ask(history, 12, dimensions=2, rng=np.random.default_rng(0)))
    assert ((np.abs(children - 0.1) < 1e-3) | (np.abs(children - 0.9) < 1e-3)).all()


@pytest.mark.parametrize(("proposed", "uniform"), [(0, 6), (4, 2), (6, 0)])
def test_the_first_population_is_uniform(proposed, uniform):
    history = [Trial(i, np.full(4, 0.5), Status.FINISHED, {1: 0.5}) for i in range(proposed)]
    points = Nsga2(population=6, eta_mutation=1e6).ask(history, 6, dimensions=4, rng=np.random.default_rng(0))
    assert sum(bool(np.abs(point - 0.5).max() > 1e-3) for point in points) == uniform


def front_volume(strategy, *, seed: int, evaluations: int = 120) -> float:
    """Hypervolume of what a search finds where the score falls with the first coordinate's smallness, and all other
    coordinates should be 0.3; the cost is the first coordinate."""
    history: list[Trial] = []
    for number in range(evaluations):
        [point] = strategy.ask(history, 1, dimensions=6, rng=np.random.default_rng([seed, number]))
        score = np.sqrt(point[0]) - float(((point[1:] - 0.3) ** 2).sum())
        history.append(Trial(number, point, Status.FINISHED, {1: score}, costs=(float(point[0]),)))
    return pareto.hypervolume([[trial.scores[1], -trial.costs[0]] for trial in history], reference=[-1.0, -1.0])


def test_fronts_are_better_than_randoms():
    ours = [front_volume(Nsga2(), seed=seed) for seed in range(4)]
    drawn = [front_volume(Random(), seed=seed) for seed in range(4)]
    assert min(ours) > max(drawn)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population": "1"}, "population is 1; expected at least 2"),
        ({"crossover": "1.5"}, "crossover is 1.5; expected 0 <= crossover <= 1"),
        ({"eta_crossover": "-1"}, "eta_crossover is -1.0; expected a number of at least 0"),
        ({"eta_mutation": "inf"}, "eta_mutation is inf; expected a number of at least 0"),
        ({"rate": "nan"}, "rate is nan; expected 0 <= rate <= 1, or -1"),
    ],
)
def test_options_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_strategy("nsga2", arguments)
