"""What the coordinates of a point mean: whose densities they are, and how they become counts inside a budget.

Without a budget a coordinate is a density ([Tessera2021] eq. 4.1). Inside one it is a logarithm: the number of weights
that a layer gets is proportional to base * 10^(spread * (u - 1/2)), where the base is the layer's Erdos-Renyi-kernel
share, so that the middle of the cube is ERK. A last coordinate is the logarithm of the total, where the budget leaves
the total open. Only ratios are left to be searched, and ratios look the same at one per cent as at fifty: a step of
0.1 multiplies a layer's share by the same number, whereas in densities nearly all of the cube lies beyond a budget of
one per cent, and projecting it there would leave most points on its border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snas.densities import Densities, Layer
from snas.projection import Limits

Array = NDArray[np.float64]

SPREAD = 2.0  # decades between the ends of a coordinate, at least
KNOTS = 5  # coordinates of representation "depth"


def blend(layers: Sequence[Layer], free: Sequence[int], representation: str) -> Array:
    """How coordinates add up to the value of each free layer.

    Args:
        layers: all layers.
        free: indices of those that are searched.
        representation: one coordinate per "layer" or "block", one for all ("uniform"), or "depth": one for the first
            and the last layer each, and three along the depth between, with straight lines between them.

    Returns:
        Shape (free layers, coordinates); rows sum to 1.

    Example:
        >>> layers = [Layer(f"fc{i}", (4, 4)) for i in range(7)]
        >>> blend(layers, range(7), "depth")[:4].tolist()
        [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]]
    """
    if representation == "depth":
        return _along_depth(len(free))
    if representation == "uniform":
        return np.ones((len(free), 1 if free else 0))
    names = [layers[i].block if representation == "block" else layers[i].name for i in free]
    distinct = list(dict.fromkeys(names))
    matrix = np.zeros((len(free), len(distinct)))
    matrix[np.arange(len(free)), [distinct.index(name) for name in names]] = 1.0
    return matrix


def _along_depth(number: int) -> Array:
    matrix = np.zeros((number, KNOTS))
    for place in range(number):
        if place == 0:
            matrix[place, 0] = 1.0
        elif place == number - 1:
            matrix[place, -1] = 1.0
        else:
            inner = (KNOTS - 3) * (place - 1) / max(number - 3, 1)
            left = min(int(inner), KNOTS - 4)
            matrix[place, 1 + left] += 1 - (inner - left)
            matrix[place, 2 + left] += inner - left
    return matrix


def base_shares(layers: Sequence[Layer]) -> Array:
    """The layers' shares of the weights under ERK, where nothing caps them: the sum of a shape's sides ([Evci2020]).

    A recurrent or attention weight has the sides of its matrix.
    """
    return np.array([float(sum(layer.shape)) for layer in layers])


@dataclass(frozen=True)
class Scale:
    """The logarithmic reading of a point inside a budget.

    Attributes:
        limits: of the budget for the space's layers.
        mixture: shape (free layers, coordinates), from `blend`.
        free: indices of the free layers.
    """

    limits: Limits
    mixture: Array
    free: tuple[int, ...]

    @property
    def open_total(self) -> bool:
        """Whether the total is a coordinate: the last one."""
        return self.limits.least < self.limits.most

    @cached_property
    def open_ratios(self) -> bool:
        """Whether the mixture's coordinates tell candidates apart; where they do not, a point has none of them."""
        limits, free = self.limits, list(self.free)
        if not self.open_total and limits.most in (sum(limits.low), sum(limits.high)):
            return False
        movable = (np.array(limits.low) < np.array(limits.high))[free]
        return bool(movable.sum() > 1 and self.mixture[movable].any(axis=0).sum() > 1)

    @property
    def dimensions(self) -> int:
        """Length of a point."""
        return (self.mixture.shape[1] if self.open_ratios else 0) + self.open_total

    @cached_property
    def spread(self) -> float:
        """Decades from 0 to 1 on a coordinate: as many as uniform densities need, with a tenth to spare."""
        layers = [self.limits.layers[i] for i in self.free]
        ratios = np.log10([layer.total for layer in layers] / base_shares(layers))
        return max(SPREAD, 1.1 * float(np.ptp(ratios)))

    def decode(self, point: Array) -> Densities:
        """The counts that a point stands for."""
        limits, total = self.limits, self.limits.most
        if self.open_total:
            low, high = math.log(limits.smallest), math.log(limits.most)
            total = round(math.exp(low + float(point[-1]) * (high - low)))
        wish = base_shares(limits.layers)
        if self.open_ratios:
            values = self.mixture @ point[: self.mixture.shape[1]]
            wish[list(self.free)] *= 10 ** (self.spread * (values - 0.5))
        return limits.project(wish, total)

    def encode(self, densities: Densities) -> Array:
        """The point that stands for densities, or for those nearest to them that the cube holds.

        Layers that share coordinates get the mean of their logarithms (least squares).
        """
        point: Array = np.empty(0)
        if self.open_ratios:
            kept = np.maximum(np.array(densities.kept, dtype=np.float64)[list(self.free)], 1.0)
            logs = np.log10(kept / base_shares(self.limits.layers)[list(self.free)]) / self.spread
            values, *_ = np.linalg.lstsq(self.mixture, logs, rcond=None)
            used = self.mixture.any(axis=0)  # of few layers not every knot has one
            point = np.where(used, values - (values[used].max() + values[used].min()) / 2, 0.0) + 0.5
        if self.open_total:
            low, high = math.log(self.limits.smallest), math.log(self.limits.most)
            point = np.append(point, (math.log(max(densities.kept_weights, 1)) - low) / (high - low))
        return np.asarray(np.clip(point, 0.0, 1.0))
