"""The seam between a training and what moves its mask.

A movement is told when an epoch or a step begins and ends, and may move the mask then. To add one, derive from
`Movement`, override the hooks it needs, and register it; its options are the fields of the data class:

    @movements.register("mine")
    @dataclass(kw_only=True)
    class Mine(Movement):
        \"\"\"One line that says what it is.\"\"\"

        every: int = 100

        def before_step(self, support, goal, clock):
            if not clock.due(self.every):
                return False
            support.move({...})
            return True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from snas.plugins import Family
from snas.seeds import Stream, derive

if TYPE_CHECKING:
    from snas.pruning.dynamic.support import Support
    from snas.pruning.goal import Goal


SHORTEST = 10  # steps between updates, unless fewer are asked for


@dataclass(frozen=True, slots=True)
class Clock:
    """When it is.

    A training has one cycle of the rule's epochs, or several, each with the learning rate's whole schedule; a cycle may
    enter the schedule later than at its begin.

    Attributes:
        step: optimizer steps that are done, in all cycles together.
        cycle: cycles that are over.
        place: where the present cycle is in its schedule: steps from the schedule's begin.
        steps_per_epoch: steps of one epoch.
        epochs: epochs of the whole schedule.
        learning_rate: of the step that comes next; in `after_step`, of the one just made.
        seed: of the network in training.

    Example:
        >>> clock = Clock(step=150, cycle=1, place=50, steps_per_epoch=20, epochs=5, learning_rate=0.1, seed=0)
        >>> clock.progress, clock.due(50), clock.due(1000)
        (0.5, False, False)
    """

    step: int
    cycle: int
    place: int
    steps_per_epoch: int
    epochs: int
    learning_rate: float
    seed: int

    @property
    def progress(self) -> float:
        """Share of the present cycle's schedule that is over, in [0, 1]; 1 only after its last step."""
        return self.place / (self.steps_per_epoch * self.epochs)

    def due(self, every: int) -> bool:
        """Whether `every` steps are over again, counted from the training's begin; not before the first step.

        An epoch of fewer steps takes the place of `every`, so that a small data set has an update per epoch instead of
        none at all; but 10 steps do where an epoch has fewer than that, or updates would leave no time to learn (RigL's
        take the place of a step: with one step per epoch it would hardly train at all).
        """
        return self.step > 0 and self.step % min(every, max(self.steps_per_epoch, SHORTEST)) == 0

    def after_step(self) -> Clock:
        """When it is one step later; the learning rate is still that of the step then made."""
        return replace(self, step=self.step + 1, place=self.place + 1)

    def generator(self) -> torch.Generator:
        """Random numbers of this moment alone, so that a restored training draws the same ones; a CPU generator."""
        return torch.Generator().manual_seed(derive(self.seed, Stream.MOVE, self.step))


class Movement:
    """Moves a network's mask while it trains. One object per network; hooks do nothing unless overridden.

    More than one hook, because the published methods act at different moments: before an optimizer step, where the
    gradients of masked weights are still there; after it; between epochs. What a movement has to remember beyond the
    mask is in `tensors`, so that a training can be resumed to the bit.
    """

    starts_dense: ClassVar[bool] = False
    """Whether the training starts with all weights, and the goal is what it ends with."""

    keeps_layers: ClassVar[bool] = False
    """Whether every layer keeps its number of weights throughout, so that it can train at given densities."""

    @property
    def cycles(self) -> int:
        """How often it goes through the rule's schedule."""
        return 1

    def total_epochs(self, epochs: int) -> int:
        """Epochs of all cycles, where the rule's schedule has `epochs`.

        Raises:
            InputError: if that many are too few for its options.
        """
        return self.cycles * epochs

    def position(self, number: int, epochs: int) -> tuple[int, int]:
        """Where epoch `number` (1, 2, ...) is: cycles that are over, and the schedule's epochs that are over then."""
        return divmod(number - 1, epochs)

    def quiet(self, clock: Clock) -> bool:
        """Whether neither `before_step` nor `after_step` does anything in the step that begins at `clock`.

        A network can then be trained without its masked weights and their gradients, and these hooks are not called.
        """
        return False

    def before_epoch(self, support: Support, goal: Goal, clock: Clock) -> None:
        """An epoch begins; the mask may move, and weights may be put back (rewinding)."""

    def before_step(self, support: Support, goal: Goal, clock: Clock) -> bool:
        """The gradients of all weights, masked ones too, are there. True replaces the optimizer's step."""
        return False

    def after_step(self, support: Support, goal: Goal, clock: Clock) -> None:
        """The optimizer has made its step, which the clock counts already, and masked weights are zero."""

    def after_epoch(self, support: Support, goal: Goal, clock: Clock) -> None:
        """An epoch is over; what is validated next is the network as the movement leaves it."""

    def tensors(self) -> dict[str, Tensor]:
        """All that it remembers, by name."""
        return {}

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""


movements: Family[type[Movement]] = Family(
    "movement",
    group="snas.movements",
    modules=(
        "snas.pruning.dynamic.gradual",
        "snas.pruning.dynamic.rewinding",
        "snas.pruning.dynamic.regrowth",
        "snas.pruning.dynamic.reallocation",
        "snas.pruning.dynamic.rewiring",
    ),
)
