"""How fast the gradient changes along a step of a training: the local Lipschitz constant of the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from snas.errors import FailedError, InputError
from snas.masks import weights_of
from snas.pruning.passes import isolated, total_gradient
from snas.pruning.scores import Batch
from snas.seeds import Stream, derive
from snas.training.session import Session
from snas.training.watcher import Watcher

DELTA = 0.1  # as in the source

Vector = list[Tensor]


def local_lipschitz(gradient: Callable[[Vector], Vector], start: Vector, end: Vector, *, delta: float = DELTA) -> float:
    """max over g in {delta, 2 delta, ..., 1} of ||grad f(w + g d) - grad f(w)|| / ||g d||, d = end - start, w = start.

    It is exact for a quadratic whose curvature along d is the same in all directions, and otherwise the largest ratio
    along d: a lower bound of the constant around w.

    Args:
        gradient: of f at weights, which are given and returned as lists of tensors of the same shapes.
        start: weights w_k.
        end: weights w_k+1, after a step.
        delta: distance of the points looked at, as a part of the step, 0 < delta <= 1.

    Returns:
        The estimate; 0 where the step is of length 0.

    Raises:
        InputError: for a delta outside its range.

    Source:
        [Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020,
        eq. 5.16, after [Zhang2020] J. Zhang, T. He, S. Sra, A. Jadbabaie: Why gradient clipping accelerates training.

    Example:
        f(w) = 3/2 ||w||^2 has the gradient 3 w.

        >>> start, end = ([torch.tensor(w, dtype=torch.float64)] for w in ([1.0, 2.0], [0.0, 4.0]))
        >>> round(local_lipschitz(lambda weights: [3 * weights[0]], start, end), 6)
        3.0
    """
    if not 0 < delta <= 1:
        raise InputError(f"delta is {delta}; expected 0 < delta <= 1")
    step = [after - before for after, before in zip(end, start, strict=True)]
    length = _norm(step)
    if length == 0:
        return 0.0
    here = [part.clone() for part in gradient(start)]
    largest = 0.0
    for share in _shares(delta):
        there = gradient([before + share * part for before, part in zip(start, step, strict=True)])
        change = _norm([new - old for new, old in zip(there, here, strict=True)])
        if not math.isfinite(change):
            raise FailedError(f"the gradient is not finite at {share:g} of a step")
        largest = max(largest, change / (share * length))
    return largest


def _shares(delta: float) -> list[float]:
    """delta, 2 delta ... up to 1.

    Example:
        >>> _shares(0.25)
        [0.25, 0.5, 0.75, 1.0]
    """
    number = int(1 / delta + 1e-9)
    return [min(1.0, place * delta) for place in range(1, number + 1)]


def _norm(parts: Vector) -> float:
    return float(torch.sqrt(sum((part.double().square().sum() for part in parts), torch.zeros((), dtype=torch.double))))


class SmoothnessWatcher(Watcher):
    """Measures the local Lipschitz constant every so many steps of a training.

    The gradient is that of the mean loss without weight decay over given examples, with respect to all parameters;
    masked weights count as constants, so that a sparse network is compared by the weights that it has.

    Attributes:
        found: (steps taken, estimate) in the order of the training.
    """

    def __init__(self, batch: Batch, *, every: int, delta: float = DELTA) -> None:
        """Look on.

        Args:
            batch: the examples that f is the mean loss of.
            every: steps from one measurement to the next; the first is of the first step.
            delta: as in `local_lipschitz`.
        """
        if every < 1:
            raise InputError(f"every is {every}; expected at least 1 step")
        self.found: list[tuple[int, float]] = []
        self._batch = batch
        self._every = every
        self._delta = delta
        self._start: Vector | None = None

    def on_gradients(self, session: Session, index: int, steps: int) -> None:
        """Note the weights before the step."""
        if (session.epoch * steps + index) % self._every == 0:
            self._start = [parameter.detach().clone() for parameter in session.model.parameters()]

    def on_step(self, session: Session, index: int, steps: int) -> None:
        """Measure along the step."""
        if self._start is None:
            return
        end = [parameter.detach().clone() for parameter in session.model.parameters()]
        generator = torch.Generator().manual_seed(derive(session.seed, Stream.SCORE))
        layers = session.masks.layers
        with isolated(session.model, layers, self._batch, generator=generator):
            parameters = list(session.model.parameters())
            masks = {
                id(weight): session.masks[layer.name].to(weight.device)
                for layer, weight in zip(layers, weights_of(session.model, layers), strict=True)
            }
            for parameter in parameters:
                parameter.requires_grad_(True)

            def gradient(weights: Vector) -> Vector:
                for parameter, weight in zip(parameters, weights, strict=True):
                    parameter.data.copy_(weight)
                parts = total_gradient(session.model, parameters, self._batch)
                return [
                    part * masks[id(parameter)] if id(parameter) in masks else part
                    for part, parameter in zip(parts, parameters, strict=True)
                ]

            try:
                estimate = local_lipschitz(gradient, self._start, end, delta=self._delta)
            finally:
                for parameter, weight in zip(parameters, end, strict=True):
                    parameter.data.copy_(weight)
        self.found.append((session.epoch * steps + index, estimate))
        self._start = None
