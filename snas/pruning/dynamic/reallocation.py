"""Dynamic sparse training that moves weights between layers: DSR and SNFS. The total is exact after every update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from snas.errors import InputError
from snas.pruning.dynamic.base import Clock, Movement, movements
from snas.pruning.dynamic.options import check_fraction, check_not_negative, check_share, check_whole
from snas.pruning.dynamic.picking import draw, split, strongest
from snas.pruning.dynamic.regrowth import cosine, keep_largest
from snas.pruning.dynamic.support import Support

if TYPE_CHECKING:
    from snas.pruning.goal import Goal


def growths(
    goal: Goal, removed: Mapping[str, int], strength: Mapping[str, float], room: Mapping[str, int]
) -> dict[str, int]:
    """How many weights each layer grows for those removed in all: in proportion to its strength, within its room.

    A pinned layer grows as many as it lost. What a full layer cannot take, the others share in their proportions.

    Args:
        goal: which layers are pinned.
        removed: layer name -> weights just removed.
        strength: layer name -> its claim, at least 0.
        room: layer name -> weights that it lacks now, those just removed included.
    """
    free = [name for name in removed if name not in goal.pinned]
    total = sum(removed[name] for name in free)
    shares = split([strength[name] for name in free], [room[name] for name in free], total)
    return {**removed, **dict(zip(free, shares, strict=True))}


@movements.register("dsr")
@dataclass(kw_only=True)
class Dsr(Movement):
    """DSR: weights below one threshold for all layers go; layers with many survivors grow more ([Mostafa2019] alg. 1).

    After every few steps: (1) all weights of magnitude below H go, but for a layer's largest; (2) H doubles if fewer
    went than the wanted number by more than the tolerance, and is halved if more did; (3) as many weights come, shared
    between layers in proportion to their survivors, at random places of each, at zero. What a full layer cannot take,
    the others share. Layers with a pinned density move weights within themselves only.

    Deviations: the number to move is a share of the kept weights (the source gives numbers per network, 600 for a small
    MLP, 20,000 for WRN-28-2; the authors' later code takes 1 % of all weights, a tenth of the kept ones at its density
    of 10 %); the period is constant (theirs doubles in the course of the training); no layer is emptied.

    Args:
        fraction: share of the kept weights that should move at each update, in (0, 1).
        threshold: H at the begin, above 0 (0.001 in [Mostafa2019]).
        tolerance: relative difference from the wanted number that leaves H alone, in (0, 1) (0.1 in [Mostafa2019]).
        every: steps between updates; at most an epoch (see `Clock.due`).
        until: share of the training after which nothing moves, in (0, 1] (0.8 in the authors' code for CIFAR).

    Raises:
        InputError: for a value outside its range.

    Source:
        [Mostafa2019] H. Mostafa, X. Wang: Parameter efficient training of deep convolutional neural networks by dynamic
        sparse reparameterization, ICML 2019.
    """

    fraction: float = 0.1
    threshold: float = 0.001
    tolerance: float = 0.1
    every: int = 100
    until: float = 0.8

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)
        check_not_negative("threshold", self.threshold)
        if self.threshold == 0:
            raise InputError("threshold is 0, and would stay 0 when doubled; expected a number above 0")
        check_fraction("tolerance", self.tolerance)
        check_whole("every", self.every, 1)
        check_share("until", self.until)
        self._threshold = self.threshold

    def quiet(self, clock: Clock) -> bool:
        """Whether nothing moves after this step; see `Movement.quiet`."""
        return self._rests(clock.after_step())

    def after_step(self, support: Support, goal: Goal, clock: Clock) -> None:
        """Prune, adapt the threshold and grow, where it is time."""
        if self._rests(clock):
            return
        generator = clock.generator()
        stays = {name: self._survivors(support, name, generator) for name in support.masks}
        before, after = support.kept(), {name: int(torch.count_nonzero(mask)) for name, mask in stays.items()}
        removed = {name: before[name] - after[name] for name in before}
        self._adapt(sum(removed.values()), self.fraction * sum(before.values()))
        room = {name: mask.numel() - after[name] for name, mask in stays.items()}
        grown = growths(goal, removed, {name: float(number) for name, number in after.items()}, room)
        support.move({name: mask | draw(~mask, grown[name], generator=generator) for name, mask in stays.items()})

    def tensors(self) -> dict[str, Tensor]:
        """The threshold."""
        return {"threshold": torch.tensor(self._threshold, dtype=torch.float64)}

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        self._threshold = float(state["threshold"])

    def _rests(self, clock: Clock) -> bool:
        return not clock.due(self.every) or clock.progress >= self.until

    def _survivors(self, support: Support, name: str, generator: torch.Generator) -> Tensor:
        """The layer's weights above the threshold; at least its largest."""
        weight, mask = support.weights[name].detach(), support.masks[name]
        above = mask & ~(weight.abs() < self._threshold)  # NaN stays, so that the loss tells it
        return above if bool(above.any()) else keep_largest(weight, mask, 1, generator=generator)

    def _adapt(self, removed: int, wanted: float) -> None:
        if removed < (1 - self.tolerance) * wanted:
            self._threshold *= 2
        elif removed > (1 + self.tolerance) * wanted:
            self._threshold /= 2


@movements.register("snfs")
@dataclass(kw_only=True)
class Snfs(Movement):
    """SNFS, sparse momentum: small weights go, and come where smoothed gradients are largest ([Dettmers2019] alg. 1).

    After each epoch but the last: each layer loses a share of its weights, rounded up, those of smallest magnitude; the
    share falls from `fraction` to 0. As many weights come, shared between layers in proportion to the mean magnitude of
    the smoothed gradients of the weights that they had; within a layer, where that magnitude is largest among the
    weights that it lacks then. They start at zero. What a full layer cannot take, the others share. Layers with a
    pinned density move weights within themselves only.

    Smoothed gradients are m <- beta m + (1 - beta) g of all weights, absent ones too, whatever the optimizer.

    Deviations: the authors' code reads the optimizer's own momentum; it keeps 1 % of a layer's room free, prunes nearly
    full layers less, and makes up for rounding in later epochs. Here the total is exact at once. A layer keeps at least
    one weight when pruned. A weight that is removed and grown at once stays as it is, as there.

    Args:
        fraction: share of a layer's weights that moves at the begin, in (0, 1) ([Dettmers2019] section 4: 0.5).
        beta: smoothing of the gradients, in (0, 1) ([Dettmers2019] section 3: 0.9).
        decay: how the share falls: "cosine", as in the authors' experiments, or "linear".

    Raises:
        InputError: for a value outside its range.

    Source:
        [Dettmers2019] T. Dettmers, L. Zettlemoyer: Sparse networks from scratch: faster training without losing
        performance, arXiv:1907.04840.
    """

    fraction: float = 0.5
    beta: float = 0.9
    decay: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)
        check_fraction("beta", self.beta)
        if self.decay not in ("cosine", "linear"):
            raise InputError(f"decay is {self.decay!r}; choices: cosine, linear")
        self._smoothed: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_step(self, support: Support, goal: Goal, clock: Clock) -> bool:
        """Smooth the gradients of all weights."""
        for name, weight in support.weights.items():
            if name not in self._smoothed:
                self._smoothed[name] = torch.zeros_like(weight)
            elif self._smoothed[name].device != weight.device:  # from a checkpoint
                self._smoothed[name] = torch.empty_like(weight).copy_(self._smoothed[name])
        smoothed = [self._smoothed[name] for name in support.weights]
        torch._foreach_lerp_(smoothed, [support.gradient(name) for name in support.weights], 1 - self.beta)
        return False

    def after_epoch(self, support: Support, goal: Goal, clock: Clock) -> None:
        """Prune and grow, unless the training is over."""
        if clock.progress >= 1:
            return
        generator = clock.generator()
        share = (
            cosine(self.fraction, clock.progress) if self.decay == "cosine" else self.fraction * (1 - clock.progress)
        )
        before, strength, stays = support.kept(), {}, {}
        for name, mask in support.masks.items():
            strength[name] = float(self._smoothed[name][mask].abs().mean(dtype=torch.float64))
            after = max(1, before[name] - math.ceil(share * before[name]))
            stays[name] = keep_largest(support.weights[name], mask, after, generator=generator)
        removed = {name: before[name] - int(torch.count_nonzero(mask)) for name, mask in stays.items()}
        room = {name: mask.numel() - before[name] + removed[name] for name, mask in stays.items()}
        grown = growths(goal, removed, strength, room)
        support.move(
            {
                name: mask | strongest(self._smoothed[name].abs(), grown[name], among=~mask, generator=generator)
                for name, mask in stays.items()
            }
        )

    def tensors(self) -> dict[str, Tensor]:
        """The smoothed gradients."""
        return dict(self._smoothed)

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        self._smoothed = {name: value.clone() for name, value in state.items()}
