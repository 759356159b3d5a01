"""Who is better than whom, with one objective and with several."""

from __future__ import annotations

import numpy as np

from snas.strategies.fitness import fitness, is_scored, ranked
from snas.trials import Status, Trial


def trial(number: int, score: float, *costs: float, epochs: int = 1, status: Status = Status.FINISHED) -> Trial:
    return Trial(number, np.zeros(1), status, {epochs: score}, costs=costs)


def numbers(trials) -> list[int]:
    return [item.number for item in trials]


def test_longer_training_outranks_a_higher_score_at_a_shorter_length():
    short, long = Trial(0, np.zeros(1), scores={1: 0.9}), Trial(1, np.zeros(1), scores={1: 0.3, 4: 0.6})
    assert fitness(long) > fitness(short)


def test_equal_lengths_are_ranked_by_the_score_at_that_length_alone():
    first, second = Trial(0, np.zeros(1), scores={1: 0.9, 2: 0.5}), Trial(1, np.zeros(1), scores={1: 0.1, 2: 0.6})
    assert fitness(second) > fitness(first)


def test_the_earlier_one_wins_a_tie():
    assert fitness(trial(3, 0.5)) > fitness(trial(4, 0.5))


def test_one_objective_is_ordered_by_fitness_alone():
    history = [trial(0, 0.4), trial(1, 0.9), trial(2, 0.1, epochs=2), trial(3, 0.4)]
    assert numbers(ranked(history)) == [2, 1, 0, 3]


def test_what_has_no_usable_score_is_left_out():
    unusable = [
        trial(0, 0.9, status=Status.FAILED),
        Trial(1, np.zeros(1), Status.REFUSED),
        Trial(2, np.zeros(1)),
        trial(3, float("nan")),
        Trial(4, np.zeros(1), scores={1: 0.5, 2: float("inf")}),
    ]
    assert not any(map(is_scored, unusable))
    assert numbers(ranked([*unusable, trial(5, 0.1)])) == [5]
    assert ranked(unusable) == []


def test_several_objectives_are_ordered_by_front_and_loneliness():
    """Front 0 by hand: 0 (0.9 for 10), 1 (0.8 for 9), 2 (0.5 for 3), 3 (0.1 for 1); 4 and 5 are dominated by 1 and 2,
    and 4 by 5 too. The ends, 0 and 3, come first; 2 lies lonelier than 1: 0.7 / 0.8 + 8 / 9, not 0.4 / 0.8 + 7 / 9.
    """
    history = [
        trial(0, 0.9, 10.0),
        trial(1, 0.8, 9.0),
        trial(2, 0.5, 3.0),
        trial(3, 0.1, 1.0),
        trial(4, 0.3, 9.5),
        trial(5, 0.4, 9.5),
    ]
    assert numbers(ranked(history)) == [0, 3, 2, 1, 5, 4]
    assert numbers(ranked(history[::-1])) == [0, 3, 2, 1, 5, 4]


def test_of_several_objectives_too_longer_training_goes_first():
    history = [trial(0, 0.9, 1.0), trial(1, 0.2, 9.0, epochs=3), trial(2, 0.1, 8.0, epochs=3)]
    assert numbers(ranked(history)) == [1, 2, 0]


def test_a_cost_can_be_all_that_differs():
    history = [trial(0, 0.5, 3.0), trial(1, 0.5, 2.0), trial(2, 0.5, 1.0)]
    assert numbers(ranked(history)) == [2, 1, 0]
