"""Every registered strategy keeps the published contract, and the contract notices those that do not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from snas.errors import InputError
from snas.strategies.base import make_strategy, strategies
from snas.strategies.random import Random
from snas.testing import check_strategy, check_strategy_by_name
from snas.testing import strategies as contract

BUILT_IN = ("random", "bayes", "bayes-hd", "evolution", "cmaes", "sobol", "nsga2")


class Honest:
    """Keeps the contract; each of the classes below breaks one promise of it."""

    def ask(self, history, n, *, dimensions, rng):
        return [rng.random(dimensions) for _ in range(n)]


class OutOfBounds(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return [point + 0.5 for point in super().ask(history, n, dimensions=dimensions, rng=rng)]


class NotANumber(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return [point * np.nan for point in super().ask(history, n, dimensions=dimensions, rng=rng)]


class OnePoint(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return super().ask(history, 1, dimensions=dimensions, rng=rng)


class OneTooMany(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return super().ask(history, n + 1, dimensions=dimensions, rng=rng)


class WrongShape(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return super().ask(history, n, dimensions=34, rng=rng)


class SinglePrecision(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return [point.astype(np.float32) for point in super().ask(history, n, dimensions=dimensions, rng=rng)]


class Lists(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return [point.tolist() for point in super().ask(history, n, dimensions=dimensions, rng=rng)]


class Matrix(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return rng.random((n, dimensions))


class Repeats(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return [rng.random(dimensions)] * n


class NeedsScores(Honest):
    def ask(self, history, n, *, dimensions, rng):
        if history:
            max(score for trial in history for score in trial.scores.values())
        return super().ask(history, n, dimensions=dimensions, rng=rng)


class OverflowsOnHugeScores(Honest):
    def ask(self, history, n, *, dimensions, rng):
        np.std([score for trial in history for score in trial.scores.values() if np.isfinite(score)] or [0.0])
        return super().ask(history, n, dimensions=dimensions, rng=rng)


class Warns(Honest):
    def ask(self, history, n, *, dimensions, rng):
        warnings.warn("scores are constant", stacklevel=1)
        return super().ask(history, n, dimensions=dimensions, rng=rng)


class FreshEntropy(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return super().ask(history, n, dimensions=dimensions, rng=np.random.default_rng())


class IgnoresTheSeed(Honest):
    def ask(self, history, n, *, dimensions, rng):
        return super().ask(history, n, dimensions=dimensions, rng=np.random.default_rng(len(history)))


class Counts(Honest):
    def __init__(self):
        self.calls = 0

    def ask(self, history, n, *, dimensions, rng):
        self.calls += 1
        return [point / self.calls for point in super().ask(history, n, dimensions=dimensions, rng=rng)]


class SortsTheHistory(Honest):
    def ask(self, history, n, *, dimensions, rng):
        history.sort(key=lambda trial: -trial.epochs)
        return super().ask(history, n, dimensions=dimensions, rng=rng)


class WritesPoints(Honest):
    def ask(self, history, n, *, dimensions, rng):
        for trial in history:
            trial.point[:] = trial.point.clip(0.01, 0.99)
            trial.point[0] = 0.5
        return super().ask(history, n, dimensions=dimensions, rng=rng)


class ReturnsViews(Honest):
    def ask(self, history, n, *, dimensions, rng):
        points = super().ask(history, n, dimensions=dimensions, rng=rng)
        return [trial.point for trial in history][:n] if len(history) == 28 and dimensions == 3 and n == 3 else points


class DrawsFromNumpy(Honest):
    def ask(self, history, n, *, dimensions, rng):
        np.random.random()  # noqa: NPY002
        return super().ask(history, n, dimensions=dimensions, rng=rng)


class DrawsFromTorch(Honest):
    def ask(self, history, n, *, dimensions, rng):
        import torch

        torch.rand(())
        return super().ask(history, n, dimensions=dimensions, rng=rng)


class DrawsFromPython(Honest):
    def ask(self, history, n, *, dimensions, rng):
        import random

        random.random()
        return super().ask(history, n, dimensions=dimensions, rng=rng)


def test_the_built_in_strategies_are_registered():
    assert set(BUILT_IN) <= set(strategies.names())


@pytest.mark.parametrize("name", strategies.names())
def test_strategy_keeps_the_contract(name):
    check_strategy_by_name(name)


def test_options_are_part_of_what_is_checked():
    check_strategy_by_name("evolution", {"population": "3", "parents": "1", "initial": "3", "sigma": 0.5})
    check_strategy_by_name("cmaes", {"separable": "false", "popsize": "5"})


def test_unknown_strategy_is_refused_with_the_choices():
    with pytest.raises(InputError, match="unknown strategy 'baies'; did you mean 'bayes'"):
        make_strategy("baies")


def test_strategy_without_options_refuses_one():
    with pytest.raises(InputError, match="strategy 'random' has no argument 'kappa'; choices: none"):
        make_strategy("random", {"kappa": "1"})


def test_an_honest_strategy_passes():
    check_strategy(Honest)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (OutOfBounds, r"leaves \[0, 1\]"),
        (NotANumber, r"leaves \[0, 1\]"),
        (OnePoint, "n=7, 1 dimensions: returned 1 points"),
        (OneTooMany, "n=1, 1 dimensions: returned 2 points"),
        (WrongShape, r"1 dimensions: a point has shape \(34,\)"),
        (SinglePrecision, "a point is of type float32; expected float64"),
        (Lists, "a point is a list; expected an array"),
        (Matrix, "returned a ndarray; expected a list"),
        (Repeats, "n=7, 1 dimensions: two points are equal"),
        (NeedsScores, "history 'running only'.* raised ValueError"),
        (OverflowsOnHugeScores, "history 'huge scores'.* raised RuntimeWarning"),
        (Warns, "raised UserWarning: scores are constant"),
        (FreshEntropy, "the same seed gave other points"),
        (IgnoresTheSeed, "seeds 1 and 2 gave the same points"),
        (Counts, "keep no state but the history"),
        (SortsTheHistory, "the history was changed"),
        (WritesPoints, "the history was changed"),
        (ReturnsViews, "shares memory with a point of the history"),
        (DrawsFromNumpy, "global random state of numpy changed"),
        (DrawsFromTorch, "global random state of torch changed"),
        (DrawsFromPython, "global random state of random changed"),
    ],
)
def test_a_broken_promise_is_noticed(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_strategy(broken)


def test_every_check_has_a_strategy_that_fails_it_alone():
    culprits = {
        contract.check_proposals: OneTooMany,
        contract.check_histories: NeedsScores,
        contract.check_seeded: IgnoresTheSeed,
        contract.check_stateless: Counts,
        contract.check_history_untouched: SortsTheHistory,
        contract.check_global_randomness: DrawsFromPython,
    }
    assert set(culprits) == set(contract.CHECKS)
    for check, broken in culprits.items():
        with pytest.raises(AssertionError):
            check(broken)
        check(Honest)


def test_a_strategy_that_another_process_does_not_know_is_noticed(monkeypatch):
    monkeypatch.setattr(strategies, "_members", {**strategies._members, "known-here": Honest})
    with pytest.raises(AssertionError, match="'known-here' raised in another process"):
        contract.check_other_process("known-here")


def test_a_hash_dependent_strategy_proposes_other_points_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "hash_dependent_plugin.py").write_text(
        "from snas.strategies.base import strategies\n"
        "@strategies.register('hash-dependent-plugin')\n"
        "class HashDependent:\n"
        "    def ask(self, history, n, *, dimensions, rng):\n"
        "        shift = hash('text') % 1000 / 1000\n"
        "        return [(rng.random(dimensions) + shift) % 1.0 for _ in range(n)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(strategies, "_members", {**strategies._members})
    with pytest.raises(AssertionError, match="other points in another process"):
        check_strategy_by_name("hash-dependent-plugin", imports=["hash_dependent_plugin"])


@pytest.mark.parametrize("dimensions", contract.DIMENSIONS)
def test_histories_are_the_same_at_every_call_and_fit_their_dimensions(dimensions):
    first, second = contract.histories(dimensions), contract.histories(dimensions)
    assert list(first) == list(second)
    for name in first:
        assert contract._snapshot(first[name]) == contract._snapshot(second[name])
        assert [trial.number for trial in first[name]] == list(range(len(first[name])))
        assert all(trial.point.shape == (dimensions,) for trial in first[name])


def test_random_ignores_the_history():
    points = [
        Random().ask(history, 2, dimensions=2, rng=np.random.default_rng(3))
        for history in contract.histories(2).values()
    ]
    expected = np.random.default_rng(3).random((2, 2))
    assert all(np.array_equal(np.stack(pair), expected) for pair in points)
