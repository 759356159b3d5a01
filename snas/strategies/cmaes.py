"""Covariance matrix adaptation ([Hansen2016]): a normal distribution that moves, stretches and turns to good points.

The library cmaes does the arithmetic. Its state is rebuilt from the history at every proposal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from snas.errors import InputError
from snas.strategies.base import strategies
from snas.strategies.fitness import ranked
from snas.strategies.mutation import reflect
from snas.trials import Point, Trial

if TYPE_CHECKING:
    from cmaes import CMA, SepCMA


@strategies.register("cmaes")
class CmaEs:
    """CMA-ES ([Hansen2016]), or its separable form ([Ros2008]), which learns a step for each coordinate alone.

    The distribution begins around the best of the trials that the search was given before the strategy's first one,
    or around the middle of the cube, which inside a budget is the Erdos-Renyi-kernel allocation. The others teach it
    in the order of their numbers, a generation of `popsize` at a time; those that have no score yet wait, and let
    later ones go ahead. Within a generation only the order matters: by training length, then score, or with several
    objectives front and loneliness (`snas.strategies.fitness.ranked`); those that failed come last. A trial that lies
    further from the mean than the first distribution would put one, such as a start that was given later, counts as
    if it lay as far as it might ([Hansen2011] section 4, in the metric of the first distribution). Coordinates that
    leave [0, 1] are reflected.

    Args:
        sigma: standard deviation of each coordinate at first, above 0.
        popsize: points in a generation, at least 4; 0: 4 + 3 log(dimensions), rounded down.
        separable: whether covariances are left out; the rest is learned about (dimensions + 2) / 3 times as fast.

    Raises:
        InputError: for an option out of its range.

    Sources:
        [Hansen2016] N. Hansen: The CMA evolution strategy: a tutorial.
        [Hansen2011] N. Hansen: Injecting external solutions into CMA-ES.
        [Ros2008] R. Ros, N. Hansen: A simple modification in CMA-ES achieving linear time and space complexity.

    Example:
        >>> [point] = CmaEs(sigma=1e-6).ask([], 1, dimensions=2, rng=np.random.default_rng(0))
        >>> point.round(3).tolist()
        [0.5, 0.5]
    """

    def __init__(self, *, sigma: float = 0.15, popsize: int = 0, separable: bool = True) -> None:
        if not (math.isfinite(sigma) and sigma > 0):
            raise InputError(f"sigma is {sigma}; expected a number above 0")
        if popsize != 0 and popsize < 4:
            raise InputError(f"popsize is {popsize}; expected at least 4, or 0 for one that suits the dimensions")
        self._sigma = sigma
        self._popsize = popsize
        self._separable = separable

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`. The order of `history` does not matter."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        # Matrices this small gain nothing from threads, and lose much where other work keeps the cores busy.
        with threadpool_limits(1, user_api="blas"):
            optimizer = self._optimizer(first_mean(history, dimensions), seed=int(rng.integers(2**31)))
            for generation in generations(history, optimizer.population_size):
                nearer = (self._shortened(trial.point, optimizer.mean) for trial in generation)
                optimizer.tell([(point, float(place)) for place, point in enumerate(nearer)])
            return [reflect(optimizer.ask()) for _ in range(n)]

    def _optimizer(self, mean: Point, *, seed: int) -> CMA | SepCMA:
        from cmaes import CMA, SepCMA

        kind = SepCMA if self._separable and len(mean) > 1 else CMA  # of one coordinate both are the same
        popsize = self._popsize or 4 + math.floor(3 * math.log(len(mean)))  # [Hansen2016] eq. 48
        return kind(mean, self._sigma, seed=seed, population_size=popsize)

    def _shortened(self, point: Point, mean: Point) -> Point:
        """The point, or one on the way to it that the first distribution might have put there."""
        dimensions = len(point)
        furthest = self._sigma * (math.sqrt(dimensions) + 2 * dimensions / (dimensions + 2))
        distance = float(np.linalg.norm(point - mean))
        return point if distance <= furthest else mean + (point - mean) * (furthest / distance)


def first_mean(history: Sequence[Trial], dimensions: int) -> Point:
    """The best of the trials given before any other, or the middle of the cube where none is or none has a score."""
    own = min((trial.number for trial in history if not trial.given), default=math.inf)
    starts = ranked(trial for trial in history if trial.number < own)
    return np.clip(starts[0].point, 0.0, 1.0) if starts else np.full(dimensions, 0.5)


def generations(history: Sequence[Trial], popsize: int) -> list[list[Trial]]:
    """What the distribution learns from, one generation after another.

    Args:
        history: trials in any order; those given before any other are left out, for where they are says nothing of the
            distribution.
        popsize: how many make a generation; what is left over waits for the next.

    Returns:
        Trials with the lowest numbers first; inside a generation the best first.
    """
    own = min((trial.number for trial in history if not trial.given), default=math.inf)
    taught = (trial for trial in history if trial.number >= own and (trial.failed or trial.scores))
    told = sorted(taught, key=lambda trial: trial.number)
    found = []
    for start in range(0, len(told) - popsize + 1, popsize):
        chunk = told[start : start + popsize]
        first = ranked(chunk)
        known = {trial.number for trial in first}
        found.append([*first, *(trial for trial in chunk if trial.number not in known)])
    return found
