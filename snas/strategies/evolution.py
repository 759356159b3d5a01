"""Ageing evolution with weighted recombination; inside a budget, children move weights between layers.

Candidates live for a number of proposals and then leave, as in [Real2019] Algorithm 1, where the oldest and not the
worst is replaced. A child is not a copy of one parent but begins at the weighted mean of several ([Hansen2016] eq. 6
and 49), since scores of sparse networks are noisy: one lucky score does not become everybody's ancestor. Generations
are asynchronous: every proposal looks at whatever has been scored by then.

Sources:
    [Real2019] E. Real et al.: Regularized evolution for image classifier architecture search.
    [Hansen2016] N. Hansen: The CMA evolution strategy: a tutorial.
    [AitElhara2013] O. Ait Elhara, A. Auger, N. Hansen: A median success rule for non-elitist evolution strategies.
"""

from __future__ import annotations

import bisect
import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from snas.errors import InputError
from snas.strategies.base import strategies
from snas.strategies.fitness import ranked
from snas.strategies.mutation import BudgetMutation, mutate
from snas.trials import Point, Trial

if TYPE_CHECKING:
    from snas.encoding import Encoding

SUCCESSES = 0.3  # of children where the step is right
PATIENCE = 4.0  # children that change the step's logarithm by (share of successes - SUCCESSES)
SMALLEST = 0.1  # of the first step


def population(history: Sequence[Trial], *, size: int, elites: int) -> list[Trial]:
    """Select who may become a parent.

    Args:
        history: trials in any order.
        size: how many of the youngest scored candidates live.
        elites: how many of the fittest of all times live beyond their age.

    Returns:
        At most `size + elites` trials, best first. Those without a score yet, failed, refused, or with a last score
        that is not finite are left out.
    """
    order = ranked(history)
    youngest = {trial.number for trial in sorted(order, key=lambda trial: -trial.number)[:size]}
    return [trial for place, trial in enumerate(order) if place < elites or trial.number in youngest]


def tournament(candidates: Sequence[Trial], *, size: int, winners: int, rng: np.random.Generator) -> list[Trial]:
    """Return the best `winners` of `size` candidates drawn without replacement (of all, where there are fewer).

    Args:
        candidates: best first.
        size: how many are drawn.
        winners: how many of them are returned, best first.
        rng: source of randomness.
    """
    drawn = rng.choice(len(candidates), size=min(size, len(candidates)), replace=False)
    return [candidates[int(i)] for i in sorted(drawn)[:winners]]


def recombination_weights(number: int) -> list[float]:
    """Weights of the mean of `number` parents, best first: log(number + 1/2) - log(rank), scaled to sum to 1.

    As [Hansen2016] eq. 49 has it, for the better half of a population of 2 * number.

    Example:
        >>> [round(weight, 3) for weight in recombination_weights(3)]
        [0.637, 0.285, 0.078]
    """
    weights = [math.log(number + 0.5) - math.log(rank) for rank in range(1, number + 1)]
    return [weight / sum(weights) for weight in weights]


def step_size(history: Sequence[Trial], *, sigma: float, initial: int, parents: int) -> float:
    """How far children go: shorter while few of them get among the best of those before them.

    A child succeeds that outranks the `parents`-th best of all earlier candidates. Each one multiplies the step by
    exp((success - 0.3) / 4), within a tenth of `sigma` and `sigma`. It is a success rule like that of [AitElhara2013],
    where children are compared with a quantile of the population before them: since the history does not tell whose
    child a candidate is, it cannot be compared with its parent.

    Args:
        history: trials in any order; those that were given and the `initial` first are nobody's children.
        sigma: the first step.
        initial: how many candidates are drawn uniformly.
        parents: the rank that counts as a success.
    """
    places = {trial.number: place for place, trial in enumerate(ranked(history))}
    given = {trial.number for trial in history if trial.given}
    lowest, log_step = math.log(SMALLEST), 0.0
    before: list[int] = []
    for number in sorted(places):
        if number >= initial and number not in given and before:
            success = places[number] < before[min(parents, len(before)) - 1]
            log_step = min(max(log_step + (success - SUCCESSES) / PATIENCE, lowest), 0.0)
        bisect.insort(before, places[number])
    return sigma * math.exp(log_step)


@strategies.register("evolution")
class Evolution:
    """Ageing evolution: children of the mean of several tournament winners, with a step that adapts itself.

    Until `initial` trials are proposed and one of them has a score, points are uniform; inside a budget those of
    densities are from the middle half of each coordinate, since the middle is the Erdos-Renyi-kernel allocation. Then
    each is the weighted mean of `parents` living candidates, changed: every coordinate takes a step with probability
    `rate`, and inside a budget weights move from some layers to others instead
    (`snas.strategies.mutation.BudgetMutation`). Running trials are waited for by nobody: they join when they are
    scored. With several objectives the order is by front and loneliness ([Deb2002]), and a child has one parent, the
    winner of a tournament of two: the mean of a large and a small network resembles neither.

    Args:
        population: how many of the youngest scored candidates live, at least 1.
        tournament: how many of them, drawn at random, compete to be among the parents, at least 1.
        parents: how many of these are recombined, at least 1; with 1 mutation alone changes a candidate, as in
            [Real2019].
        initial: uniform points to begin with, trials that the search was given included, at least 1.
        sigma: standard deviation of a mutation's step at first, above 0, in units of a coordinate.
        rate: probability that a coordinate is mutated, in [0, 1]; at least one is.
        switch: probability that a choice between rules or shapes is made anew, in [0, 1].
        elites: how many of the best of all times stay parents beyond their age, at least 0.
        adapt: whether the step adapts itself (`step_size`).

    Raises:
        InputError: for an option out of its range.

    Example:
        >>> parent = Trial(0, np.array([0.5, 0.5]), scores={1: 0.9})
        >>> [child] = Evolution(initial=1).ask([parent], 1, dimensions=2, rng=np.random.default_rng(0))
        >>> bool((child != parent.point).any())
        True
    """

    def __init__(
        self,
        *,
        population: int = 20,
        tournament: int = 20,
        parents: int = 10,
        initial: int = 8,
        sigma: float = 0.25,
        rate: float = 0.35,
        switch: float = 0.15,
        elites: int = 2,
        adapt: bool = True,
    ) -> None:
        for name, value, lowest in (
            ("population", population, 1),
            ("tournament", tournament, 1),
            ("parents", parents, 1),
            ("initial", initial, 1),
            ("elites", elites, 0),
        ):
            if value < lowest:
                raise InputError(f"{name} is {value}; expected at least {lowest}")
        if not (math.isfinite(sigma) and sigma > 0):
            raise InputError(f"sigma is {sigma}; expected a number above 0")
        for name, share in (("rate", rate), ("switch", switch)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share}; expected 0 <= {name} <= 1")
        self._population = population
        self._tournament = tournament
        self._parents = parents
        self._initial = initial
        self._sigma = sigma
        self._rate = rate
        self._switch = switch
        self._elites = elites
        self._adapt = adapt
        self._mutation: BudgetMutation | None = None

    def bind(self, encoding: Encoding) -> Evolution:
        """Return the same strategy for points of this encoding: its children move weights, and make choices anew."""
        bound = copy.copy(self)
        bound._mutation = BudgetMutation(encoding, rate=self._rate, switch=self._switch)
        return bound

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`. The order of `history` does not matter."""
        living = population(history, size=self._population, elites=self._elites)
        uniform = n if not living else min(n, max(0, self._initial - len(history)))
        points = [self._first(dimensions, rng) for _ in range(uniform)]
        sigma = self._sigma
        if self._adapt and uniform < n:
            sigma = step_size(history, sigma=sigma, initial=self._initial, parents=self._parents)
        return points + [self._child(living, sigma, rng) for _ in range(n - uniform)]

    def _first(self, dimensions: int, rng: np.random.Generator) -> Point:
        return rng.random(dimensions) if self._mutation is None else self._mutation.first(rng)

    def _child(self, living: Sequence[Trial], sigma: float, rng: np.random.Generator) -> Point:
        several = any(trial.costs for trial in living)
        size, winners = (min(self._tournament, 2), 1) if several else (self._tournament, self._parents)
        parents = tournament(living, size=size, winners=winners, rng=rng)
        weights = recombination_weights(len(parents))
        centre = np.clip(np.average([trial.point for trial in parents], axis=0, weights=weights), 0.0, 1.0)
        if self._mutation is None:
            return mutate(centre, sigma=sigma, rate=self._rate, rng=rng)
        if number := len(self._mutation.encoding.options):  # a choice has no mean: each is some parent's
            origins = rng.choice(len(parents), size=number, p=weights)
            centre[-number:] = [parents[i].point[len(centre) - number + k] for k, i in enumerate(origins)]
        return self._mutation(centre, sigma=sigma, rng=rng)
