"""Bayesian optimization for many coordinates, few trials and noisy scores, with BoTorch.

A Gaussian process with length scales that suit the number of dimensions (`dimension_scaled`) learns from scores of all
training lengths (`fidelity`); the next points are the best of a box around the point with the highest posterior mean.

Sources:
    [Hvarfner2024] the model; see `dimension_scaled`.
    [Eriksson2019] D. Eriksson, M. Pearce, J. Gardner, R. Turner, M. Poloczek: Scalable global optimization via local
    Bayesian optimization, NeurIPS 2019: the box, and how it grows and shrinks.
    [Ament2023] S. Ament et al.: Unexpected improvements to expected improvement for Bayesian optimization, NeurIPS
    2023: the acquisition function.
    [Knowles2006] J. Knowles: ParEGO, IEEE Transactions on Evolutionary Computation 10(1): several objectives.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snas.errors import InputError
from snas.strategies.base import strategies
from snas.strategies.dimension_scaled import Fitted, fit
from snas.strategies.fidelity import Observations, observe
from snas.trials import Point, Trial

Array = NDArray[np.float64]

SUCCESSES = 3  # in a row, before the box grows ([Eriksson2019] section 2)
SMALLEST, LARGEST = 0.05, 1.6  # side of the box; below the smallest it begins anew
AUGMENTED = 0.05  # weight of the sum beside the worst objective ([Knowles2006] eq. 2)
INCUMBENTS = 8  # points that may be the best so far
SAMPLES = 64  # of the posterior
STARTS, DRAWN, STEPS = 4, 512, 30  # of the search for the best next point
MOVED = 20.0  # coordinates, on average, in which half of the drawn points differ from the center


@strategies.register("bayes-hd")
class BayesHD:
    """Trust-region Bayesian optimization with BoTorch, for many layers and few trials; needs snas[botorch].

    The first point is the middle of the cube (inside a budget: ERK), the next are uniform until `initial` trials are
    in the history, among them points that a search was started with, and one has a score. From then on each has the
    largest expected improvement, of those in a box around the point with the highest posterior mean: the highest
    score among noisy ones is mostly luck. The box is longer where the score changes slowly. It shrinks when the
    trials bring no improvement and grows when they do; improvement, too, is judged by the posterior mean.

    Trials of all training lengths teach (see `fidelity.observe`), and the logarithm of the length is an input of the
    process, so that it can doubt the short ones. Failed and refused trials are as bad as the worst, running ones
    are pending. Where trials have costs, a proposal is for the score and the costs in proportions drawn at random.

    Args:
        initial: points before the process is asked, at least 1.
        side: side of the box to begin with, in (0, 1.6].

    Raises:
        InputError: for an option out of its range, or when BoTorch is not installed.
    """

    def __init__(self, *, initial: int = 5, side: float = 0.8) -> None:
        if initial < 1:
            raise InputError(f"initial is {initial}; expected at least 1 point")
        if not 0 < side <= LARGEST:
            raise InputError(f"side is {side}; expected 0 < side <= {LARGEST}")
        if find_spec("botorch") is None:
            raise InputError("strategy 'bayes-hd' needs BoTorch, which is not installed: pip install \"snas[botorch]\"")
        self._initial = initial
        self._side = side

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`. The order of `history` does not matter."""
        observed = observe(history)
        points: list[Point] = []
        waiting = [trial.point for trial in observed.pending]
        for number in range(len(history), len(history) + n):
            if number == 0:
                point = np.full(dimensions, 0.5)
            elif number < self._initial or not observed.trials:
                point = rng.random(dimensions)
            else:
                point = self._propose(observed, [*waiting, *points], rng)
            taken = any(np.array_equal(point, other) for other in points)
            points.append(rng.random(dimensions) if taken else point)
        return points

    def _propose(self, observed: Observations, waiting: Sequence[Point], rng: np.random.Generator) -> Point:
        seed = int(rng.integers(2**31))
        problem = pose(observed, targets(observed, rng))
        with _quiet(seed):
            model = _Model(problem, fit(problem.inputs, problem.values))
            means = model.means(problem.points)
            means[observed.failed] = -np.inf  # a failure is nowhere to search around, and nothing to be improved on
            side = box_side(means[~observed.failed], dimensions=problem.dimensions, start=self._side)
            center = problem.points[int(np.argmax(means))]
            low, high = box(center, side, model.fitted.lengths[: problem.dimensions])
            best = np.argsort(-means, kind="stable")[: min(INCUMBENTS, int((~observed.failed).sum()))]
            drawn = _draw(center, low, high, rng)
            pending = np.clip(np.array(waiting), 0.0, 1.0) if waiting else None
            return model.most_improving(problem.points[best], pending, drawn, low, high, seed=seed)


@dataclass(frozen=True)
class Problem:
    """What the process is fitted to.

    Attributes:
        inputs: points, and the lengths of their trainings in [0, 1] where they differ; shape (n, dimensions or one
            more).
        values: shape (n,), mean 0, standard deviation 1 (or 0 where all are equal).
        dimensions: of the points.
    """

    inputs: Array
    values: Array
    dimensions: int

    @property
    def points(self) -> Array:
        """The points, shape (n, dimensions)."""
        return self.inputs[:, : self.dimensions]


def pose(observed: Observations, values: Array) -> Problem:
    """Standardize values; where trainings were of different lengths add log(epochs), 1 for the longest, as an input."""
    points = np.clip(np.array([trial.point for trial in observed.trials]), 0.0, 1.0)
    spread = float(values.std())
    standard = (values - values.mean()) / spread if spread > 1e-12 else np.zeros_like(values)
    logs = np.log(observed.lengths)
    if np.ptp(logs) == 0:
        return Problem(points, standard, points.shape[1])
    return Problem(np.column_stack([points, (logs - logs.min()) / np.ptp(logs)]), standard, points.shape[1])


def targets(observed: Observations, rng: np.random.Generator) -> Array:
    """The values to be large, shape (n,): the scores, or, where trials have costs, one scalar of score and costs.

    That is minus the augmented Chebyshev function max_j w_j f_j + 0.05 sum_j w_j f_j of what is to be small, each f
    scaled to [0, 1], with weights w drawn uniformly from the simplex ([Knowles2006] eq. 2). Costs above 0 count by
    their logarithms: twice as many weights are as much from 100 as from 10,000.
    """
    costs = [trial.costs for trial in observed.trials]
    if not costs[0]:
        return observed.values
    small = np.array(costs, dtype=np.float64).T
    columns = [-observed.values, *(np.log(column) if (column > 0).all() else column for column in small)]
    scaled = np.column_stack([(column - column.min()) / (float(np.ptp(column)) or 1.0) for column in columns])
    weighted = rng.dirichlet(np.ones(len(columns))) * scaled
    values: Array = -(weighted.max(axis=1) + AUGMENTED * weighted.sum(axis=1))
    values[observed.failed] = values.min()
    return values


def box_side(means: Array, *, dimensions: int, start: float) -> float:
    """Side of the box after trials with these posterior means, in the order of their numbers.

    A trial is a success where its mean is above all those before. After `SUCCESSES` in a row the side doubles, up to
    `LARGEST`; after max(8, dimensions / 4) failures in a row it halves; below `SMALLEST` it begins anew. TuRBO waits
    for as many failures as there are dimensions, which in 50 trials and 34 dimensions is about once.

    Example:
        >>> box_side(np.array([0.0] + [-1] * 8), dimensions=3, start=0.6)
        0.3
        >>> box_side(np.array([0.0, 1, 2, 3, 4]), dimensions=3, start=0.6)
        1.2
    """
    patience = max(8, dimensions // 4)
    side, up, down = start, 0, 0
    for number in range(1, len(means)):
        success = means[number] > means[:number].max()
        up, down = (up + 1, 0) if success else (0, down + 1)
        if up == SUCCESSES:
            side, up = min(2 * side, LARGEST), 0
        elif down == patience:
            side, down = side / 2, 0
        if side < SMALLEST:
            side = start
    return side


def box(center: Point, side: float, lengths: Array) -> tuple[Array, Array]:
    """Corners of the box: its sides are proportional to the length scales, their geometric mean is `side`.

    Example:
        >>> box(np.array([0.5, 0.1]), 0.2, np.array([0.5, 2.0]))
        (array([0.45, 0.  ]), array([0.55, 0.3 ]))
    """
    half = side / 2 * lengths / np.exp(np.log(lengths).mean())
    return np.clip(center - half, 0.0, 1.0), np.clip(center + half, 0.0, 1.0)


def _draw(center: Point, low: Array, high: Array, rng: np.random.Generator) -> Array:
    """Points of the box: half uniform, half equal to the center but for some coordinates ([Eriksson2019] appendix)."""
    points = low + (high - low) * rng.random((DRAWN, len(center)))
    moved = rng.random((DRAWN // 2, len(center))) < min(1.0, MOVED / len(center))
    points[::2] = np.where(moved, points[::2], center)
    return points


class _Model:
    """BoTorch's Gaussian process with the settings that were fitted, asked at the longest training."""

    def __init__(self, problem: Problem, fitted: Fitted) -> None:
        import torch
        from botorch.models import SingleTaskGP
        from gpytorch.kernels import RBFKernel

        self.fitted = fitted
        self._dimensions = problem.dimensions
        self._extra = problem.inputs.shape[1] - problem.dimensions
        covariance = RBFKernel(ard_num_dims=problem.inputs.shape[1]).double()
        covariance.lengthscale = torch.tensor(fitted.lengths)
        values = torch.tensor(problem.values)[:, None]
        self._gp: Any = SingleTaskGP(
            torch.tensor(problem.inputs),
            values,
            train_Yvar=torch.full_like(values, fitted.noise),
            covar_module=covariance,
            outcome_transform=None,
        )
        self._gp.mean_module.constant = torch.tensor(fitted.mean, dtype=torch.float64)
        self._gp.requires_grad_(False)
        self._gp.eval()

    def means(self, points: Array) -> Array:
        """Posterior means, shape (n,)."""
        mean: Array = self._gp.posterior(self._inputs(points)).mean[:, 0].numpy().copy()
        return mean

    def most_improving(
        self, best: Array, pending: Array | None, drawn: Array, low: Array, high: Array, *, seed: int
    ) -> Point:
        """The point between `low` and `high` with the largest expected improvement over the `best` and `pending`.

        That is the logarithm of noisy expected improvement ([Ament2023] section 4.2), maximized from the best of the
        `drawn` points.
        """
        import torch
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.optim.optimize import optimize_acqf
        from botorch.sampling.normal import SobolQMCNormalSampler

        acquisition = qLogNoisyExpectedImprovement(
            self._gp,
            X_baseline=self._inputs(best),
            X_pending=None if pending is None else self._inputs(pending),
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed),
            prune_baseline=False,
        )
        candidates = self._inputs(drawn)[:, None, :]
        with torch.no_grad():
            order = torch.argsort(acquisition(candidates), descending=True, stable=True)
        found, _ = optimize_acqf(
            acquisition,
            bounds=torch.stack([self._inputs(low[None])[0], self._inputs(high[None])[0]]),
            q=1,
            num_restarts=STARTS,
            batch_initial_conditions=candidates[order[:STARTS]],
            options={"maxiter": STEPS},
        )
        return np.clip(found[0, : self._dimensions].numpy().astype(np.float64), 0.0, 1.0)

    def _inputs(self, points: Array) -> Any:
        import torch

        return torch.tensor(np.column_stack([points, np.ones((len(points), self._extra))]))


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """One thread, no warnings of BoTorch and its libraries, and torch's global generator as it was afterwards.

    Matrices of some hundred rows gain nothing from threads. The warnings are of values that are all equal, and of
    optimizations that end before they converge, as they may.
    """
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threads = torch.get_num_threads()
    with warnings.catch_warnings(), threadpool_limits(1), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.random.manual_seed(seed)
        torch.set_num_threads(1)
        import botorch

        try:
            with botorch.settings.validate_input_scaling(False):
                yield
        finally:
            torch.set_num_threads(threads)
