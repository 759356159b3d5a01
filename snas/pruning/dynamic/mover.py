"""A movement at work in one training: its clock, and what must hold of the masks that it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from snas.errors import FailedError, InputError, RefusedError
from snas.masks import Masks
from snas.pruning.dynamic.base import Clock, Movement
from snas.pruning.dynamic.support import Support
from snas.pruning.paths import require_trainable

if TYPE_CHECKING:
    from snas.pruning.goal import Goal
    from snas.training.rule import TrainingRule

MASK, OWN = "mask/", "movement/"


class Mover:
    """Tells a movement when what happens, and checks the masks between epochs.

    Attributes:
        support: the masks in training.
        epochs: of the whole training.
        masks: as they were when they were last checked.
    """

    def __init__(
        self,
        movement: Movement,
        goal: Goal,
        support: Support,
        *,
        rule: TrainingRule,
        seed: int,
        input_shape: Sequence[int],
    ) -> None:
        """Start before the first epoch.

        Raises:
            InputError: if the rule's epochs are too few for the movement's options.
        """
        self.support = support
        self.epochs = movement.total_epochs(rule.epochs)
        self.masks = support.freeze()
        self._movement = movement
        self._goal = goal
        self._rule = rule
        self._seed = seed
        self._input_shape = tuple(input_shape)

    def clock(self, number: int, index: int, steps: int) -> Clock:
        """When it is before step `index` (0, 1, ...) of the `steps` of epoch `number` (1, 2, ...).

        Raises:
            InputError: if the training has fewer epochs.
        """
        if number > self.epochs:
            raise InputError(f"the training is over after {self.epochs} epochs; epoch {number} was asked for")
        cycle, over = self._movement.position(number, self._rule.epochs)
        place = over * steps + index
        return Clock(
            step=(number - 1) * steps + index,
            cycle=cycle,
            place=place,
            steps_per_epoch=steps,
            epochs=self._rule.epochs,
            learning_rate=self._rule.learning_rate_at(place, steps),
            seed=self._seed,
        )

    def begin_epoch(self, number: int, steps: int) -> None:
        """Let the mask move before epoch `number`, which has so many `steps`.

        Raises:
            InputError: if the training has fewer epochs.
            RefusedError: if what is left cannot learn.
        """
        self._movement.before_epoch(self.support, self._goal, self.clock(number, 0, steps))
        self._check(f"before epoch {number}")

    def before_step(self, clock: Clock) -> bool:
        """Let the mask move where all gradients are known; whether that takes the place of the optimizer's step."""
        return self._movement.before_step(self.support, self._goal, clock)

    def after_step(self, clock: Clock) -> None:
        """Let the mask move after the step that began at `clock`."""
        self._movement.after_step(self.support, self._goal, clock.after_step())

    def quiet_steps(self, number: int, index: int, steps: int, *, most: int) -> int:
        """How many steps from step `index` of epoch `number` on have nothing to tell the movement; `most` is enough."""
        for ahead in range(min(most, steps - index)):
            if not self._movement.quiet(self.clock(number, index + ahead, steps)):
                return ahead
        return min(most, steps - index)

    def end_epoch(self, number: int, steps: int) -> None:
        """Let the mask move after epoch `number`, which had so many `steps`.

        Raises:
            RefusedError: if what is left cannot learn.
            FailedError: if the training is over and the number of weights is not the goal's.
        """
        begin = self.clock(number, 0, steps)
        after = replace(begin, step=begin.step + steps, place=begin.place + steps)
        self._movement.after_epoch(self.support, self._goal, after)
        self._check(f"after epoch {number}")
        kept, wanted = self.masks.kept.kept_weights, self._goal.kept_weights
        if number == self.epochs and kept != wanted:
            difference = f"{abs(kept - wanted)} too {'many' if kept > wanted else 'few'}"
            raise FailedError(f"the training ended with {kept} weights instead of {wanted}, {difference}")

    def tensors(self) -> dict[str, Tensor]:
        """The masks, as bits, and all that the movement remembers."""
        own = {OWN + name: value for name, value in self._movement.tensors().items()}
        return {MASK + name: bits for name, bits in self.masks.pack().items()} | own

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        packed = {name.removeprefix(MASK): bits for name, bits in state.items() if name.startswith(MASK)}
        self.masks = Masks.unpack(self.support.layers, packed)
        self.support.restore(self.masks)
        own = {name.removeprefix(OWN): value for name, value in state.items() if name.startswith(OWN)}
        self._movement.load_tensors(own)

    def _check(self, when: str) -> None:
        """Take note of masks that have moved; refuse those that leave no network."""
        if not self.support.moved:
            return
        self.masks = self.support.freeze()
        self.support.moved = False
        try:
            require_trainable(self.support.model, self.masks, input_shape=self._input_shape)
        except RefusedError as error:
            raise RefusedError(f"{when} the mask moved: {error}") from error
