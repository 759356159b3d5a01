"""Gradual pruning: the network gets sparser while it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from snas.errors import InputError
from snas.pruning.dynamic.base import Clock, Movement, movements
from snas.pruning.dynamic.options import check_whole
from snas.pruning.dynamic.support import Support
from snas.pruning.scores import scores

if TYPE_CHECKING:
    from snas.pruning.goal import Goal


@movements.register("gradual")
@dataclass(kw_only=True)
class Gradual(Movement):
    """Prune every few steps, fast at first: the number of weights falls with a cubic schedule ([Zhu2018] eq. 1).

    From n weights at step t0 to n_f at step t1, those after step t are n_f + (n - n_f) (1 - (t - t0) / (t1 - t0))^3:
    the best scores of the ones left. What is gone stays away. Where start and end are equal, all is pruned at once.

    The source prunes each layer to the same sparsity; here the goal's allocation decides, by default the best scores of
    all layers together. It names steps; here the schedule is in shares of the training, and ends exactly at its end,
    whether or not that is a multiple of `every`.

    Args:
        start: share of the training that is over when pruning begins, in [0, end].
        end: share of the training that is over when the goal is reached, in [start, 1].
        every: steps between two cuts ([Zhu2018] section 3: 100 to 1000); at most an epoch.
        score: which weights go first: the smallest ("magnitude", as published), or any ("random", a control).

    Raises:
        InputError: for a value outside its range.

    Source:
        [Zhu2018] M. Zhu, S. Gupta: To prune, or not to prune: exploring the efficacy of pruning for model compression,
        ICLR 2018 workshop.
    """

    starts_dense: ClassVar[bool] = True

    start: float = 0.0
    end: float = 0.75
    every: int = 100
    score: Literal["magnitude", "random"] = "magnitude"

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise InputError(f"start is {self.start} and end is {self.end}; expected 0 <= start <= end <= 1")
        check_whole("every", self.every, 1)
        if self.score not in ("magnitude", "random"):
            raise InputError(f"score is {self.score!r}; gradual pruning needs one without data: magnitude or random")

    def quiet(self, clock: Clock) -> bool:
        """Whether there is no cut after this step; see `Movement.quiet`."""
        return not self._cuts(clock.after_step())

    def after_step(self, support: Support, goal: Goal, clock: Clock) -> None:
        """Cut, where it is time."""
        if not self._cuts(clock):
            return
        first, last = self._span(clock)
        generator, current = clock.generator(), support.freeze()
        batch = support.batch(1, generator=generator)  # no score allowed here looks at it
        values = scores.get(self.score)(support.model, support.layers, batch, generator=generator)
        progress = 1.0 if clock.step == last else (clock.step - first) / (last - first)
        support.move(goal.masks(values, generator=generator, progress=progress, shape="cubic", among=current))

    def _cuts(self, clock: Clock) -> bool:
        first, last = self._span(clock)
        regular = first < clock.step < last and (clock.step - first) % min(self.every, clock.steps_per_epoch) == 0
        return regular or clock.step == last

    def _span(self, clock: Clock) -> tuple[int, int]:
        """Steps that are made when pruning begins, and when it ends."""
        steps = clock.steps_per_epoch * clock.epochs
        # There is nothing to do before the first step.
        return math.floor(self.start * steps), max(1, round(self.end * steps))
