"""snas inside a Ray Tuner: what is proposed, what is learnt, and that a restored searcher goes on as it would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed; pip install 'snas[ray]'")

from ray.tune.search import ConcurrencyLimiter

import snas
from snas.densities import Densities
from snas.errors import InputError, SnasError
from snas.integrations.ray import SnasSearcher
from snas.search_spaces.catalog import open_space
from snas.trials import Status


def searcher_of(strategy: Any = "evolution", **more: Any) -> SnasSearcher:
    given = {"budget": snas.Budget(density=0.1), "metric": "accuracy", "mode": "max", **more}
    return SnasSearcher("lenet-300-100", strategy=strategy, **given)


def report(searcher: Any, trial: str, *values: float, error: bool = False) -> None:
    """The reports of a trial, and its end."""
    results = [{"accuracy": value, "training_iteration": at} for at, value in enumerate(values, 1)]
    for result in results[:-1]:
        searcher.on_trial_result(trial, result)
    searcher.on_trial_complete(trial, results[-1] if results else None, error)


class Seen:
    """Remembers what it is told, and proposes the middle."""

    def ask(self, history: Any, n: int, *, dimensions: int, rng: np.random.Generator) -> Any:
        self.history = history
        return [np.full(dimensions, 0.5) for _ in range(n)]


def test_every_proposal_meets_the_budget_to_the_weight_and_can_be_built() -> None:
    searcher = searcher_of()
    space = open_space("lenet-300-100", input_shape=(1, 8, 8), classes=10)
    proposals = [searcher.suggest(str(number)) for number in range(5)]
    for proposal in proposals:
        densities = Densities.from_counts(space.layers, proposal["kept"])
        assert densities.kept_weights == round(0.1 * space.total_weights)
        assert proposal["densities"] == densities.fractions
        json.dumps(proposal)  # Tune writes configurations
    assert len({json.dumps(proposal) for proposal in proposals}) == 5


def test_the_strategy_is_told_lengths_ends_and_failures() -> None:
    strategy = Seen()
    searcher = searcher_of(strategy)
    for trial in "abcdef":
        searcher.suggest(trial)
    report(searcher, "a", 0.5, 0.6)
    report(searcher, "b", 0.4)
    report(searcher, "c", float("nan"))
    report(searcher, "d", 0.3, error=True)
    report(searcher, "e")
    searcher.on_trial_result("f", {"accuracy": 0.7, "training_iteration": 1})
    searcher.on_trial_complete("somebody else's", {"accuracy": 1.0})
    searcher.suggest("g")
    found = [(str(trial.status), dict(trial.scores)) for trial in strategy.history]
    assert found == [
        ("finished", {1: 0.5, 2: 0.6}),
        ("finished", {1: 0.4}),
        ("failed", {}),
        ("failed", {1: 0.3}),
        ("failed", {}),
        ("running", {1: 0.7}),
    ]


def test_what_is_to_be_small_is_told_as_its_negative() -> None:
    strategy = Seen()
    searcher = searcher_of(strategy, mode="min", metric="loss")
    searcher.suggest("a")
    searcher.on_trial_result("a", {"loss": 0.25, "training_iteration": 3})
    searcher.suggest("b")
    assert dict(strategy.history[0].scores) == {3: -0.25}


@pytest.mark.parametrize("strategy", ["random", "evolution", "bayes"])
def test_a_restored_searcher_goes_on_as_it_would_have(strategy: str, tmp_path: Path) -> None:
    one, two = searcher_of(strategy), searcher_of(strategy)
    for number in range(6):
        one.suggest(str(number))
        report(one, str(number), 0.1 * number, 0.12 * number)
    one.suggest("still running")
    one.save(str(tmp_path / "state"))
    two.restore(str(tmp_path / "state"))
    assert two.history == one.history
    for searcher in (one, two):
        report(searcher, "still running", 0.9)
    assert one.suggest("next") == two.suggest("next")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    json.loads((tmp_path / "state").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no state of a SnasSearcher"),
        ("\x80\x04.", "has no state of a SnasSearcher"),
        ("[]", "has no state of a SnasSearcher"),
        ('{"format": "other"}', "has no state of a SnasSearcher"),
        (
            '{"format": "snas searcher 1", "seed": 1, "dimensions": 3, "numbers": {}, "trials": []}',
            "another space or seed",
        ),
    ],
)
def test_a_file_that_is_no_state_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "state").write_text(content, encoding="utf-8")
    searcher = searcher_of()
    with pytest.raises(InputError, match=message):
        searcher.restore(str(tmp_path / "state"))
    assert searcher.history == ()


def test_settings_and_reports_that_cannot_serve_are_said() -> None:
    with pytest.raises(InputError, match="mode is 'best'; choices: max, min"):
        searcher_of(mode="best")
    with pytest.raises(InputError, match="unknown strategy 'bayess'"):
        searcher_of("bayess")
    searcher = searcher_of(metric=None, mode=None)
    searcher.suggest("a")
    with pytest.raises(InputError, match="not told which metric counts"):
        report(searcher, "a", 0.5)
    assert searcher.set_search_properties("accuracy", "max", {})
    with pytest.raises(SnasError, match="a trial reports accuracy='high'; expected a number"):
        searcher.on_trial_result("a", {"accuracy": "high"})
    report(searcher, "a", 0.5)
    assert searcher.history[0].status is Status.FINISHED


def test_it_works_behind_the_limiter_that_tune_puts_before_searchers() -> None:
    searcher = searcher_of()
    limited = ConcurrencyLimiter(searcher, max_concurrent=1)
    assert limited.suggest("a") is not None
    assert limited.suggest("b") is None
    limited.on_trial_complete("a", {"accuracy": 0.5, "training_iteration": 1})
    assert limited.suggest("b") is not None
    assert [trial.status for trial in searcher.history] == [Status.FINISHED, Status.RUNNING]
