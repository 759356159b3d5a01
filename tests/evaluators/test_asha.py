from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas.errors import InputError
from snas.evaluators.asha import Ladder
from snas.trials import Status, Trial


def trial(number: int, status: Status, scores: dict[int, float]) -> Trial:
    return Trial(number, np.zeros(1), status, scores)


def paused(*scores: dict[int, float]) -> list[Trial]:
    return [trial(number, Status.PAUSED, value) for number, value in enumerate(scores)]


def test_rungs_grow_by_eta_and_end_at_the_maximum():
    assert Ladder(1, 16, 2).rungs == (1, 2, 4, 8, 16)
    assert Ladder(1, 20, 2).rungs == (1, 2, 4, 8, 16, 20)
    assert Ladder(2, 50, 4).rungs == (2, 8, 32, 50)
    assert Ladder(5, 5).rungs == (5,)


@pytest.mark.parametrize(("grace", "maximum", "eta"), [(0, 4, 2), (5, 4, 2), (1, 4, 1), (-1, 4, 2)])
def test_impossible_ladders_are_refused(grace, maximum, eta):
    with pytest.raises(InputError, match="expected"):
        Ladder(grace, maximum, eta)


def test_the_best_half_is_promoted_and_earlier_candidates_win_ties():
    ladder = Ladder(1, 4)
    scores = {0: 0.5, 1: 0.7, 2: 0.7, 3: 0.7, 4: 0.1}
    assert [ladder.decide(number, 1, scores) for number in range(5)] == [
        "pause",
        "promote",
        "promote",
        "pause",
        "pause",
    ]
    assert ladder.decide(0, 4, {0: 0.9}) == "stop"


def test_one_of_three_is_promoted_with_eta_3():
    ladder = Ladder(1, 9, 3)
    assert ladder.decide(2, 1, {0: 0.1, 1: 0.2, 2: 0.3}) == "promote"
    assert ladder.decide(1, 1, {0: 0.1, 1: 0.2, 2: 0.3}) == "pause"
    assert ladder.decide(0, 1, {0: 0.9, 1: 0.2}) == "pause"


def test_promotion_looks_at_the_highest_rung_first():
    history = paused({1: 0.9, 2: 0.5}, {1: 0.8, 2: 0.6}, {1: 0.7}, {1: 0.6})
    assert Ladder(1, 4).next_promotion(history) == (1, 4)


def test_a_promoted_candidate_still_counts_at_its_old_rung():
    # Two have reached rung 1; one may go on, and the best of them has gone already.
    history = [trial(0, Status.RUNNING, {1: 0.9}), trial(1, Status.PAUSED, {1: 0.8})]
    assert Ladder(1, 4).next_promotion(history) is None
    history += [trial(2, Status.PAUSED, {1: 0.1}), trial(3, Status.PAUSED, {1: 0.2})]
    assert Ladder(1, 4).next_promotion(history) == (1, 2)


def test_failed_candidates_are_never_promoted():
    history = [trial(0, Status.FAILED, {1: 0.9}), trial(1, Status.PAUSED, {1: 0.1})]
    assert Ladder(1, 4).next_promotion(history) is None


def test_last_resort_brings_a_lone_candidate_to_the_end():
    ladder = Ladder(1, 4)
    assert ladder.next_promotion(paused({1: 0.3})) is None
    assert ladder.last_resort(paused({1: 0.3})) == (0, 2)
    assert ladder.last_resort(paused({1: 0.9}, {1: 0.3, 2: 0.4})) == (1, 4)
    assert ladder.last_resort([trial(0, Status.FINISHED, {1: 0.3, 4: 0.5}), *paused({1: 0.9})]) is None
    assert ladder.last_resort([]) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(2, 4))
def test_simulated_search_trains_each_rung_with_about_one_in_eta(scores, eta):
    """Run the rule to the end with constant scores: the top floor(n/eta) of a rung, and few more, have gone on."""
    ladder = Ladder(1, eta**3, eta)
    history: list[Trial] = []
    work = 0
    while True:
        step = ladder.next_promotion(history)
        if step is None and len(history) < len(scores):
            history.append(trial(len(history), Status.PAUSED, {1: scores[len(history)]}))
            continue
        step = step or ladder.last_resort(history)
        if step is None:
            break
        number, until = step
        before = history[number]
        status = Status.FINISHED if until == ladder.maximum else Status.PAUSED
        history[number] = trial(number, status, {**before.scores, until: scores[number]})
        work += until - before.epochs
        assert work < 10_000
    assert any(ladder.maximum in item.scores for item in history)
    for rung, above in zip(ladder.rungs, ladder.rungs[1:], strict=False):
        reached = sorted((item for item in history if rung in item.scores), key=lambda t: (-t.scores[rung], t.number))
        for item in reached[: len(reached) // eta]:
            assert above in item.scores
