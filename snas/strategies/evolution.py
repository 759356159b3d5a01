"""Ageing evolution: the children of tournament winners replace the oldest ([Real2019], Algorithm 1), not the worst.

Here the generations are asynchronous: every proposal looks at whatever has been scored by then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snas.errors import InputError
from snas.strategies.base import strategies
from snas.trials import Point, Trial


def fitness(trial: Trial) -> tuple[int, float, int]:
    """Order candidates: by training length, then by the score at it, then the earlier one; higher is better.

    Scores of different lengths are never compared. Under successive halving a candidate is trained longer only for
    having outranked others at a length that they share, so that having got further says more than a score does; and,
    unlike comparing two candidates at the longest length both have, the order is total: a tournament's winner does
    not depend on who met whom first.
    """
    return trial.epochs, trial.scores[trial.epochs], -trial.number


def population(history: Sequence[Trial], *, size: int, elites: int) -> list[Trial]:
    """Select who may become a parent.

    Args:
        history: trials in any order.
        size: how many of the youngest scored candidates live.
        elites: how many of the fittest of all times live beyond their age.

    Returns:
        At most `size + elites` trials in the order of their numbers. Those without a score yet, failed, refused, or
        with a last score that is not finite are left out.
    """
    scored = sorted(filter(_is_scored, history), key=lambda trial: trial.number)
    best = {trial.number for trial in sorted(scored, key=fitness, reverse=True)[:elites]}
    oldest = len(scored) - size
    return [trial for age, trial in enumerate(scored) if age >= oldest or trial.number in best]


def tournament(candidates: Sequence[Trial], *, size: int, rng: np.random.Generator) -> Trial:
    """Return the fittest of `size` candidates drawn without replacement (of all, where there are fewer)."""
    drawn = rng.choice(len(candidates), size=min(size, len(candidates)), replace=False)
    return max((candidates[int(i)] for i in drawn), key=fitness)


def mutate(point: Point, *, sigma: float, rate: float, rng: np.random.Generator) -> Point:
    """Add a normal step of standard deviation `sigma` to each coordinate with probability `rate`, to one at least.

    A step across a bound is reflected: clipping would pile candidates up on densities of exactly 0 and 1, and a layer
    of density 0 is refused.

    Args:
        point: shape (dimensions,), entries in [0, 1].
    """
    chosen = rng.random(point.shape) < rate
    chosen[rng.integers(len(point))] |= not chosen.any()
    return reflect(np.where(chosen, point + sigma * rng.standard_normal(point.shape), point))


def reflect(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fold the real line onto [0, 1] as if its ends were mirrors.

    Example:
        >>> reflect(np.array([-0.25, 0.5, 1.25, 2.5])).tolist()
        [0.25, 0.5, 0.75, 0.5]
    """
    folded = np.mod(values, 2.0)
    return np.where(folded > 1.0, 2.0 - folded, folded)


def _is_scored(trial: Trial) -> bool:
    return not trial.failed and bool(trial.scores) and math.isfinite(trial.scores[trial.epochs])


@strategies.register("evolution")
class Evolution:
    """Ageing evolution with elitism; mutation is all that changes a candidate, as in [Real2019].

    The first `population` proposals are uniform, and so is every one until a candidate has a score. Then each is a
    mutated copy of a tournament's winner. Running trials are waited for by nobody: they join when they are scored.

    Args:
        population: how many of the youngest scored candidates live, at least 1.
        tournament: how many of them compete to be the parent, at least 1.
        sigma: standard deviation of a mutation's step, above 0, in units of density.
        rate: probability that a coordinate is mutated, in [0, 1]; at least one is.
        elites: how many of the best of all times stay parents beyond their age; 0 is Real's algorithm.

    Raises:
        InputError: for an option out of its range.

    Example:
        >>> parent = Trial(0, np.array([0.5, 0.5]), scores={1: 0.9})
        >>> [child] = Evolution(population=1).ask([parent], 1, dimensions=2, rng=np.random.default_rng(0))
        >>> bool((child != parent.point).any())
        True
    """

    def __init__(
        self, *, population: int = 20, tournament: int = 5, sigma: float = 0.2, rate: float = 0.2, elites: int = 2
    ) -> None:
        for name, value, lowest in (
            ("population", population, 1),
            ("tournament", tournament, 1),
            ("elites", elites, 0),
        ):
            if value < lowest:
                raise InputError(f"{name} is {value}; expected at least {lowest}")
        if not (math.isfinite(sigma) and sigma > 0):
            raise InputError(f"sigma is {sigma}; expected a number above 0")
        if not 0 <= rate <= 1:
            raise InputError(f"rate is {rate}; expected 0 <= rate <= 1")
        self._population = population
        self._tournament = tournament
        self._sigma = sigma
        self._rate = rate
        self._elites = elites

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`. The order of `history` does not matter."""
        parents = population(history, size=self._population, elites=self._elites)
        uniform = n if not parents else min(n, max(0, self._population - len(history)))
        points: list[Point] = [rng.random(dimensions) for _ in range(uniform)]
        return points + [self._child(parents, rng) for _ in range(n - uniform)]

    def _child(self, parents: Sequence[Trial], rng: np.random.Generator) -> Point:
        parent = tournament(parents, size=self._tournament, rng=rng)
        return mutate(parent.point, sigma=self._sigma, rate=self._rate, rng=rng)
