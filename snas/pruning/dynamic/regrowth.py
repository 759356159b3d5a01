"""Dynamic sparse training with a fixed number of weights per layer: SET and RigL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from snas.pruning.dynamic.base import Clock, Movement, movements
from snas.pruning.dynamic.options import check_fraction, check_share, check_whole
from snas.pruning.dynamic.picking import draw, strongest
from snas.pruning.dynamic.support import Support

if TYPE_CHECKING:
    from snas.pruning.goal import Goal


@movements.register("set")
@dataclass(kw_only=True)
class Set(Movement):
    """SET: after each epoch the weights nearest to zero go, and as many come at random places ([Mocanu2018] alg. 1).

    Of each layer's positive weights the share `zeta` that is smallest goes, and of its negative weights the share that
    is largest (each rounded down); a weight of exactly zero counts as positive. Each layer keeps its number of weights.

    Deviations: new weights start at zero, not at random values. After the last epoch nothing moves; the source removes
    weights then too and grows none, and so ends below its budget. A weight that is removed and drawn again at once
    stays as it is, so that a full layer does not change.

    Args:
        zeta: share of the weights of each sign that moves, in (0, 1) ([Mocanu2018] methods: 0.3).

    Raises:
        InputError: for a value outside its range.

    Source:
        [Mocanu2018] D. Mocanu et al.: Scalable training of artificial neural networks with adaptive sparse connectivity
        inspired by network science, Nature Communications 9.
    """

    keeps_layers = True

    zeta: float = 0.3

    def __post_init__(self) -> None:
        check_fraction("zeta", self.zeta)

    def quiet(self, clock: Clock) -> bool:
        """Every step is; see `Movement.quiet`."""
        return True

    def after_epoch(self, support: Support, goal: Goal, clock: Clock) -> None:
        """Remove and regrow in every layer, unless the training is over."""
        if clock.progress >= 1:
            return
        generator = clock.generator()
        moved = {}
        for name, mask in support.masks.items():
            weight = support.weights[name].detach()
            stays = torch.zeros_like(mask)
            negative = weight < 0
            for side in (mask & ~negative, mask & negative):  # NaN is on one side too, where it is told
                size = int(torch.count_nonzero(side))
                stays |= strongest(weight.abs(), size - int(self.zeta * size), among=side, generator=generator)
            gone = int(torch.count_nonzero(mask)) - int(torch.count_nonzero(stays))
            moved[name] = stays | draw(~stays, gone, generator=generator)
        support.move(moved)


@movements.register("rigl")
@dataclass(kw_only=True)
class RigL(Movement):
    """RigL: small weights go, and as many come where the gradient is largest ([Evci2020] algorithm 1).

    Every few steps, in place of the optimizer's step, each layer drops the share f (1 + cos(pi t / T)) / 2 of its
    weights, rounded down, those of smallest magnitude; t is the time, T the end of the updates. Of the weights that it
    lacks then, the dropped ones included, as many with the largest gradients come, and start at zero. Every layer keeps
    its number of weights.

    As in the authors' code, a weight that is dropped and grown at once stays as it is, so that a full layer does not
    change. Ties are broken at random.

    Args:
        fraction: f, share of a layer's weights that moves at the begin, in (0, 1) ([Evci2020] section 4: 0.3).
        every: steps between updates ([Evci2020] section 4: 100); at most an epoch (see `Clock.due`). The first comes
            after so many steps.
        until: share of the training after which nothing moves, in (0, 1] ([Evci2020] section 4: 0.75).

    Raises:
        InputError: for a value outside its range.

    Source:
        [Evci2020] U. Evci et al.: Rigging the lottery: making all tickets winners, ICML 2020.
    """

    keeps_layers = True

    fraction: float = 0.3
    every: int = 100
    until: float = 0.75

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)
        check_whole("every", self.every, 1)
        check_share("until", self.until)

    def quiet(self, clock: Clock) -> bool:
        """Whether nothing moves in this step; see `Movement.quiet`."""
        return not clock.due(self.every) or clock.progress >= self.until

    def before_step(self, support: Support, goal: Goal, clock: Clock) -> bool:
        """Drop and grow in every layer where it is time; that replaces the optimizer's step."""
        if self.quiet(clock):
            return False
        share = cosine(self.fraction, clock.progress / self.until)
        generator = clock.generator()
        moved = {}
        for name, mask in support.masks.items():
            kept = int(torch.count_nonzero(mask))
            stays = keep_largest(support.weights[name], mask, kept - int(share * kept), generator=generator)
            strength = support.gradient(name).abs()
            moved[name] = stays | strongest(strength, int(share * kept), among=~stays, generator=generator)
        support.move(moved)
        return True


def keep_largest(weight: Tensor, mask: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """The `count` weights of largest magnitude of those in the mask."""
    return strongest(weight.detach().abs(), count, among=mask, generator=generator)


def cosine(start: float, progress: float) -> float:
    """From `start` at progress 0 down to 0 at progress 1, along half a cosine ([Evci2020] section 3).

    Example:
        >>> cosine(0.3, 0.0), round(cosine(0.3, 0.5), 12), cosine(0.3, 1.0)
        (0.3, 0.15, 0.0)
    """
    return start / 2 * (1 + math.cos(math.pi * progress))
