"""Bayesian optimization: a Gaussian process of the scores, and the point with the highest upper confidence bound.

The surrogate is that of the bayesian-optimization package with its defaults (Matern 5/2, one length scale, fitted by
marginal likelihood). The bound is maximized here, with its exact gradient: the package's finite differences cost one
prediction per coordinate and step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from snas.errors import InputError
from snas.strategies.base import strategies
from snas.strategies.fidelity import observe
from snas.trials import Point, Status, Trial, comparable_length

Array = NDArray[np.float64]
Liar = Literal["min", "mean", "max"]


@strategies.register("bayes")
class Bayes:
    """Gaussian process and upper confidence bound ([Brochu2010]); kappa is 10 as in [Tessera2021] section 4.3.2.

    Points are uniform until `initial` trials are proposed and one of them has a score. From then on each is the
    maximum of mean + kappa * standard deviation under a Gaussian process of `observations`. Several points at once are
    proposed one after another, each taking those before it for running trials.

    Args:
        kappa: weight of the standard deviation, at least 0; a high one explores.
        initial: uniform points to begin with, at least 1.
        liar: the score assumed of a trial without one; see `observations`.
        floor: lowest coordinate that the process may propose, in [0, 1). The uncertainty is greatest in the corners of
            the cube, where a density of exactly 0 would empty a layer and have the candidate refused.

    Raises:
        InputError: for an option out of its range.

    Example:
        >>> [point] = Bayes(initial=1).ask(
        ...     [Trial(0, np.array([0.5]), Status.FINISHED, {1: 0.9})], 1, dimensions=1, rng=np.random.default_rng(0)
        ... )
        >>> bool(0 <= point[0] <= 1)
        True
    """

    def __init__(self, *, kappa: float = 10.0, initial: int = 5, liar: Liar = "mean", floor: float = 0.01) -> None:
        if not (math.isfinite(kappa) and kappa >= 0):
            raise InputError(f"kappa is {kappa}; expected a number of at least 0")
        if initial < 1:
            raise InputError(f"initial is {initial}; expected at least 1 uniform point")
        if liar not in get_args(Liar):
            raise InputError(f"liar is {liar!r}; choices: {', '.join(get_args(Liar))}")
        if not 0 <= floor < 1:
            raise InputError(f"floor is {floor}; expected 0 <= floor < 1")
        self._kappa = kappa
        self._initial = initial
        self._liar: Liar = liar
        self._floor = floor

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`. The order of `history` does not matter."""
        known = sorted(history, key=lambda trial: trial.number)
        for _ in range(n):
            point = self._propose(known, dimensions, rng)
            known.append(Trial(known[-1].number + 1 if known else 0, point))
        return [trial.point for trial in known[-n:]]

    def _propose(self, known: Sequence[Trial], dimensions: int, rng: np.random.Generator) -> Point:
        points, values = observations(known, dimensions=dimensions, liar=self._liar)
        if len(known) < self._initial or not len(points):
            return rng.random(dimensions)
        point = self._maximize(*_merged(points, values), seed=int(rng.integers(2**31)))
        if any(np.array_equal(point, trial.point) for trial in known):
            return rng.random(dimensions)
        return point

    def _maximize(self, points: Array, values: Array, *, seed: int) -> Point:
        """The point of the highest bound, given distinct points, shape (m, dimensions), and values, shape (m,)."""
        from bayes_opt import BayesianOptimization
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        box = {str(i): (0.0, 1.0) for i in range(points.shape[1])}
        bound: Any = _BoundMaximizer(self._kappa, self._floor)
        # The fit warns of length scales at their limits, which constant scores and few points bring about. Matrices of
        # a hundred rows gain nothing from threads, and lose much where other work keeps the cores busy.
        with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
            warnings.simplefilter("ignore")
            optimizer = BayesianOptimization(None, box, acquisition_function=bound, random_state=seed, verbose=0)
            for point, value in zip(points, values, strict=True):
                optimizer.space.register(point, value)
            proposed = optimizer.space.params_to_array(optimizer.suggest())
        return np.clip(np.asarray(proposed, dtype=np.float64), 0.0, 1.0)


def observations(history: Sequence[Trial], *, dimensions: int, liar: Liar = "mean") -> tuple[Array, Array]:
    """Return what the Gaussian process learns from.

    Scores of one training length only are used: the longest at which `dimensions + 1` trials have one, else the
    longest that most trials share (the rule of BOHB, [Falkner2018], whose fallback is random search;
    `comparable_length`). At that length

    - a trial with a finite score counts with it;
    - one that failed, was refused or has a score that is not finite counts as the worst score seen, so that its
      neighbourhood is avoided and it can never win;
    - so does one that is paused below that length: those trained further outranked it;
    - one that is running without a score counts as a constant lie ([Ginsbourger2010]): the minimum, mean
      or maximum of the scores seen. The mean, the default, leaves the process's mean where it is, and only tells it
      that the place is taken; the minimum spreads proposals more, the maximum less.

    With several brackets of successive halving scores are carried over to the longest training instead.

    Args:
        history: trials; any order.
        dimensions: length of their points.
        liar: which lie.

    Returns:
        Points, shape (m, dimensions), and values, shape (m,), in the order of `history`: all of it, or nothing
        (m = 0) where no trial has a score.

    Example:
        >>> history = [
        ...     Trial(0, np.array([0.1]), Status.FINISHED, {1: 0.5, 2: 0.7}),
        ...     Trial(1, np.array([0.2]), Status.FINISHED, {1: 0.6, 2: 0.9}),
        ...     Trial(2, np.array([0.3]), Status.PAUSED, {1: 0.4}),
        ...     Trial(3, np.array([0.4]), Status.FAILED),
        ...     Trial(4, np.array([0.5]), Status.RUNNING),
        ... ]
        >>> observations(history, dimensions=1)[1].round(3).tolist()
        [0.7, 0.9, 0.7, 0.7, 0.8]
    """
    if len({trial.bracket for trial in history}) > 1:
        return _over_brackets(history, dimensions, liar)
    length = comparable_length(history, need=dimensions + 1)
    seen = [trial.scores[length] for trial in history if not trial.failed and length in trial.scores]
    scores = np.array([score for score in seen if math.isfinite(score)], dtype=np.float64)
    if not len(scores):
        return np.empty((0, dimensions)), np.empty(0)
    lie = _lie(scores, liar)
    values = [_value(trial, length, worst=float(scores.min()), lie=lie) for trial in history]
    return np.clip([trial.point for trial in history], 0.0, 1.0), np.array(values)


def _over_brackets(history: Sequence[Trial], dimensions: int, liar: Liar) -> tuple[Array, Array]:
    """The same where there are several brackets: a candidate that pauses early in one was not outranked by those of
    another, so that scores are carried over to the longest training (`fidelity.observe`)."""
    seen = observe(history)
    if not len(seen.values):
        return np.empty((0, dimensions)), np.empty(0)
    known = {trial.number: float(value) for trial, value in zip(seen.trials, seen.values, strict=True)}
    lie = _lie(seen.values[~seen.failed], liar)
    values = [known.get(trial.number, lie) for trial in history]
    return np.clip([trial.point for trial in history], 0.0, 1.0), np.array(values)


def _value(trial: Trial, length: int, *, worst: float, lie: float) -> float:
    score = trial.scores.get(length)
    if trial.failed:
        return worst
    if score is None:
        return worst if trial.status is Status.PAUSED and trial.epochs < length else lie
    return score if math.isfinite(score) else worst


def _lie(scores: Array, liar: Liar) -> float:
    if liar == "mean":
        scale = max(float(np.abs(scores).max()), 1.0)  # The sum of huge scores would overflow.
        return float((scores / scale).mean() * scale)
    return float(scores.min() if liar == "min" else scores.max())


def _merged(points: Array, values: Array) -> tuple[Array, Array]:
    """Average the values of equal points, and scale them into [0, 1], which moves no maximum and cannot overflow."""
    scaled = values / (float(np.abs(values).max()) or 1.0)
    scaled = scaled - scaled.min()
    scaled = scaled / (float(scaled.max()) or 1.0)
    distinct, index = np.unique(points + 0.0, axis=0, return_inverse=True)
    index = index.reshape(-1)
    return distinct, np.bincount(index, weights=scaled) / np.bincount(index)


class _BoundMaximizer:
    """Stands in for the package's acquisition function: the same bound and multi-start, with an exact gradient."""

    def __init__(self, kappa: float, floor: float) -> None:
        self._kappa = kappa
        self._floor = floor

    def suggest(
        self,
        gp: Any,
        target_space: Any,
        n_random: int = 10_000,
        n_smart: int = 10,
        fit_gp: bool = True,
        random_state: Any = None,
    ) -> Array:
        """Return the best of `n_random` points and of L-BFGS-B from `n_smart` of them and from the best trial."""
        from scipy.optimize import minimize

        if fit_gp:
            gp.fit(target_space.params, target_space.target)
        bound = UpperConfidenceBound(gp, self._kappa)
        samples = self._floor + (1 - self._floor) * target_space.random_sample(n_random, random_state=random_state)
        values = bound(samples)
        order = np.argsort(-values, kind="stable")[:n_smart]
        incumbent = target_space.params[np.argmax(target_space.target)]
        best, highest = samples[order[0]], float(values[order[0]])
        for start in [*samples[order], np.clip(incumbent, self._floor, 1.0)]:
            found = minimize(
                bound.negative, start, jac=True, bounds=[(self._floor, 1.0)] * len(start), method="L-BFGS-B"
            )
            if -found.fun > highest:
                best, highest = found.x, -float(found.fun)
        return np.asarray(best, dtype=np.float64)


class UpperConfidenceBound:
    """mean + kappa * standard deviation of a fitted Gaussian process with a Matern 5/2 kernel, and its gradient.

    In units of the normalized targets. With s_i = sqrt(5) |x - x_i| / l, k_i = (1 + s_i + s_i^2 / 3) exp(-s_i) and
    the Cholesky factor L of the kernel matrix, the mean is k . alpha, the variance 1 - |L^-1 k|^2 ([Rasmussen2006]
    Algorithm 2.1), and the gradient of k_i is -5 / (3 l^2) (1 + s_i) exp(-s_i) (x - x_i).
    """

    def __init__(self, gp: Any, kappa: float) -> None:
        """Take over a fitted `sklearn.gaussian_process.GaussianProcessRegressor` with kernel Matern(nu=2.5)."""
        from scipy.linalg import solve_triangular

        self._points: Array = gp.X_train_
        self._alpha: Array = gp.alpha_
        self._scale = float(gp.kernel_.length_scale)
        self._whiten: Array = solve_triangular(gp.L_, np.eye(len(self._points)), lower=True)
        self._kappa = kappa

    def __call__(self, points: Array) -> Array:
        """Return the bound, shape (n,), at `points`, shape (n, dimensions)."""
        from scipy.spatial.distance import cdist

        s = math.sqrt(5) * cdist(points, self._points) / self._scale
        k = (1 + s + s**2 / 3) * np.exp(-s)
        white = k @ self._whiten.T
        variance = 1 - np.einsum("ij,ij->i", white, white)
        return np.asarray(k @ self._alpha + self._kappa * np.sqrt(np.maximum(variance, 1e-12)))

    def negative(self, point: Array) -> tuple[float, Array]:
        """Return minus the bound and minus its gradient, shape (dimensions,), at one point."""
        difference = (point - self._points) / self._scale
        s = np.sqrt(5 * np.einsum("ij,ij->i", difference, difference))
        decay = np.exp(-s)
        k = (1 + s + s**2 / 3) * decay
        white = self._whiten @ k
        deviation = math.sqrt(max(1 - float(white @ white), 1e-12))
        slope = self._alpha - self._kappa / deviation * (white @ self._whiten)
        gradient = (slope * (-5 / (3 * self._scale)) * (1 + s) * decay) @ difference
        return -(float(k @ self._alpha) + self._kappa * deviation), -gradient
