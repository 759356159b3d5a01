"""Small changes of a point: steps of its coordinates, and weights that move between layers inside a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from snas.budget import Limits
from snas.densities import Densities
from snas.trials import Point

if TYPE_CHECKING:
    from snas.encoding import Encoding
    from snas.search_spaces.base import SearchSpace


def mutate(point: Point, *, sigma: float, rate: float, rng: np.random.Generator) -> Point:
    """Add a normal step of standard deviation `sigma` to each coordinate with probability `rate`, to one at least.

    A step across a bound is reflected: clipping would pile candidates up on densities of exactly 0 and 1, and a layer
    of density 0 is refused.

    Args:
        point: shape (dimensions,), entries in [0, 1].
        sigma: standard deviation, above 0.
        rate: probability, in [0, 1].
        rng: source of randomness.
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


def move_weights(
    densities: Densities, limits: Limits, *, giving: Sequence[int], taking: Sequence[int], weights: int
) -> Densities:
    """Move whole weights from one group of layers to another; within a group ratios stay as they are, if they can.

    Args:
        densities: within the limits.
        limits: what every layer keeps at least and at most.
        giving: indices of the layers that get fewer.
        taking: indices of those that get more, none of them giving.
        weights: how many move, at least 0; fewer where a group has no more to give, or no room for them.

    Returns:
        Densities with the same total; the layers in neither group are as they were.

    Example:
        >>> from snas.budget import Budget
        >>> from snas.densities import Layer
        >>> layers = (Layer("a", (10, 10)), Layer("b", (10, 10)), Layer("c", (4, 5)))
        >>> limits = Budget(weights=60).limits(layers)
        >>> start = Densities.from_counts(layers, {"a": 40, "b": 10, "c": 10})
        >>> move_weights(start, limits, giving=[0], taking=[2], weights=5).kept
        (35, 10, 15)
        >>> move_weights(start, limits, giving=[0, 1], taking=[2], weights=99).kept
        (32, 8, 20)
    """
    kept = np.array(densities.kept, dtype=np.int64)
    low, high = np.array(limits.low), np.array(limits.high)
    spare, room = int((kept - low)[list(giving)].sum()), int((high - kept)[list(taking)].sum())
    weights = min(weights, spare, room)
    for group, change in ((list(giving), -weights), (list(taking), weights)):
        total = int(kept[group].sum()) + change
        layers = tuple(limits.layers[i] for i in group)
        part = Limits(layers, tuple(low[group].tolist()), tuple(high[group].tolist()), total, total)
        kept[group] = part.project(kept[group].astype(np.float64), total).kept
    return Densities(densities.layers, tuple(kept.tolist()))


@dataclass(frozen=True)
class BudgetMutation:
    """Mutates what a point stands for, so that inside a budget of weights none is lost and none appears.

    Layers that share a coordinate are one group. Each group is chosen with probability `rate`, and then gives weights
    to a random subset of the others, or takes them from it: as many as change the side that changes more by a factor of
    10^(spread * sigma * |z|), z being normal: the step that `mutate` takes on a logarithmic coordinate. The total,
    where it is open, and choices between rules and shapes are mutated beside. Without a budget of the whole network,
    the coordinates of densities are mutated by `mutate`.

    Where the layers of a coordinate cannot all have their numbers at once (representations "block" and "depth"), the
    point stands for the nearest that can; the total is exact all the same.

    Attributes:
        encoding: of the search.
        rate: probability that a group or the total is part of it, in [0, 1].
        switch: probability that a choice changes, in [0, 1].
    """

    encoding: Encoding = field(repr=False)
    rate: float = field(kw_only=True)
    switch: float = field(kw_only=True)

    def __call__(self, point: Point, *, sigma: float, rng: np.random.Generator) -> Point:
        """A changed copy of a point.

        Args:
            point: shape (dimensions,), entries in [0, 1].
            sigma: size of a step, above 0, in units of a coordinate.
            rng: source of randomness.
        """
        changed = self._switched(point, rng)
        space = self._space_of(changed)
        if size := space.dimensions:
            changed[:size] = self._shifted(space, changed[:size], sigma, rng)
        return changed

    def first(self, rng: np.random.Generator) -> Point:
        """A point to begin with: uniform, but for shares of a budget, which are from the middle half."""
        point = rng.random(self.encoding.dimensions)
        space = self.encoding.architectures[0]
        if space.scale is not None:
            shares = space.scale.dimensions - space.scale.open_total
            point[:shares] = 0.25 + point[:shares] / 2
        return point

    def _switched(self, point: Point, rng: np.random.Generator) -> Point:
        """Another option of each choice with probability `switch`."""
        changed = np.array(point, dtype=np.float64)
        sizes = self.encoding.options
        for place, options in enumerate(sizes, start=len(point) - len(sizes)):
            if options > 1 and rng.random() < self.switch:
                present = min(int(changed[place] * options), options - 1)
                changed[place] = ((present + rng.integers(1, options)) % options + 0.5) / options
        return changed

    def _space_of(self, point: Point) -> SearchSpace:
        """The architecture of a point, inside the budget."""
        candidate = self.encoding.decode(point)
        return self.encoding.space_of(self.encoding.traits(candidate).get("shape", {}))

    def _shifted(self, space: SearchSpace, values: Point, sigma: float, rng: np.random.Generator) -> Point:
        """Coordinates of densities, changed."""
        scale = space.scale
        if scale is None:
            return mutate(values, sigma=sigma, rate=self.rate, rng=rng)
        owners = space.mixture.argmax(axis=1)
        groups = [[space.free[row] for row in np.flatnonzero(owners == column)] for column in np.unique(owners)]
        sized = scale.open_total and (len(groups) < 2 or rng.random() < self.rate)
        if sized:
            values = np.append(values[:-1], reflect(values[-1:] + sigma * rng.standard_normal(1)))
        before = densities = space.densities(values)
        for giving, taking in self._sides(groups, rng):
            factor = 10 ** min(scale.spread * sigma * abs(rng.standard_normal()), 9.0)
            grown, shrunk = (sum(densities.kept[i] for i in side) for side in (taking, giving))
            weights = max(1, round(min(grown * (factor - 1), shrunk * (1 - 1 / factor))))
            densities = move_weights(densities, scale.limits, giving=giving, taking=taking, weights=weights)
        if densities != before:
            return space.encode(densities)
        return values if sized else mutate(values, sigma=sigma, rate=self.rate, rng=rng)

    def _sides(self, groups: Sequence[list[int]], rng: np.random.Generator) -> list[tuple[list[int], list[int]]]:
        """For each move the layers that give and those that take; one move at least where there are two groups."""
        number = len(groups)
        if number < 2:
            return []
        chosen = rng.random(number) < self.rate
        chosen[rng.integers(number)] |= not chosen.any()
        moves = []
        for group in np.flatnonzero(chosen).tolist():
            others = np.delete(np.arange(number), group)
            partners = rng.choice(others, size=int(rng.integers(1, number)), replace=False)
            sides = (groups[group], [i for partner in partners for i in groups[partner]])
            moves.append(sides if rng.random() < 0.5 else sides[::-1])
        return moves
