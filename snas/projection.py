"""From any wish to counts within limits, exact to the weight: one divisor for all layers (the method of Webster)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snas.densities import Densities, Layer
from snas.errors import InputError

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

LEAST_WISH = 1e-250  # stands for none at all: its ratio to any count is still a number
STRONGEST = 600.0  # exponents that double precision still holds


@dataclass(frozen=True, slots=True)
class Limits:
    """A budget for given layers: what every layer and all together keep at least and at most.

    Made by `snas.budget.Budget.limits`, which refuses what cannot be met.

    Attributes:
        layers: all prunable layers.
        low: fewest weights of each, at least 1.
        high: most weights of each.
        least: fewest of all together.
        most: most of all together; equal to `least` for an exact budget.
        max_flops: operations for one example at most; None: any number.
        least_told: whether `least` is what the user asked for.
    """

    layers: tuple[Layer, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    least: int
    most: int
    max_flops: int | None = None
    least_told: bool = False

    def project(self, wanted: Sequence[float] | Array, total: int | None = None) -> Densities:
        """The counts within the limits that are nearest to a wish, in ratios.

        All layers are scaled by one factor, rounded, and cut to their bounds; the factor is the one that makes the
        total exact. So a wish within the limits is met as it is; a layer that is wished larger, with the others'
        wishes as they were, never gets less, and the others never more. Of all counts n within the bounds and of this
        total, these have the least sum of n^2 / wish; of equal ones an earlier layer gets the weight. Where operations
        are limited too, the total shrinks as far as it must; where the total is exact, layers whose weights are used
        at many positions give way to the others.

        Args:
            wanted: kept weights wished for in each layer, 0 or more, in the order of the layers; need not be whole.
            total: weights of all layers together to aim at; None: as many as wished for.

        Raises:
            InputError: for a wish of the wrong length, or one that is negative, infinite or not a number.

        Example:
            >>> layers = (Layer("a", (10, 10)), Layer("b", (4, 5)))
            >>> Limits(layers, (1, 1), (100, 20), least=12, most=12).project([30.0, 10.0]).kept
            (9, 3)

        Source:
            M. L. Balinski, H. P. Young: Fair representation, 1982, appendix A (divisor methods with bounds).
        """
        wish = np.asarray(wanted, dtype=np.float64)
        if wish.shape != (len(self.layers),):
            raise InputError(f"a wish of shape {wish.shape} for {len(self.layers)} layers; give one number per layer")
        if not (np.isfinite(wish).all() and (wish >= 0).all()):
            wrong = wish[~(np.isfinite(wish) & (wish >= 0))][0]
            raise InputError(f"a layer is wished {wrong} weights; expected a finite number of at least 0")
        low, high = np.array(self.low), np.array(self.high)
        if total is None:
            total = int(np.floor(np.clip(wish, low, high).sum() + 0.5))
        total = min(max(total, self.least), self.most)
        kept = _apportion(wish, low, high, total)
        if self.max_flops is not None and self.flops(kept) > self.max_flops:
            kept = self._cheaper(wish, low, high, total)
        return Densities(self.layers, tuple(kept.tolist()))

    @property
    def smallest(self) -> int:
        """The total at which a search begins: the fewest that the user asked for, else a tenth of the most."""
        return self.least if self.least_told else max(self.least, self.most // 10)

    @property
    def most_within_flops(self) -> int:
        """Most weights that the operations and the layers' bounds allow, where the least that they need is allowed."""
        if self.max_flops is None:
            return sum(self.high)
        left = self.max_flops - self.flops(np.array(self.low))
        kept = sum(self.low)
        for i in np.argsort([layer.positions for layer in self.layers], kind="stable"):
            cost = 2 * self.layers[i].positions
            more = max(0, min(self.high[i] - self.low[i], left // cost))
            kept += more
            left -= more * cost
        return kept

    def flops(self, kept: Sequence[int] | Counts) -> int:
        """Operations of these counts for one example, as `Densities.flops` counts them."""
        positions = np.array([layer.positions for layer in self.layers], dtype=np.int64)
        return 2 * int(np.asarray(kept, dtype=np.int64) @ positions)

    def fewest_flops(self, total: int) -> int:
        """Fewest operations of any counts within the layers' bounds and of this total."""
        return self.flops(self._cheapest(total))

    def _cheapest(self, total: int) -> Counts:
        kept = np.array(self.low)
        for i in np.argsort([layer.positions for layer in self.layers], kind="stable"):
            kept[i] += min(self.high[i] - self.low[i], total - int(kept.sum()))
        return kept

    def _cheaper(self, wish: Array, low: Counts, high: Counts, total: int) -> Counts:
        """Counts within the operations: fewer weights where the budget allows, else other places for them."""
        fits, above = self.least - 1, total
        while fits + 1 < above:  # operations grow with the total
            middle = (fits + above) // 2
            if self._affordable(_apportion(wish, low, high, middle)):
                fits = middle
            else:
                above = middle
        if fits >= self.least:
            return _apportion(wish, low, high, fits)
        return self._elsewhere(wish, low, high)

    def _elsewhere(self, wish: Array, low: Counts, high: Counts) -> Counts:
        """The least total, its weights moved to layers with fewer positions as far as the operations demand."""
        positions = np.array([layer.positions for layer in self.layers], dtype=np.float64)
        relative = (positions - positions.min()) / max(float(np.ptp(positions)), 1.0)

        def tilted(strength: float) -> Counts:
            return _apportion(wish * np.exp(-strength * relative), low, high, self.least)

        weak, strong = 0.0, 1.0
        while not self._affordable(kept := tilted(strong)):
            weak, strong = strong, 2 * strong
            if strong > STRONGEST:
                return self._cheapest(self.least)
        for _ in range(12):  # to a few thousandths
            middle = (weak + strong) / 2
            if self._affordable(trial := tilted(middle)):
                kept, strong = trial, middle
            else:
                weak = middle
        return kept

    def _affordable(self, kept: Counts) -> bool:
        return self.max_flops is None or self.flops(kept) <= self.max_flops


def _apportion(wish: Array, low: Counts, high: Counts, total: int) -> Counts:
    """Whole numbers s * wish, rounded and cut to [low, high], with the one s that gives the total.

    The n-th weight of a layer comes in at s = (n - 1/2) / wish. The weights with the smallest s are kept; of equal ones
    those of the first layer. Any s to begin with leads there, so that rounding errors in it do no harm.
    """
    wish = np.maximum(wish, LEAST_WISH)
    with np.errstate(over="ignore"):  # what overflows is cut to the bounds
        scaled = np.minimum(_scale(wish, low, high, total) * wish, 2.0**52)
    kept: Counts = np.clip(np.floor(scaled + 0.5), low, high).astype(np.int64)
    enters = np.where(kept < high, (kept + 0.5) / wish, np.inf)
    leaves = np.where(kept > low, (kept - 0.5) / wish, -np.inf)

    def add(i: int, number: int) -> None:
        kept[i] += number
        enters[i] = (kept[i] + 0.5) / wish[i] if kept[i] < high[i] else np.inf
        leaves[i] = (kept[i] - 0.5) / wish[i] if kept[i] > low[i] else -np.inf

    missing = total - int(kept.sum())
    while True:
        first, last = int(np.argmin(enters)), len(leaves) - 1 - int(np.argmax(leaves[::-1]))
        if missing > 0:
            add(first, 1)
            missing -= 1
        elif missing < 0:
            add(last, -1)
            missing += 1
        elif (enters[first], first) < (leaves[last], last):
            add(first, 1)
            add(last, -1)
        else:
            return kept


def _scale(wish: Array, low: Counts, high: Counts, total: int) -> float:
    """The s at which s * wish, cut to the bounds but not rounded, sums to the total."""
    if abs(float(np.clip(wish, low, high).sum()) - total) < 0.5:
        return 1.0
    bends = np.unique(np.concatenate([low / wish, high / wish]))
    sums = np.clip(np.multiply.outer(bends, wish), low, high).sum(axis=1)
    above = int(np.searchsorted(sums, total))
    if above == 0 or above == len(bends):
        return float(bends[min(above, len(bends) - 1)])
    rise = sums[above] - sums[above - 1]
    share = (total - sums[above - 1]) / rise if rise > 0 else 1.0
    return float(bends[above - 1] + share * (bends[above] - bends[above - 1]))
