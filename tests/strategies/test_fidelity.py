"""Scores of short trainings, carried over to the longest: worked by hand, and without the promoted ones' bias."""

from __future__ import annotations

import numpy as np
import pytest

from snas.strategies.fidelity import TRUST, observe, rungs
from snas.trials import Status, Trial

NAN = float("nan")


def trial(number: int, scores: dict[int, float] | None = None, status: Status = Status.FINISHED) -> Trial:
    return Trial(number, np.array([number / 10]), status, scores or {})


def test_rungs_are_where_candidates_stop():
    history = [
        trial(0, {1: 0.1, 2: 0.2}, Status.PAUSED),
        trial(1, {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}),
        trial(2, {1: 0.1, 2: 0.2, 3: 0.3}, Status.RUNNING),
        trial(3, {1: 0.1}, Status.FAILED),
    ]
    assert rungs(history) == [2, 4]


def test_while_all_are_running_the_length_that_most_have_reached_counts():
    assert rungs([trial(0, {1: 0.1, 2: 0.2, 3: 0.2}, Status.RUNNING), trial(1, {1: 0.3}, Status.RUNNING)]) == [1]
    assert rungs([trial(0, None, Status.RUNNING)]) == rungs([]) == []


def test_one_length_is_left_as_it_is():
    """0.8 is the largest score, and the unit."""
    seen = observe([trial(1, {2: 0.8}), trial(0, {2: 0.4}), trial(2, {2: 0.2})])
    assert [t.number for t in seen.trials] == [0, 1, 2]
    assert seen.values == pytest.approx([0.5, 1.0, 0.25])
    assert seen.lengths.tolist() == [2, 2, 2]


def test_the_line_is_least_squares_drawn_towards_one():
    """The pairs (0.2, 0.6) and (0.6, 0.8) have sums 0.08 of dx^2 and 0.04 of dx dy; the variance of the short scores
    0.2, 0.6, 0.3 is 0.26 / 9, three times which is 0.26 / 3: the slope is (0.04 + 0.26 / 3) / (0.08 + 0.26 / 3) = 0.76.
    """
    history = [
        trial(0, {1: 0.2, 3: 0.6}),
        trial(1, {1: 0.6, 3: 0.8}),
        trial(2, {1: 0.3}, Status.PAUSED),
        trial(3, {1: 1.0}, Status.FAILED),
    ]
    seen = observe(history)
    assert TRUST == 3.0
    assert seen.values == pytest.approx([0.6, 0.8, 0.7 - 0.76 * 0.1, 0.6])
    assert seen.lengths.tolist() == [3, 3, 1, 3]
    assert seen.failed.tolist() == [False, False, False, True]


def test_rungs_are_carried_over_one_after_another():
    """Each step adds exactly 0.1 (slope 1), so that a score at the first rung gains 0.2."""
    history = [
        trial(0, {1: 0.5, 2: 0.6, 4: 0.7}),
        trial(1, {1: 0.4, 2: 0.5, 4: 0.6}),
        trial(2, {1: 0.3, 2: 0.4}, Status.PAUSED),
        trial(3, {1: 0.1}, Status.PAUSED),
    ]
    assert observe(history).values * 0.7 == pytest.approx([0.7, 0.6, 0.5, 0.3])


def test_rungs_that_share_no_candidate_are_taken_to_have_equal_means():
    history = [trial(0, {1: 0.1}, Status.PAUSED), trial(1, {1: 0.3}, Status.PAUSED), trial(2, {4: 0.8})]
    assert observe(history).values * 0.8 == pytest.approx([0.7, 0.9, 0.8])


def test_promotion_of_the_better_half_does_not_bias_the_foretold_scores():
    """True scores after long trainings are known here: the paused ones' mean error is near 0.

    The difference of the two rungs' means, of which the longer one's is of the promoted alone, would be off by 0.05.
    """
    rng = np.random.default_rng(0)
    short = 0.5 + 0.1 * rng.normal(size=400)
    long = 0.8 + 0.6 * (short - 0.5) + 0.02 * rng.normal(size=400)
    promoted = short > np.median(short)
    history = [
        trial(i, {1: short[i], 3: long[i]}) if promoted[i] else trial(i, {1: short[i]}, Status.PAUSED)
        for i in range(400)
    ]
    values = observe(history).values * max(short.max(), long[promoted].max())
    assert abs((values - long)[~promoted].mean()) < 0.01
    assert abs((short + long[promoted].mean() - short.mean() - long)[~promoted].mean()) > 0.01


def test_what_runs_is_pending_until_it_has_a_score_of_a_rung():
    history = [
        trial(0, {1: 0.5, 2: 0.6}, Status.PAUSED),
        trial(1, {1: 0.9}, Status.RUNNING),
        trial(2, {1: 0.5, 2: 0.7, 3: 0.1}, Status.RUNNING),
        trial(3, None, Status.RUNNING),
    ]
    seen = observe(history)
    assert [t.number for t in seen.trials] == [0, 2]
    assert [t.number for t in seen.pending] == [1, 3]
    assert seen.values * 0.9 == pytest.approx([0.6, 0.7])


def test_failures_and_scores_that_are_no_numbers_are_as_bad_as_the_worst():
    history = [
        trial(0, {1: 0.5}),
        trial(1, {1: NAN}),
        trial(2, {1: float("inf")}),
        trial(3, {1: 0.9}, Status.FAILED),
        trial(4, None, Status.REFUSED),
        trial(5, {1: 0.7}),
    ]
    seen = observe(history)
    assert seen.values * 0.9 == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 0.7])
    assert seen.failed.tolist() == [False, True, True, True, True, False]


@pytest.mark.parametrize("history", [[], [trial(0, None, Status.REFUSED)], [trial(0, {1: NAN})]])
def test_nothing_to_learn_from(history):
    assert observe(history).trials == ()


def test_huge_scores_do_not_overflow():
    history = [trial(0, {1: 1.7e308, 2: -1.7e308}), trial(1, {1: -1.7e308}, Status.PAUSED)]
    assert np.isfinite(observe(history).values).all()
