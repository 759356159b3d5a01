"""A training measured in steps: batches of one size from an endless stream, and a goal looked for every few steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snas.data.split import Arrays, SearchData
from snas.errors import InputError
from snas.masks import audit
from snas.pruning.prepare import Sparse
from snas.seeds import Stream, derive
from snas.training.evaluation import full_precision, laid_out
from snas.training.rule import TrainingRule
from snas.training.session import Session

CHUNK = 500  # examples that a goal is checked on at a time


@dataclass(frozen=True, kw_only=True)
class StepRule(TrainingRule):
    """A rule for so many steps instead of epochs, with a constant learning rate or one that falls linearly.

    Raises:
        InputError: for a value outside its range.
    """

    decay_steps: int = 0  # over which the learning rate falls; 0: it stays
    decay_factor: float = 1.0  # what is left of it then

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_steps < 0 or not 0 < self.decay_factor <= 1:
            raise InputError(
                f"the learning rate falls to {self.decay_factor} of itself in {self.decay_steps} steps; expected "
                "0 < factor <= 1 and steps of at least 0"
            )

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of step `step` (0, 1 ...): lr (1 - (1 - factor) min(step / decay steps, 1)).

        Source: [Shallue2019] C. Shallue et al.: Measuring the effects of data parallelism on neural network training,
        appendix B.
        """
        if not self.decay_steps:
            return self.lr
        return self.lr * (1 - (1 - self.decay_factor) * min(step / self.decay_steps, 1.0))


class StepSession(Session):
    """A network in training, a few steps at a time. Masks stay as they are.

    Batches have exactly the rule's size: they are cut from permutations of the training examples put end to end, so
    that an epoch's last batch takes the rest from the next one.
    """

    def __init__(self, sparse: Sparse, rule: StepRule, data: SearchData, *, seed: int, device: torch.device) -> None:
        """Start before the first step.

        Args:
            sparse: the network.
            rule: how it is trained.
            data: training and validation examples, on the device.
            seed: of the order of the examples.
            device: where it is trained.

        Raises:
            InputError: if a batch is larger than the training data.
        """
        super().__init__(sparse.model, sparse.masks, rule, data, seed=seed, device=device)
        examples = len(data.train.y)
        if rule.batch_size > examples:
            raise InputError(f"batch-size is {rule.batch_size}; expected at most {examples}, the training examples")
        self.taken = 0
        self._round = 0
        self._left = torch.empty(0, dtype=torch.long)
        self._generator = torch.Generator()

    def advance(self, steps: int) -> None:
        """Take so many steps."""
        self.model.train()
        self._generator.manual_seed(derive(self.seed, Stream.ORDER, 0, self.taken))  # what augmentation draws from
        with self._seeded(self.taken):
            for _ in range(steps):
                self.learn(self._next_batch().to(self.device), self._generator, self.taken, 1)
                self.taken += 1

    def finish(self) -> None:
        """Check that masked weights are zero.

        Raises:
            SnasError: if one is not.
        """
        audit(self.model, self.masks)

    def prepare_evaluation(self) -> None:
        """Measure BatchNorm's statistics with the weights as they are, and put the network in evaluation mode."""
        self._calibrate(self.taken)
        self.model.eval()

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """The network's output for x, shape (examples, classes)."""
        with self.precision():
            return full_precision(self.model(laid_out(x)))

    def _next_batch(self) -> Tensor:
        size = self.rule.batch_size
        while len(self._left) < size:
            self._round += 1
            generator = torch.Generator().manual_seed(derive(self.seed, Stream.ORDER, self._round))
            more = torch.randperm(len(self.data.train.y), generator=generator)
            self._left = torch.cat((self._left, more))
        batch, self._left = self._left[:size], self._left[size:]
        return batch


class Goal:
    """Whether the share of misclassified examples is at most a goal: exact, and mostly without looking at all of them.

    Examples that were misclassified most often lately come first, and as soon as there are too many the rest is not
    looked at: a network that is far from the goal is recognized by a tenth of the examples.
    """

    def __init__(self, arrays: Arrays, error: float) -> None:
        """Begin with no example known to be hard.

        Args:
            arrays: examples, all of which count.
            error: the goal, a fraction in (0, 1).

        Raises:
            InputError: for a goal outside its range.
        """
        if not 0 < error < 1:
            raise InputError(f"goal is {error}; expected a fraction of misclassified examples with 0 < goal < 1")
        self.error = error
        self._arrays = arrays
        self._most = math.floor(error * len(arrays.y) + 1e-9)
        self._hard = torch.zeros(len(arrays.y))

    def reached_by(self, session: StepSession) -> bool | None:
        """Whether the network's error is at most the goal; None where its output is not finite."""
        session.prepare_evaluation()
        wrong = 0
        for part in torch.split(self._hard.argsort(descending=True, stable=True), CHUNK):
            place = part.to(self._arrays.y.device)
            logits = session.logits(self._arrays.x[place])
            if not bool(torch.isfinite(logits).all()):
                return None
            missed = (logits.argmax(1) != self._arrays.y[place]).cpu()
            self._hard[part] = self._hard[part] / 2 + missed
            wrong += int(missed.sum())
            if wrong > self._most:
                return False
        return True
