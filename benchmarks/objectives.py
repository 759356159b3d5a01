"""Objectives for search strategies that cost nothing: accuracy as a known function of the layers' weights, with noise.

All have one form: every layer takes something from the log-odds of a right answer, less the more weights it keeps,

    log-odds = best - sum_l a_l ((k_l + s_l) / u_l)^-p_l.

The sum is convex in the numbers of weights, so that the best way to spend a budget is known (`Additive.optimum`), and
with it the regret of any other. Its numbers come from chance (`sensitivity`: how much layers matter differs a
hundredfold) or from networks that were trained (surrogates.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from snas.budget import Budget, Limits
from snas.densities import Layer
from snas.encoding import Encoding
from snas.search_spaces.base import SearchSpace, spaces
from snas.trials import Point

Array = NDArray[np.float64]

TOP, ERK = 0.95, 0.85  # accuracy without any loss, and with the densities of Erdos-Renyi-kernel
NOISE = 0.004  # between seeds: 0.2 to 0.5 points on MNIST and CIFAR-10 where nothing collapses


@dataclass(frozen=True)
class Additive:
    """Losses that add up: see the module's formula. All arrays have shape (layers,).

    Attributes:
        best: log-odds without any loss.
        factors: a, at least 0.
        offsets: s, in weights, at least 0.
        units: u, in weights, above 0.
        powers: p, above 0.
    """

    best: float
    factors: Array
    offsets: Array
    units: Array
    powers: Array

    def loss(self, kept: Sequence[float] | Array) -> float:
        """What the layers take from the log-odds when they keep these numbers of weights."""
        return float(self.factors @ ((np.asarray(kept) + self.offsets) / self.units) ** -self.powers)

    def accuracy(self, kept: Sequence[float] | Array) -> float:
        """Fraction of right answers."""
        return float(expit(self.best - self.loss(kept)))

    def optimum(self, limits: Limits) -> Array:
        """The best numbers of weights for an exact budget, not rounded: no others, whole or not, are better.

        There one more weight gains as much in every layer that is not at a bound ("water-filling"); the logarithm of
        that gain is found by bisection.
        """
        low, high = np.array(limits.low, dtype=np.float64), np.array(limits.high, dtype=np.float64)
        slope = self.factors * self.powers / self.units

        def spend(log_gain: float) -> Array:
            wish = self.units * (slope / np.exp(log_gain)) ** (1 / (self.powers + 1)) - self.offsets
            return np.asarray(np.clip(wish, low, high))

        rich, poor = -200.0, 200.0
        for _ in range(200):
            middle = (rich + poor) / 2
            rich, poor = (middle, poor) if spend(middle).sum() > limits.most else (rich, middle)
        kept = spend(poor)
        left = limits.most - float(kept.sum())
        for i in np.flatnonzero(self.factors == 0):  # those that do not matter take what nobody needs
            more = min(float(high[i] - kept[i]), left)
            kept[i] += more
            left -= more
        return kept


@dataclass(frozen=True)
class Objective:
    """A search whose best answer is known.

    Attributes:
        name: in tables.
        encoding: what points stand for; its budget is exact.
        model: of the accuracy after the full training.
        noise: standard deviation of a full training's accuracy, as a fraction; half of the variance is the
            candidate's own, half differs between epochs.
        epochs: of the full training.
        haste: what short trainings see wrongly: a layer's factor is (epochs / epoch)^haste times as large, shape
            (layers,). They are noisier, too: the standard deviation falls with the cube root of the epoch.
    """

    name: str
    encoding: Encoding
    model: Additive
    noise: float = NOISE
    epochs: int = 1
    haste: Array | None = None

    @property
    def limits(self) -> Limits:
        """Of the budget."""
        scale = self.encoding.architectures[0].scale
        if scale is None:
            raise TypeError(f"objective {self.name!r} has no budget")
        return scale.limits

    @cached_property
    def best(self) -> float:
        """Accuracy that nothing within the budget exceeds."""
        return self.model.accuracy(self.model.optimum(self.limits))

    @cached_property
    def reachable(self) -> float:
        """Accuracy of the point of the cube that is nearest to the optimum."""
        densities = self.limits.project(self.model.optimum(self.limits), self.limits.most)
        return self.accuracy(self.encoding.encode(densities))

    def accuracy(self, point: Point, epoch: int | None = None) -> float:
        """Accuracy of a candidate without noise, after the full training or a shorter one."""
        kept = self.encoding.decode(point).densities.kept
        if epoch is None or self.haste is None:
            return self.model.accuracy(kept)
        factors = self.model.factors * (self.epochs / epoch) ** self.haste
        return replace(self.model, factors=factors).accuracy(kept)

    def score(self, point: Point, epoch: int, *, rng: np.random.Generator) -> float:
        """What a training shows. The generator is the candidate's, and as it was at first for every epoch."""
        own, *others = rng.normal(size=1 + epoch)
        spread = self.noise * (self.epochs / epoch) ** (1 / 3)
        return float(np.clip(self.accuracy(point, epoch) + spread * (own + others[-1]) / np.sqrt(2), 0.0, 1.0))


def sensitivity(layers: Sequence[Layer], density: float, *, name: str, rng: np.random.Generator) -> Objective:
    """Layers that matter differently: factors over two decades, powers from 0.5 to 1.5.

    A layer begins to work with about as many weights as it has rows and columns, over a decade. The factors are scaled
    so that ERK, the middle of the cube, has the accuracy `ERK`.
    """
    encoding = budgeted(layers, density, name)
    sides = np.array([float(sum(layer.shape)) for layer in layers])
    offsets = sides * 10 ** rng.uniform(-0.5, 0.5, len(layers))
    factors = 10 ** rng.uniform(0, 2, len(layers))
    model = Additive(float(logit(TOP)), factors, offsets, offsets, rng.uniform(0.5, 1.5, len(layers)))
    middle = encoding.decode(np.full(encoding.dimensions, 0.5)).densities.kept
    return Objective(name, encoding, replace(model, factors=factors * (logit(TOP) - logit(ERK)) / model.loss(middle)))


def with_rungs(objective: Objective, *, epochs: int, rng: np.random.Generator) -> Objective:
    """The same where accuracy is seen after every epoch, and short trainings are noisier and misjudge layers."""
    return replace(objective, epochs=epochs, haste=rng.uniform(0, 0.6, len(objective.model.factors)))


def budgeted(layers: Sequence[Layer], density: float, name: str) -> Encoding:
    """The search of these layers' densities inside an exact budget; no network is ever built."""

    def factory():
        raise TypeError(f"{name} is an objective without a network")

    space = SearchSpace(name, factory, tuple(layers), input_shape=(3, 32, 32), classes=10)
    return Encoding(space, budget=Budget(density=density))


@cache
def realistic_layers(number: int) -> tuple[Layer, ...]:
    """3: LeNet-300-100 on MNIST; 9: Conv-6; 34: ResNet-32; else a narrow ResNet of that many layers, no shortcuts."""
    known = {3: ("lenet-300-100", (1, 28, 28)), 9: ("conv-6", (3, 32, 32)), 34: ("resnet32", (3, 32, 32))}
    if number in known:
        name, shape = known[number]
        return spaces.get(name)(shape, 10).layers
    layers, channels = [Layer("stem", (16, 3, 3, 3))], 16
    for i in range(number - 2):
        width = 16 * 2 ** (3 * i // (number - 2))
        layers.append(Layer(f"conv{i}", (width, channels, 3, 3)))
        channels = width
    return (*layers, Layer("classifier", (10, channels)))
