"""The seam for measurements in a training: what looks on between gradients and steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snas.training.session import Session


class Enough(Exception):
    """Raised by a watcher to end a training."""


class Watcher:
    """Looks on while one network is trained. Subclass and override what you need.

    It leaves weights, gradients, modes and random streams as they are, so that a training that is watched gives the
    same as one that is not (perceptrons that would be trained without autograd: to rounding). It may raise `Enough` to
    end the training, which then is in the middle of an epoch.
    """

    def on_gradients(self, session: Session, index: int, steps: int) -> None:
        """Gradients of step `index` (0, 1 ...) of an epoch of `steps` are there, those of masked weights too."""

    def on_step(self, session: Session, index: int, steps: int) -> None:
        """The weights have changed."""

    def on_epoch(self, session: Session, number: int) -> Mapping[str, float]:
        """Epoch `number` (1, 2 ...) was trained and validated; what is returned is filed with it."""
        return {}
