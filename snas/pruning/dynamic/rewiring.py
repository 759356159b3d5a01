"""Deep R: a random walk in masks, a step at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from snas.pruning.dynamic.base import Clock, Movement, movements
from snas.pruning.dynamic.options import check_not_negative
from snas.pruning.dynamic.picking import places
from snas.pruning.dynamic.support import Support

if TYPE_CHECKING:
    from snas.pruning.goal import Goal


@movements.register("deepr")
@dataclass(kw_only=True)
class DeepR(Movement):
    """Deep R: places have signs; a weight that would change its sign goes, a random one comes ([Bellec2018] alg. 1).

    After each step of the optimizer, every weight w of sign s moves by -lr alpha s + sqrt(2 lr T) nu, with nu a normal
    random number. Those with s w < 0 then go, and as many come at random places of the same layer, the places just left
    included, at zero and with the sign of the place: that of the initial weight, or a random one drawn once before the
    training. Every layer keeps its number of weights, as in the authors' code for MNIST; algorithm 1 has one number for
    all layers together.

    Deviations: the step is that of the rule's optimizer, momentum and weight decay included, not of plain SGD. New
    weights start at exactly zero; the authors' code has 1e-12.

    Args:
        alpha: strength of the L1 regularization, at least 0 (1e-5 in the authors' code for MNIST).
        temperature: T, at least 0. The authors' code for MNIST adds noise of standard deviation 1e-5 lr, which at its
            learning rate of 0.5 is sqrt(2 lr T) with T = 2.5e-11.

    Raises:
        InputError: for a value outside its range.

    Source:
        [Bellec2018] G. Bellec, D. Kappel, W. Maass, R. Legenstein: Deep rewiring: training very sparse deep networks,
        ICLR 2018.
    """

    keeps_layers = True

    alpha: float = 1e-5
    temperature: float = 2.5e-11

    def __post_init__(self) -> None:
        check_not_negative("alpha", self.alpha)
        check_not_negative("temperature", self.temperature)
        self._signs: dict[str, Tensor] = {}
        self._places: dict[str, Tensor] = {}
        self._generator = torch.Generator()

    @torch.no_grad()
    def before_epoch(self, support: Support, goal: Goal, clock: Clock) -> None:
        """Give every place its sign, before the first epoch, and list the kept ones.

        The list changes its order within an epoch and is put in order here, and an epoch has its own random numbers, so
        that a restored training goes on alike. (A generator for every step would take longer than the step.)
        """
        self._generator = clock.generator()
        if not self._signs:
            for name, weight in support.weights.items():
                drawn = torch.randint(2, tuple(weight.shape), generator=self._generator).to(weight) * 2 - 1
                self._signs[name] = torch.where(weight == 0, drawn, weight.sign())
        self._signs = {name: self._signs[name].to(weight) for name, weight in support.weights.items()}
        self._places = {name: mask.reshape(-1).nonzero().reshape(-1) for name, mask in support.masks.items()}

    @torch.no_grad()
    def after_step(self, support: Support, goal: Goal, clock: Clock) -> None:
        """Shrink, shake and rewire."""
        noise = math.sqrt(2 * clock.learning_rate * self.temperature)
        for name, weight in support.weights.items():
            kept = self._places[name]
            signs, values = self._signs[name].take(kept), weight.take(kept)
            values.sub_(signs, alpha=clock.learning_rate * self.alpha)
            if noise:
                values.add_(torch.randn(len(values), generator=self._generator).to(values), alpha=noise)
            weight.put_(kept, values)
            flipped = values * signs < 0
            if bool(flipped.any()):
                self._places[name] = _exchange(support, name, kept, flipped, self._generator)

    def tensors(self) -> dict[str, Tensor]:
        """The sign of every place, as one byte."""
        return {name: sign.to(torch.int8) for name, sign in self._signs.items()}

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        self._signs = dict(state)


def _exchange(support: Support, name: str, kept: Tensor, flipped: Tensor, generator: torch.Generator) -> Tensor:
    """Give the weights that are `flipped` of those `kept` other places; return the numbers of all kept ones then."""
    gone, stays = kept[flipped], kept[~flipped]
    free = ~support.masks[name]
    free.view(-1)[gone] = True
    came = places(free, len(gone), generator=generator)
    support.exchange(name, gone, came)
    return torch.cat((stays, came))
