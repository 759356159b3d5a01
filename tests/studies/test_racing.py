"""A race of trials that know beforehand when they reach the goal."""

from __future__ import annotations

from snas.studies.racing import Outcome, race


class Runner:
    """Reaches the goal after `after` steps; a negative number: breaks then."""

    def __init__(self, after):
        self.after, self.taken, self.finished = after, 0, 0

    def advance(self, steps):
        self.taken += steps

    def finish(self):
        self.finished += 1


class Look:
    def reached_by(self, runner):
        if runner.after < 0:
            return None if runner.taken >= -runner.after else False
        return runner.taken >= runner.after


def run(afters, **options):
    runners = [Runner(after) for after in afters]
    return race(runners, [Look() for _ in runners], every=16, **options), runners


def test_trials_are_complete_incomplete_or_infeasible():
    outcomes, runners = run([100, 5000, -40, 16], budget=400)
    assert outcomes == [
        Outcome("complete", 112),
        Outcome("incomplete", 400),
        Outcome("infeasible", 48),
        Outcome("complete", 16),
    ]
    assert [runner.taken for runner in runners] == [112, 400, 48, 16]
    assert [runner.finished for runner in runners] == [1, 1, 0, 1]


def test_a_cap_ends_only_those_that_cannot_be_best():
    free, _ = run([100, 130, 170, 900], budget=4000)
    capped, runners = run([100, 130, 170, 900], budget=4000, cap=1.5)
    assert capped[:3] == free[:3] == [Outcome("complete", 112), Outcome("complete", 144), Outcome("complete", 176)]
    assert capped[3] == Outcome("incomplete", 176)  # 1.5 times 112 is 168, rounded up to a look
    assert max(runner.taken for runner in runners) == 176


def test_a_budget_ends_a_race_that_nobody_wins():
    outcomes, _ = run([900, 900], budget=100, cap=1.5)
    assert outcomes == [Outcome("incomplete", 96)] * 2


def test_who_listens_hears_of_the_end():
    heard = []
    run([40], budget=100, heard=lambda *at: heard.append(at))
    assert heard == [(16, 96), (32, 96), (48, 96)]
