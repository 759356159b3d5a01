"""CMA-ES: what it is taught, in what order, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest

from snas.errors import InputError
from snas.strategies.base import make_strategy
from snas.strategies.cmaes import CmaEs, first_mean, generations
from snas.strategies.random import Random
from snas.trials import Status, Trial


def trial(number: int, score: float | None, *, at: float = 0.5, status=Status.FINISHED, epochs: int = 1, given=False):
    return Trial(number, np.full(2, at), status, {} if score is None else {epochs: score}, given=given)


def numbers(groups) -> list[list[int]]:
    return [[trial.number for trial in group] for group in groups]


def test_begins_in_the_middle():
    assert first_mean([], 3).tolist() == [0.5, 0.5, 0.5]
    assert first_mean([trial(0, 0.9, at=0.1)], 2).tolist() == [0.5, 0.5]


def test_begins_at_the_best_start():
    history = [trial(0, 0.5, at=0.1, given=True), trial(1, 0.7, at=0.2, given=True), trial(2, 0.9, at=0.3)]
    assert first_mean(history, 2).tolist() == [0.2, 0.2]
    assert first_mean(history[::-1], 2).tolist() == [0.2, 0.2]


def test_a_start_that_came_late_or_has_no_score_moves_nothing():
    history = [trial(0, None, at=0.1, given=True), trial(1, 0.5), trial(2, 0.9, at=0.3, given=True)]
    assert first_mean(history, 2).tolist() == [0.5, 0.5]


def test_the_mean_is_a_copy():
    history = [trial(0, 0.5, at=0.1, given=True)]
    first_mean(history, 2)[:] = 0.7
    assert history[0].point.tolist() == [0.1, 0.1]


def test_generations_are_taught_in_the_order_of_their_numbers():
    history = [trial(i, score) for i, score in enumerate([0.1, 0.4, 0.3, 0.2, 0.9, 0.5, 0.7, 0.8, 0.6])]
    assert numbers(generations(history, 4)) == [[1, 2, 3, 0], [4, 7, 6, 5]]
    assert numbers(generations(history[::-1], 4)) == [[1, 2, 3, 0], [4, 7, 6, 5]]


def test_unscored_trials_wait_and_failed_ones_are_worst():
    history = [
        trial(0, 0.9, given=True),
        trial(1, 0.1),
        trial(2, None, status=Status.RUNNING),
        trial(3, None, status=Status.REFUSED),
        trial(4, float("nan")),
        trial(5, 0.2),
        trial(6, 0.9, status=Status.FAILED),
    ]
    assert numbers(generations(history, 5)) == [[5, 1, 3, 4, 6]]
    assert numbers(generations(history, 6)) == []


def test_longer_training_goes_first():
    history = [trial(0, 0.9), trial(1, 0.1, epochs=3), trial(2, 0.8, epochs=2), trial(3, 0.95)]
    assert numbers(generations(history, 4)) == [[1, 2, 3, 0]]


def test_the_mean_moves_to_the_better_half():
    """One generation by hand: popsize 4, of which two are parents with weights log(2.5) and log(2.5 / 2)."""
    points = np.array([[0.5, 0.6], [0.4, 0.5], [0.6, 0.6], [0.5, 0.4]])
    history = [Trial(i, point, Status.FINISHED, {1: -float(i)}) for i, point in enumerate(points)]
    weights = np.log(2.5) - np.log([1, 2])
    expected = weights / weights.sum() @ points[:2]
    strategy = CmaEs(sigma=0.1, popsize=4)
    drawn = np.stack(strategy.ask(history, 1000, dimensions=2, rng=np.random.default_rng(0)))
    assert drawn.mean(axis=0) == pytest.approx(expected, abs=0.015)


def test_a_distant_start_does_not_widen_the_distribution():
    """A start at the border, 10 first deviations away in each of 40 coordinates, counts as if it lay nearer."""
    rng = np.random.default_rng(0)
    own = [Trial(i, 0.5 + 0.05 * rng.standard_normal(40), Status.FINISHED, {1: float(-i)}) for i in range(6)]
    late = [*own[1:], Trial(6, np.full(40, 1.0), Status.FINISHED, {1: 1.0}, given=True)]

    def spread(history):
        strategy = CmaEs(sigma=0.05, popsize=6)
        return np.stack(strategy.ask(history, 400, dimensions=40, rng=np.random.default_rng(1))).std(axis=0).mean()

    assert spread(late) < 1.5 * spread(own)


@pytest.mark.parametrize("separable", [True, False])
def test_learns_the_sphere(separable):
    """100 evaluations in 6 dimensions: far nearer to the optimum than random search."""

    def distance(strategy, seed):
        history: list[Trial] = []
        for number in range(100):
            [point] = strategy.ask(history, 1, dimensions=6, rng=np.random.default_rng([seed, number]))
            history.append(Trial(number, point, Status.FINISHED, {1: -float(((point - 0.3) ** 2).sum())}))
        return min(-item.scores[1] for item in history) ** 0.5

    ours = np.mean([distance(CmaEs(separable=separable), seed) for seed in range(2)])
    drawn = np.mean([distance(Random(), seed) for seed in range(2)])
    assert ours < drawn / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": "0"}, "sigma is 0.0; expected a number above 0"),
        ({"sigma": "nan"}, "sigma is nan; expected a number above 0"),
        ({"popsize": "3"}, "popsize is 3; expected at least 4, or 0"),
    ],
)
def test_options_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_strategy("cmaes", arguments)
