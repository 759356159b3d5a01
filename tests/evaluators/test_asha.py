from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas.errors import InputError
from snas.evaluators.asha import Ladder, standings_at
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


# Brackets


def test_brackets_get_their_shares_at_any_time_worked_by_hand():
    # Rungs 1, 2, 4: bracket 0 has weight 3/3, bracket 1 has 3/2 * 1/2 = 3/4, so 4 candidates to 3.
    ladder = Ladder(1, 4, 2, brackets=2)
    assert [ladder.bracket_of(number) for number in range(14)] == [0, 1, 0, 1, 0, 1, 0] * 2
    assert [Ladder(1, 4).bracket_of(number) for number in range(5)] == [0] * 5
    assert [ladder.rungs_of(number) for number in range(2)] == [(1, 2, 4), (2, 4)]
    assert [ladder.next_rung(epochs, 1) for epochs in range(5)] == [2, 2, 4, 4, 4]
    assert [ladder.next_rung(epochs, 0) for epochs in range(5)] == [1, 2, 4, 4, 4]


@pytest.mark.parametrize(("eta", "maximum", "brackets"), [(2, 16, 3), (3, 27, 4), (2, 20, 6)])
def test_brackets_cost_about_the_same(eta, maximum, brackets):
    ladder = Ladder(1, maximum, eta, brackets)
    cost = [0.0] * brackets
    for number in range(3000):
        before, share = 0, 1.0
        for rung in ladder.rungs_of(number):
            cost[ladder.bracket_of(number)] += share * (rung - before)
            before, share = rung, share / eta
    assert max(cost) < 2 * min(cost)


@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 300))
def test_a_bracket_is_the_same_however_far_one_looks(eta, brackets, number):
    ladder = Ladder(1, eta**3, eta, brackets)
    # The greedy rule again, from its words: the candidate goes where its arrival leaves the shares fullest last.
    weights = [4 / (4 - s) / eta**s for s in range(brackets)]
    counts = [0] * brackets
    for _ in range(number + 1):
        wanted = [(counts[s] + 0.5) / weights[s] for s in range(brackets)]
        last = wanted.index(min(wanted))
        counts[last] += 1
    assert ladder.bracket_of(number) == last


def test_too_many_brackets_are_refused():
    assert Ladder(1, 4, 2, brackets=3).rungs_of(2) in ((1, 2, 4), (2, 4), (4,))
    for brackets in (0, 4):
        with pytest.raises(InputError, match=f"brackets is {brackets}; expected"):
            Ladder(1, 4, 2, brackets=brackets)


def test_candidates_of_different_brackets_are_not_compared():
    ladder = Ladder(1, 4, 2, brackets=2)
    # 0 and 2 wait at epoch 1, 1 and 3 at epoch 2; the far better scores of the first two mean nothing there.
    history = paused({1: 0.9}, {1: 0.1, 2: 0.2}, {1: 0.5}, {1: 0.1, 2: 0.1})
    assert ladder.next_promotion(history) == (1, 4)
    # One alone at a rung of its bracket is the best of nobody: bracket 0 goes on, among two.
    assert ladder.next_promotion(history[:3]) == (0, 2)
    # At rung 2 candidate 0 now is alone in its bracket, and candidate 1 in its own.
    history[0] = trial(0, Status.PAUSED, {1: 0.9, 2: 0.95})
    assert ladder.next_promotion(history[:3]) is None
    assert ladder.last_resort(history[:3]) == (0, 4)


# Several objectives


def costly(number: int, score: float, cost: float) -> Trial:
    return Trial(number, np.zeros(1), Status.PAUSED, {1: score}, 0, (cost,))


def test_standings_are_scores_where_nothing_else_counts():
    assert standings_at(paused({1: 0.5}, {1: 0.7, 2: 0.9}, {}), 1) == {0: 0.5, 1: 0.7}
    assert standings_at(paused({1: 0.5}), 2) == {}


def test_with_costs_standings_are_places_by_front_and_loneliness():
    # Front: 0 and 3 are its ends, 1 is between them; 2 is outdone by 1.
    history = [costly(0, 0.9, 100), costly(1, 0.8, 10), costly(2, 0.7, 50), costly(3, 0.6, 5)]
    assert standings_at(history, 1) == {0: 0, 3: -1, 1: -2, 2: -3}
    ladder = Ladder(1, 4)
    assert ladder.next_promotion(history) == (0, 2)
    history[0] = Trial(0, np.zeros(1), Status.FINISHED, {1: 0.9, 2: 0.9, 4: 0.9}, 0, (100,))
    assert ladder.next_promotion(history) == (3, 2)  # the cheapest, though the least accurate
