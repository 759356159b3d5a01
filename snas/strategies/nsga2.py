"""NSGA-II: a genetic algorithm that looks for a whole front of candidates, high scores against low costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from snas.errors import InputError
from snas.strategies.base import strategies
from snas.strategies.fitness import ranked
from snas.trials import Point, Trial


@strategies.register("nsga2")
class Nsga2:
    """NSGA-II ([Deb2002]) with one child at a time: fronts, crowding, binary tournaments, SBX and polynomial mutation.

    The `population` best of all trials so far are parents: by front of (score, -costs), the lonelier first within a
    front. Scores of different training lengths are never mixed: those trained longer are better, as having been
    chosen for it (`snas.strategies.fitness.ranked`). Replacing one candidate at a time suits trials that finish one by
    one, and finds better fronts than whole generations ([Durillo2009]). Without costs it is a plain genetic algorithm.

    Points are uniform until `population` trials are proposed, given ones included, and one of them has a score.

    Args:
        population: how many trials are parents, at least 2.
        crossover: probability that two parents are crossed, in [0, 1]; else the child is a mutated copy of one.
        eta_crossover: distribution index of the crossover, at least 0; with a high one children resemble a parent.
        eta_mutation: the same of the mutation.
        rate: probability that a coordinate is mutated, in [0, 1]; -1: 1 / dimensions.

    Raises:
        InputError: for an option out of its range.

    Sources:
        [Deb2002] K. Deb et al.: A fast and elitist multiobjective genetic algorithm: NSGA-II; crossover probability
            0.9, both indices 20 and rate 1 / dimensions are its section IV.
        [Deb1995] K. Deb, R. Agrawal: Simulated binary crossover for continuous search space.
        [Durillo2009] J. Durillo et al.: On the effect of the steady-state selection scheme in multi-objective genetic
            algorithms.

    Example:
        >>> parents = [Trial(0, np.array([0.2]), scores={1: 0.9}), Trial(1, np.array([0.3]), scores={1: 0.8})]
        >>> [child] = Nsga2(population=2).ask(parents, 1, dimensions=1, rng=np.random.default_rng(0))
        >>> bool(0 <= child[0] <= 1)
        True
    """

    def __init__(
        self,
        *,
        population: int = 20,
        crossover: float = 0.9,
        eta_crossover: float = 20.0,
        eta_mutation: float = 20.0,
        rate: float = -1.0,
    ) -> None:
        if population < 2:
            raise InputError(f"population is {population}; expected at least 2")
        if not 0 <= crossover <= 1:
            raise InputError(f"crossover is {crossover}; expected 0 <= crossover <= 1")
        for name, eta in (("eta_crossover", eta_crossover), ("eta_mutation", eta_mutation)):
            if not (math.isfinite(eta) and eta >= 0):
                raise InputError(f"{name} is {eta}; expected a number of at least 0")
        if rate != -1 and not 0 <= rate <= 1:
            raise InputError(f"rate is {rate}; expected 0 <= rate <= 1, or -1 for 1 / dimensions")
        self._population = population
        self._crossover = crossover
        self._eta_crossover = eta_crossover
        self._eta_mutation = eta_mutation
        self._rate = rate

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`. The order of `history` does not matter."""
        parents = ranked(history)[: self._population]
        uniform = n if not parents else min(n, max(0, self._population - len(history)))
        points: list[Point] = [rng.random(dimensions) for _ in range(uniform)]
        return points + [self._child(parents, rng) for _ in range(n - uniform)]

    def _child(self, parents: Sequence[Trial], rng: np.random.Generator) -> Point:
        mother, father = (parents[winner(len(parents), rng)].point for _ in range(2))
        child = np.clip(mother, 0.0, 1.0)
        if rng.random() < self._crossover:
            child = cross(child, np.clip(father, 0.0, 1.0), eta=self._eta_crossover, rng=rng)
        rate = 1 / len(child) if self._rate == -1 else self._rate
        return mutate_polynomially(child, eta=self._eta_mutation, rate=rate, rng=rng)


def winner(candidates: int, rng: np.random.Generator) -> int:
    """The place of the better of two drawn without replacement, of candidates with the best first."""
    return int(min(rng.choice(candidates, size=min(2, candidates), replace=False)))


def cross(mother: Point, father: Point, *, eta: float, rng: np.random.Generator) -> Point:
    """One child by simulated binary crossover inside [0, 1] ([Deb1995]; bounded as in Deb's published program).

    With spread factor beta, of density proportional to beta^eta up to 1 and to beta^-(eta + 2) above, cut off where
    a child would leave the cube, the two children lie at the parents' mean plus and minus beta times half their
    distance. Of each coordinate, with probability 1/2, one of the two is taken; else the mother's.

    Args:
        mother: shape (dimensions,), entries in [0, 1].
        father: the same.
        eta: distribution index, at least 0.
        rng: source of randomness.
    """
    low, high = np.minimum(mother, father), np.maximum(mother, father)
    gap = high - low
    crossed = (rng.random(mother.shape) < 0.5) & (gap > 1e-14)
    share, upper = rng.random(mother.shape), rng.random(mother.shape) < 0.5
    apart = np.where(gap > 1e-14, gap, 1.0)
    room = np.where(upper, 1.0 - high, low)
    total = 2.0 - (1.0 + 2.0 * room / apart) ** -(eta + 1.0)  # twice the mass that the cube leaves of the density
    mass = share * total
    inward = mass <= 1.0
    beta = np.where(inward, mass, 1.0 / np.where(inward, 1.0, 2.0 - mass)) ** (1.0 / (eta + 1.0))
    child = (low + high) / 2 + np.where(upper, 0.5, -0.5) * beta * gap
    return np.clip(np.where(crossed, child, mother), 0.0, 1.0)


def mutate_polynomially(point: Point, *, eta: float, rate: float, rng: np.random.Generator) -> Point:
    """Move each coordinate with probability `rate`, one at least; steps fall off as (1 - |step|)^eta.

    Polynomial mutation inside [0, 1], which no step leaves ([Deb2002] section IV, bounded as in Deb's published
    program).

    Args:
        point: shape (dimensions,), entries in [0, 1].
        eta: distribution index, at least 0.
        rate: probability, in [0, 1].
        rng: source of randomness.
    """
    chosen = rng.random(point.shape) < rate
    chosen[rng.integers(len(point))] |= not chosen.any()
    share = rng.random(point.shape)
    down = share < 0.5
    power = eta + 1.0
    below = (2 * share + (1 - 2 * share) * (1 - point) ** power) ** (1 / power) - 1
    above = 1 - (2 * (1 - share) + (2 * share - 1) * point**power) ** (1 / power)
    with_steps = point + np.where(down, below, above)
    return np.clip(np.where(chosen, with_steps, point), 0.0, 1.0)
