"""What strategies read: trials, and the training length at which they can be compared."""

from __future__ import annotations

import numpy as np
import pytest

from snas.records import TrainingRecord, as_trial
from snas.trials import Status, Trial, comparable_length


def trial(number: int, scores: dict[int, float], status: Status = Status.PAUSED) -> Trial:
    return Trial(number, np.zeros(1), status, scores)


def test_longest_length_with_enough_scores():
    history = [trial(0, {1: 0.1, 2: 0.2, 4: 0.3}), trial(1, {1: 0.1, 2: 0.3}), *(trial(i, {1: 0.1}) for i in (2, 3, 4))]
    assert comparable_length(history, need=1) == 4
    assert comparable_length(history, need=2) == 2
    assert comparable_length(history, need=3) == 1


def test_what_most_share_is_enough_when_few_are_scored():
    """A first rung at epoch 2: the epochs before it are not gone back to because one trial is still below it."""
    history = [*(trial(i, {1: 0.1, 2: 0.2}) for i in range(3)), trial(3, {1: 0.1}, Status.RUNNING)]
    assert comparable_length(history, need=35) == 2


def test_half_is_not_most():
    history = [trial(0, {1: 0.1, 2: 0.2}), trial(1, {1: 0.1})]
    assert comparable_length(history, need=35) == 1


def test_shortest_where_nothing_is_shared():
    history = [trial(0, {3: 0.1}), trial(1, {5: 0.2})]
    assert comparable_length(history, need=2) == 3


@pytest.mark.parametrize("status", [Status.FAILED, Status.REFUSED])
def test_failed_trials_do_not_count(status):
    history = [trial(0, {1: 0.1}), trial(1, {1: 0.1, 2: 0.1}, status), trial(2, {1: 0.1, 2: 0.1}, status)]
    assert comparable_length(history, need=1) == 1
    assert comparable_length(history[1:], need=1) == 0


def test_scores_that_are_not_finite_do_not_count():
    history = [trial(0, {1: 0.1, 2: float("nan")}), trial(1, {1: 0.2, 2: float("inf")})]
    assert comparable_length(history, need=1) == 1
    assert comparable_length([trial(0, {1: float("nan")})], need=1) == 0


def test_nothing_scored():
    assert comparable_length([], need=1) == 0
    assert comparable_length([trial(0, {}, Status.RUNNING)], need=1) == 0


def test_trials_are_equal_by_value():
    first = Trial(0, np.array([0.1, 0.2]), Status.PAUSED, {1: 0.5}, 7)
    assert first == Trial(0, np.array([0.1, 0.2]), Status.PAUSED, {1: 0.5}, 7)
    assert first != Trial(1, np.array([0.1, 0.2]), Status.PAUSED, {1: 0.5}, 7)
    assert first != Trial(0, np.array([0.1, 0.3]), Status.PAUSED, {1: 0.5}, 7)
    assert first != Trial(0, np.array([0.1, 0.2]), Status.FINISHED, {1: 0.5}, 7)
    assert first != Trial(0, np.array([0.1, 0.2]), Status.PAUSED, {1: 0.6}, 7)
    assert first != Trial(0, np.array([0.1, 0.2]), Status.PAUSED, {1: 0.5}, 8)
    assert first != "a trial"


def test_a_start_is_not_a_proposal():
    point = np.zeros(1)
    assert not Trial(0, point).given
    assert Trial(0, point, given=True) != Trial(0, point)


@pytest.mark.parametrize(
    ("traits", "expected"), [({}, False), ({"origin": "strategy"}, False), ({"origin": "erk"}, True)]
)
def test_records_tell_starts_from_proposals(traits, expected):
    """A record of an earlier format has no traits: then everything was proposed."""
    record = TrainingRecord(
        id=1,
        number=0,
        seed=0,
        status=Status.RUNNING,
        reason=None,
        kept={},
        mask_checksum=None,
        point=None,
        traits=traits,
        signals={},
        repeat=0,
        test_loss=None,
        test_accuracy=None,
        reports=(),
    )
    assert as_trial(record).given is expected


def test_epochs_and_failure():
    assert trial(0, {}).epochs == 0
    assert trial(0, {1: 0.5, 4: 0.2}).epochs == 4
    assert [Trial(0, np.zeros(1), status).failed for status in Status] == [False, False, False, True, True]
