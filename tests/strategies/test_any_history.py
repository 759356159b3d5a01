"""Whatever the history holds, a strategy proposes points of the cube, and what is called best is a finite score."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snas import pareto
from snas.evaluators.asha import Ladder, standings_at
from snas.strategies.base import make_strategy
from snas.strategies.fidelity import observe
from snas.strategies.fitness import is_scored, ranked
from snas.trials import Status, Trial, comparable_length

BUILT_IN = ("random", "bayes", "bayes-hd", "evolution", "cmaes", "sobol", "nsga2")
MODELS = ("bayes", "bayes-hd")  # which take a while for each proposal
LADDER = Ladder(1, 4, 2, 2)
RUNGS = (1, 2, 4)
ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.7e308, -1.7e308, 5e-324, 0.5, 0.5, 1.0)
scores = st.one_of(st.sampled_from(ODD), st.floats(0, 1), st.floats())


@st.composite
def histories(draw: st.DrawFn, most: int = 14) -> list[Trial]:
    """Any history of a search: statuses, lengths, costs, brackets and points of every kind, scores of every kind."""
    dimensions = draw(st.integers(1, 3))
    costs = draw(st.integers(0, 2))
    brackets = draw(st.integers(1, 2))
    some = draw(st.one_of(st.just(scores), st.just(st.just(draw(scores)))))  # or all are equal
    places = st.one_of(st.sampled_from((0.0, 0.5, 1.0)), st.floats(0, 1))
    found = []
    for number in range(draw(st.integers(0, most))):
        status = draw(st.sampled_from(tuple(Status)))
        length = 0 if status is Status.REFUSED else draw(st.sampled_from((0, *RUNGS)))
        point = np.array(draw(st.lists(places, min_size=dimensions, max_size=dimensions)))
        found.append(
            Trial(
                number,
                point,
                status,
                {epoch: draw(some) for epoch in range(1, length + 1)},
                kept_weights=draw(st.integers(0, 1000)),
                costs=tuple(draw(st.floats(0, 1e12)) for _ in range(costs)),
                given=draw(st.booleans()),
                bracket=number % brackets,
            )
        )
    return found


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in MODELS])
@given(history=histories(), n=st.integers(1, 3), seed=st.integers(0, 9))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_strategies_propose_points_whatever_the_scores(name, history, n, seed):
    check_proposals(name, history, n, seed)


@pytest.mark.parametrize("name", MODELS)
@given(history=histories(), seed=st.integers(0, 9))
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
def test_models_propose_points_whatever_the_scores(name, history, seed):
    check_proposals(name, history, 1, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
@given(history=histories(30), n=st.integers(1, 3), seed=st.integers(0, 9))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_strategies_propose_points_whatever_the_scores_often(name, history, n, seed):
    check_proposals(name, history, n, seed)


def check_proposals(name: str, history: list[Trial], n: int, seed: int) -> None:
    dimensions = len(history[0].point) if history else 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = make_strategy(name, {}).ask(history, n, dimensions=dimensions, rng=np.random.default_rng(seed))
    assert len(points) == n
    for point in points:
        assert point.shape == (dimensions,)
        assert ((point >= 0) & (point <= 1)).all(), point  # NaN is neither


@given(history=histories(30))
def test_what_strategies_learn_from_is_finite(history):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = observe(history)
    assert np.isfinite(seen.values).all()
    for trial in ranked(history):
        assert is_scored(trial)
        assert math.isfinite(trial.scores[trial.epochs])
    assert comparable_length(history, 3) in (0, *RUNGS, 3)


@given(history=histories(30))
def test_nobody_is_promoted_for_a_score_that_is_not_finite(history):
    for rung in RUNGS:
        standings = standings_at(history, rung)
        best = max(standings.values(), default=0.0)
        rows = [(trial.scores[rung], *trial.costs) for trial in history if rung in trial.scores]
        if any(all(map(math.isfinite, row)) for row in rows):
            assert math.isfinite(best)
    for promotion in (LADDER.next_promotion(history), LADDER.last_resort(history)):
        if promotion is not None:
            trial = history[promotion[0]]
            assert math.isfinite(trial.scores[trial.epochs])


@given(st.lists(st.tuples(scores, scores), max_size=12))
def test_a_front_has_rows_of_finite_numbers_first(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        order, levels = pareto.order(values), pareto.fronts(values)
    assert sorted(order) == list(range(len(values)))
    finite = [all(map(math.isfinite, row)) for row in values]
    assert sorted(finite, reverse=True) == [finite[place] for place in order]
    if any(finite):
        assert all(finite[place] for place in np.flatnonzero(levels == 0))
    known = [row for row, good in zip(values, finite, strict=True) if good and max(map(abs, row)) < 1e100]
    odd = [row for row, good in zip(values, finite, strict=True) if not good]
    assert pareto.hypervolume(known, [0, 0]) == pareto.hypervolume([*known, *odd], [0, 0])
