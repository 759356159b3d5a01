"""The Sobol strategy: one even sequence, whatever is asked for at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from snas.strategies.random import Random
from snas.strategies.sobol import Sobol, scrambled
from snas.trials import Status, Trial


def asked(groups, *, dimensions: int, seed: int = 0, given: int = 0) -> np.ndarray:
    """Points proposed for a search that asks for `groups` of points, after `given` starts."""
    history = [Trial(i, np.full(dimensions, 0.5), Status.FINISHED, {1: 0.5}, given=True) for i in range(given)]
    for call, n in enumerate(groups):
        rng = np.random.default_rng([seed, call])
        for point in Sobol().ask(history, n, dimensions=dimensions, rng=rng):
            history.append(Trial(len(history), point))
    return np.stack([trial.point for trial in history[given:]])


def test_the_sequence_is_the_same_however_many_are_asked_for():
    at_once = asked([16], dimensions=5)
    assert np.array_equal(at_once, asked([1] * 16, dimensions=5))
    assert np.array_equal(at_once, asked([1, 3, 7, 5], dimensions=5))


def test_given_trials_take_no_place_in_the_sequence():
    assert np.array_equal(asked([4, 4], dimensions=3), asked([4, 4], dimensions=3, given=2))


def test_late_starts_between_the_proposals_change_nothing():
    points = asked([1] * 6, dimensions=3)
    own = [Trial(i if i < 2 else i + 1, point) for i, point in enumerate(points[:4])]
    history = [own[3], Trial(2, np.ones(3), given=True), *own[:3]]
    [fifth] = Sobol().ask(history, 1, dimensions=3, rng=np.random.default_rng(99))
    assert np.array_equal(fifth, points[4])


@pytest.mark.parametrize("dimensions", [1, 2, 7])
@pytest.mark.parametrize("power", [3, 6])
def test_every_coordinate_has_one_point_in_each_of_its_equal_parts(dimensions, power):
    """The first 2^k points are one per interval of length 2^-k in every coordinate: also after scramble and shift."""
    points = asked([2**power], dimensions=dimensions, seed=3)
    for column in points.T:
        assert sorted((column * 2**power).astype(int)) == list(range(2**power))


def test_more_even_than_chance():
    seeds = range(5)
    ours = [qmc.discrepancy(asked([64], dimensions=6, seed=seed)) for seed in seeds]
    drawn = [
        qmc.discrepancy(np.stack(Random().ask([], 64, dimensions=6, rng=np.random.default_rng(seed)))) for seed in seeds
    ]
    assert max(ours) < min(drawn)


def test_the_scramble_is_that_of_scipy_but_for_a_shift():
    """The exclusive or of any two of its points does not depend on a digital shift."""
    theirs = qmc.Sobol(4, scramble=True, rng=np.random.default_rng(4)).random(8)
    integers = (theirs * 2**30).astype(np.int64)
    assert np.array_equal(scrambled(4, 0, 8), integers ^ integers[0])
    assert not scrambled(4, 0, 1).any()
    assert np.array_equal(scrambled(4, 5, 2), scrambled(4, 0, 8)[5:7])


def test_another_seed_shifts_all_points():
    first, second = asked([4], dimensions=3, seed=1), asked([4], dimensions=3, seed=2)
    assert (first != second).all()
    as_integers = [(points * 2**30).astype(np.int64) for points in (first, second)]
    differences = as_integers[0] ^ as_integers[1]
    assert (differences == differences[0]).all()


def test_choices_moved_to_the_middle_of_their_part_leave_the_other_coordinates_alone():
    points = asked([3], dimensions=3)
    moved = points[0].copy()
    moved[2] = 0.25
    [second] = Sobol().ask([Trial(0, moved)], 1, dimensions=3, rng=np.random.default_rng(5))
    assert np.array_equal(second[:2], points[1][:2])


def test_a_first_point_on_the_border_is_a_shift_like_any_other():
    history = [Trial(0, np.array([1.0, 0.0]))]
    [second] = Sobol().ask(history, 1, dimensions=2, rng=np.random.default_rng(0))
    assert ((second >= 0) & (second < 1)).all()
