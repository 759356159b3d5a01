"""The contract of a strategy: what every one of them promises, whatever it proposes.

Each check takes a factory, which returns a fresh strategy, and raises AssertionError saying what was asked and what
came back. In a test of your own:

    def test_contract():
        check_strategy(Mine)
"""

# ruff: noqa: S101

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from snas.strategies.base import Strategy, make_strategy
from snas.trials import Point, Status, Trial

Factory = Callable[[], Strategy]

DIMENSIONS = (1, 34, 300)
_SIZE = 24  # Trials in a history: enough for strategies that begin with some uniform points.


def check_strategy(factory: Factory) -> None:
    """Check the whole contract but for other processes; see `check_strategy_by_name`.

    Args:
        factory: returns a new strategy, for example its class.

    Raises:
        AssertionError: naming the promise that is not kept.

    Example:
        >>> class Uniform:
        ...     def ask(self, history, n, *, dimensions, rng):
        ...         return [rng.random(dimensions) for _ in range(n)]
        >>> check_strategy(Uniform)
    """
    for check in CHECKS:
        check(factory)


def check_strategy_by_name(
    name: str, arguments: Mapping[str, Any] | None = None, *, imports: Sequence[str] = ()
) -> None:
    """Check the whole contract of a registered strategy, in this process and against another one.

    Args:
        name: as registered.
        arguments: its options; JSON can hold them.
        imports: modules that register it, where no entry point names them.

    Raises:
        AssertionError: naming the promise that is not kept.
        InputError: for an unknown name or option.
    """
    for module in imports:
        import_module(module)
    check_strategy(lambda: make_strategy(name, arguments))
    check_other_process(name, arguments, imports=imports)


def check_proposals(factory: Factory) -> None:
    """1 and 7 points in 1, 34 and 300 dimensions: as many as asked, arrays of float64 in bounds, all different."""
    for dimensions in DIMENSIONS:
        for history in ("empty", "ordinary"):
            for n in (1, 7):
                _ask(factory(), history, n, dimensions=dimensions)


def check_histories(factory: Factory) -> None:
    """Every odd history is survived: failures, scores that are NaN, infinite or huge, nothing but running trials ..."""
    for history in histories(2):
        _ask(factory(), history, 3, dimensions=2)


def check_seeded(factory: Factory) -> None:
    """The generator decides: the same seed gives the same points, and another seed another beginning."""
    for history in ("empty", "ordinary"):
        points = _ask(factory(), history, 2, dimensions=34, seed=1)
        assert _same(points, _ask(factory(), history, 2, dimensions=34, seed=1)), (
            f"history {history!r}: the same seed gave other points; draw from `rng` alone"
        )
    points = _ask(factory(), "empty", 2, dimensions=34, seed=1)
    assert not _same(points, _ask(factory(), "empty", 2, dimensions=34, seed=2)), (
        "history 'empty': seeds 1 and 2 gave the same points; draw from `rng`"
    )


def check_stateless(factory: Factory) -> None:
    """What was asked before makes no difference: a resumed search goes on as if it had not stopped."""
    used = factory()
    for history in ("empty", "mixed lengths", "ordinary"):
        _ask(used, history, 2, dimensions=3)
    assert _same(_ask(used, "ordinary", 2, dimensions=3), _ask(factory(), "ordinary", 2, dimensions=3)), (
        "a strategy that was asked before gives other points than a new one; keep no state but the history"
    )


def check_history_untouched(factory: Factory) -> None:
    """The history is read, not written, and no proposal shares its memory."""
    history = histories(3)["ordinary"]
    before = _snapshot(history)
    points = factory().ask(history, 3, dimensions=3, rng=np.random.default_rng(0))
    assert _snapshot(history) == before, "the history was changed; copy what is to be changed"
    assert not any(np.shares_memory(point, trial.point) for point in points for trial in history), (
        "a proposal shares memory with a point of the history; return a copy"
    )


def check_global_randomness(factory: Factory) -> None:
    """The global random states of Python, NumPy and torch stay as they are."""
    before = _global_states()
    for history in ("empty", "ordinary"):
        _ask(factory(), history, 2, dimensions=3)
    after = _global_states()
    for library in before:
        assert before[library] == after[library], f"the global random state of {library} changed; draw from `rng` alone"


CHECKS: tuple[Callable[[Factory], None], ...] = (
    check_proposals,
    check_histories,
    check_seeded,
    check_stateless,
    check_history_untouched,
    check_global_randomness,
)


def check_other_process(name: str, arguments: Mapping[str, Any] | None = None, *, imports: Sequence[str] = ()) -> None:
    """A new interpreter, with another hash seed, proposes the same points."""
    request = json.dumps({"name": name, "arguments": dict(arguments or {}), "imports": list(imports)})
    script = "import sys; from snas.testing.strategies import _answer; print(_answer(sys.argv[1]))"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    finished = subprocess.run(
        [sys.executable, "-c", script, request],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert finished.returncode == 0, f"strategy {name!r} raised in another process:\n{finished.stderr}"
    assert finished.stdout.strip() == _answer(request), f"strategy {name!r} proposes other points in another process"


def histories(dimensions: int) -> dict[str, list[Trial]]:
    """Return histories that a strategy can meet, by name; the same ones at every call."""
    rng = np.random.default_rng(20)
    points = rng.random((_SIZE, dimensions))
    scores = rng.random(_SIZE).tolist()
    finished = [Trial(i, points[i], Status.FINISHED, {1: scores[i]}) for i in range(_SIZE)]

    def scored(values: Sequence[float]) -> list[Trial]:
        return [Trial(i, points[i], Status.FINISHED, {1: values[i % len(values)]}) for i in range(_SIZE)]

    mixed = [_at_rung(i, points[i], scores[i], (1, 2, 4)[i % 3]) for i in range(_SIZE)]
    unfinished = [
        Trial(_SIZE, rng.random(dimensions)),
        Trial(_SIZE + 1, rng.random(dimensions), Status.RUNNING, {1: 0.5}),
        Trial(_SIZE + 2, rng.random(dimensions), Status.FAILED, {1: 0.9}),
        Trial(_SIZE + 3, rng.random(dimensions), Status.REFUSED),
    ]
    return {
        "empty": [],
        "ordinary": [*mixed, *unfinished],
        "one trial": finished[:1],
        "running only": [Trial(i, points[i]) for i in range(_SIZE)],
        "failed only": [Trial(i, points[i], (Status.FAILED, Status.REFUSED)[i % 2]) for i in range(_SIZE)],
        "some not finite": scored([0.5, float("nan"), float("inf"), -float("inf"), 0.7]),
        "none finite": scored([float("nan"), float("inf"), -float("inf")]),
        "huge scores": scored([1e308, -1e308, 1.7e308, 0.5]),
        "tiny scores": scored([5e-324, 0.0, -5e-324]),
        "mixed lengths": mixed,
        "constant scores": scored([0.5]),
        "one point": [Trial(i, points[0], Status.FINISHED, {1: scores[i]}) for i in range(_SIZE)],
        "corners": [Trial(i, points[i].round(), Status.FINISHED, {1: scores[i]}) for i in range(_SIZE)],
    }


def _at_rung(number: int, point: Point, score: float, rung: int) -> Trial:
    """A candidate that paused at a rung, its score growing with every epoch."""
    return Trial(number, point, Status.PAUSED, {epoch: score * epoch / 4 for epoch in range(1, rung + 1)})


def _ask(strategy: Strategy, history: str, n: int, *, dimensions: int, seed: int = 0) -> list[Point]:
    """Ask, and check what comes back."""
    asked = f"history {history!r}, n={n}, {dimensions} dimensions"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            points = strategy.ask(
                histories(dimensions)[history], n, dimensions=dimensions, rng=np.random.default_rng(seed)
            )
        except Exception as error:
            raise AssertionError(f"{asked}: raised {type(error).__name__}: {error}") from error
    assert isinstance(points, list), f"{asked}: returned a {type(points).__name__}; expected a list"
    assert len(points) == n, f"{asked}: returned {len(points)} points"
    for point in points:
        assert isinstance(point, np.ndarray), f"{asked}: a point is a {type(point).__name__}; expected an array"
        assert point.shape == (dimensions,), f"{asked}: a point has shape {point.shape}"
        assert point.dtype == np.float64, f"{asked}: a point is of type {point.dtype}; expected float64"
        assert ((point >= 0) & (point <= 1)).all(), f"{asked}: a point leaves [0, 1]: {point}"
    assert len({point.tobytes() for point in points}) == n, f"{asked}: two points are equal"
    return points


def _same(points: Sequence[Point], others: Sequence[Point]) -> bool:
    return all(np.array_equal(point, other) for point, other in zip(points, others, strict=True))


def _snapshot(history: Sequence[Trial]) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.point.tobytes(), trial.status, repr(dict(trial.scores)), trial.kept_weights)
        for trial in history
    ]


def _global_states() -> dict[str, str]:
    import torch

    return {
        "random": repr(random.getstate()),
        "numpy": repr([getattr(part, "tolist", lambda part=part: part)() for part in np.random.get_state()]),  # noqa: NPY002
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
    }


def _answer(request: str) -> str:
    """Proposals, exact to the last bit, of the strategy that `request` describes."""
    asked = json.loads(request)
    for module in asked["imports"]:
        import_module(module)
    strategy = make_strategy(asked["name"], asked["arguments"])
    points = [
        point.tolist() for history in ("empty", "ordinary") for point in _ask(strategy, history, 3, dimensions=34)
    ]
    return json.dumps(points)
