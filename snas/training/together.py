"""The steps of several sessions as one: one kernel for the weights of all networks, where masks stay as they are."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch

from snas.masks import Enforcer
from snas.training.session import Session


class Steps:
    """Changes the weights of several sessions by their gradients, each as its own `take_step` would.

    Calling sixteen optimizers takes longer than what they compute for small networks. Moments stay where they are, with
    each session's optimizer: the common one shares its state.
    """

    def __init__(self, sessions: Sequence[Session], *, clean: Container[str] = (), whole: bool = True) -> None:
        """Make ready for one epoch, which all sessions have begun.

        Args:
            sessions: of one training rule.
            clean: names of layers that have no gradients but of kept weights.
            whole: whether masked weights have gradients elsewhere.
        """
        self._whole = whole
        self._apart = [session for session in sessions if not session.still or session.watched]
        self._still = [session for session in sessions if session.still and not session.watched]
        if not self._still:
            return
        rule = self._still[0].rule
        self._enforcer = Enforcer.of_all([session.enforcer for session in self._still], without=clean)
        of_epochs: dict[int, list[torch.nn.Parameter]] = {}
        for session in self._still:
            of_epochs.setdefault(session.epoch, []).extend(session.model.parameters())
        self._optimizer = rule.make_optimizer([parameter for own in of_epochs.values() for parameter in own])
        for session in self._still:
            for parameter in session.model.parameters():
                self._optimizer.state[parameter] = session.optimizer.state[parameter]
        (group,) = self._optimizer.param_groups
        self._optimizer.param_groups = [{**group, "params": own} for own in of_epochs.values()]
        self._groups = list(zip(of_epochs, self._optimizer.param_groups, strict=True))
        self._learning_rate_at = rule.learning_rate_at

    def take(self, index: int, steps: int) -> None:
        """Take step `index` (0, 1 ...) of the `steps` of the epoch."""
        for session in self._apart:
            session.take_step(index, steps, whole=self._whole)
        if not self._still:
            return
        for epoch, group in self._groups:
            group["lr"] = self._learning_rate_at(epoch * steps + index, steps)
        self._enforcer.mask_gradients()
        self._optimizer.step()
