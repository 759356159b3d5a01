"""Train, prune, rewind, and train again: pruning after training, in one round or many (lottery tickets)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from snas.errors import InputError
from snas.pruning.dynamic.base import Clock, Movement, movements
from snas.pruning.dynamic.options import check_whole
from snas.pruning.dynamic.support import Support
from snas.pruning.scores import scores

if TYPE_CHECKING:
    from snas.pruning.goal import Goal

NAMED = ("none", "init", "redraw")


@movements.register("rounds")
@dataclass(kw_only=True)
class Rounds(Movement):
    """Train dense; then, `rounds` times, prune by the score of the trained weights, rewind the rest, and train again.

    Each round keeps the same share of what is left ([Frankle2019] section 2: p^(1/n)). Before each new cycle the whole
    network is rewound, biases, normalization parameters and buffers as well as kept weights, and the optimizer starts
    afresh. The mask moves when the next cycle begins, so that a cycle's last epoch reports the network that it trained.

    With a whole number k to rewind to, the first cycle has all E epochs, the later ones start from the weights after k
    epochs at the schedule's epoch k, and have E - k ([Frankle2020] algorithm 2). Otherwise each has E epochs; those of
    "none" go through the whole schedule of learning rates again ([Renda2020] learning rate rewinding).

    Args:
        rounds: how often the network is pruned.
        rewind: where kept weights go back to: "init", where they began ([Frankle2019]); a whole number k, to where they
            were after k epochs ([Frankle2020]); "none", nowhere, they are trained on; "redraw", a control: fresh
            weights in each round, those that their layer began with in a new random order. ([Frankle2019] draws from
            the initialization's distribution again; an order at random is such a draw where the initial weights of a
            layer are independent of each other.)
        score: which weights are kept; see `snas.pruning.scores`.
        examples: training examples that the score is computed from; 0: all.

    Raises:
        InputError: for a value outside its range.

    Source:
        [Frankle2019] J. Frankle, M. Carbin: The lottery ticket hypothesis, ICLR 2019. [Frankle2020] J. Frankle, G.
        Dziugaite, D. Roy, M. Carbin: Linear mode connectivity and the lottery ticket hypothesis, ICML 2020.
        [Renda2020] A. Renda, J. Frankle, M. Carbin: Comparing rewinding and fine-tuning in neural network pruning,
        ICLR 2020.
    """

    starts_dense: ClassVar[bool] = True

    rounds: int = 5
    rewind: str = "init"
    score: str = "magnitude"
    examples: int = 128

    def __post_init__(self) -> None:
        check_whole("rounds", self.rounds, 1)
        check_whole("examples", self.examples, 0)
        if self.rewind not in NAMED and not (self.rewind.isascii() and self.rewind.isdecimal()):
            raise InputError(f"rewind is {self.rewind!r}; expected {', '.join(NAMED)} or a whole number of epochs")
        scores.get(self.score)
        self._remembered: dict[str, Tensor] = {}

    @property
    def cycles(self) -> int:
        """The dense training, and one after each round of pruning."""
        return self.rounds + 1

    def total_epochs(self, epochs: int) -> int:
        """Epochs of all cycles; see `Movement.total_epochs`."""
        skipped = self._epoch()
        if skipped >= epochs:
            raise InputError(f"rewind is {skipped}; expected fewer than the {epochs} epochs of the training")
        return epochs + self.rounds * (epochs - skipped)

    def position(self, number: int, epochs: int) -> tuple[int, int]:
        """Where epoch `number` is; see `Movement.position`."""
        if number <= epochs:
            return 0, number - 1
        skipped = self._epoch()
        cycle, over = divmod(number - 1 - epochs, epochs - skipped)
        return cycle + 1, skipped + over

    def quiet(self, clock: Clock) -> bool:
        """Every step is; see `Movement.quiet`."""
        return True

    def before_epoch(self, support: Support, goal: Goal, clock: Clock) -> None:
        """Remember the weights to rewind to; prune and rewind where a new cycle begins."""
        if clock.place != self._epoch() * clock.steps_per_epoch:
            return
        if clock.cycle == 0:
            if self.rewind != "none":
                self._remembered = {name: value.clone() for name, value in support.model.state_dict().items()}
            return
        generator, current = clock.generator(), support.freeze()
        batch = replace(support.batch(self.examples, generator=generator), masks=current)
        values = scores.get(self.score)(support.model, support.layers, batch, generator=generator)
        support.move(goal.masks(values, generator=generator, progress=clock.cycle / self.rounds, among=current))
        self._put_back(support, generator)
        support.mask_weights()
        support.forget()

    def tensors(self) -> dict[str, Tensor]:
        """The weights and buffers to rewind to."""
        return dict(self._remembered)

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        self._remembered = dict(state)

    def _epoch(self) -> int:
        """The epoch of the schedule at which later cycles begin."""
        return 0 if self.rewind in NAMED else int(self.rewind)

    @torch.no_grad()
    def _put_back(self, support: Support, generator: torch.Generator) -> None:
        if self.rewind == "none":
            return
        support.model.load_state_dict(self._remembered)
        if self.rewind == "redraw":
            for weight in support.weights.values():
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.reshape(-1)[order].reshape(weight.shape))
