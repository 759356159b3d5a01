"""One masked network in training: an epoch at a time, resumable between epochs to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from snas.data.split import Arrays, SearchData
from snas.errors import DivergedError, InputError, one_line
from snas.kernels.compression import Compression, choose_kernel
from snas.kernels.sparse_linear import SparseLinear
from snas.masks import Enforcer, Masks, audit
from snas.pruning.dynamic.base import Movement
from snas.pruning.dynamic.mover import Mover
from snas.pruning.dynamic.support import Support
from snas.pruning.scores import Batch
from snas.seeds import Stream, derive, seeded
from snas.training.augment import crop_and_flip
from snas.training.evaluation import (
    calibration_batches,
    evaluate,
    exact_type,
    full_precision,
    laid_out,
    measure_statistics,
    split_into_batches,
)
from snas.training.rule import TrainingRule
from snas.training.state import load_state, misfit, state_of, with_masked, without_masked
from snas.training.watcher import Watcher
from snas.training.written_out import Writer, WrittenOut

if TYPE_CHECKING:
    from snas.pruning.goal import Goal

WORTH_IT = 4  # steps with a mask at rest: to compress and expand a layer takes about as long as one or two dense ones


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave. Losses are mean cross-entropies, accuracies fractions in [0, 1]."""

    number: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    measured: Mapping[str, float] = field(default_factory=dict)  # what a watcher returned


class Session:
    """A network, its masks and its optimizer, between two epochs.

    Every random number of epoch e comes from the seed and e alone, so that a session restored from a checkpoint goes on
    exactly as one that was never interrupted.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        rule: TrainingRule,
        data: SearchData,
        *,
        seed: int,
        device: torch.device,
        movement: Movement | None = None,
        goal: Goal | None = None,
        kernel: str = "dense",
        watcher: Watcher | None = None,
    ) -> None:
        """Start before the first epoch.

        Args:
            model: the network; its masked weights are zero.
            masks: that it starts with.
            rule: how it is trained.
            data: training and validation examples, on the device.
            seed: of everything random.
            device: where it is trained.
            movement: what moves the mask; it belongs to this network alone. None for a fixed mask.
            goal: what the movement is to end with.
            kernel: form of linear layers that lack weights: "dense", "sparse" where it is possible, or "auto": the
                faster one. Results differ by floating-point reordering alone.
            watcher: looks on, and leaves the training as it is.

        Raises:
            InputError: for a movement without a goal, or one that the rule's epochs are too few for; for sparse kernels
                where there are none.
        """
        self.model = model.to(device)
        for parameter in self.model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
        self.masks = masks
        self.rule = rule
        self.data = data
        self.seed = seed
        self.device = device
        self.epoch = 0
        self.epochs = rule.epochs
        self.optimizer = rule.make_optimizer(self.model.parameters())
        choose = choose_kernel(kernel, device, precision=rule.precision, batch_size=rule.batch_size)
        self._kernels = Compression(self.model, masks.layers, self.optimizer, choose)
        self._resting = False  # whether layers have the form for a mask at rest
        self._mover: Mover | None = None
        self._watcher = watcher
        self.whole_gradients = True  # whether masked weights have gradients too
        self.loss: Tensor | None = None  # of the last batch, where the session computed it itself
        if movement is None:
            self._kernels.compress(masks)
            self.enforcer = Enforcer(self.model, masks.without(self._kernels.compressed))
        else:
            self.enforcer = self._let_move(movement, goal)
        self.augments = rule.augment == "on" or (rule.augment == "auto" and data.colour)
        self._writer = Writer()
        self._writing: WrittenOut | None = None  # what trains this epoch, if not autograd

    def train_epoch(self) -> Epoch:
        """Train one epoch, audit the masks, and validate.

        Raises:
            DivergedError: if the loss or a weight is NaN or infinite.
            RefusedError: if the mask moved so that the network cannot learn.
            FailedError: if a mask that moves has not reached its goal at the end of the training.
            InputError: if a training with a mask that moves is over already.
        """
        start = perf_counter()
        batches, generator = self.begin_epoch()
        self._writing = self._written_out()
        if self._writing is not None:
            train = self.data.train
            mean_loss, accuracy = self._writing.train(train.x, train.y, batches, self.epoch)
            return self.end_epoch(len(batches), mean_loss, accuracy, start=start)
        totals = torch.zeros(2, dtype=exact_type(self.device), device=self.device)
        with self._seeded(self.epoch + 1):
            for index, batch in enumerate(batches):
                self._choose_form(index, len(batches))
                totals += self.learn(batch, generator, index, len(batches))
        mean_loss, accuracy = (totals / len(self.data.train.y)).tolist()
        return self.end_epoch(len(batches), mean_loss, accuracy, start=start)

    @property
    def compressed(self) -> Mapping[str, SparseLinear]:
        """Layers of which only kept weights are stored now, by name."""
        return self._kernels.compressed

    @property
    def still(self) -> bool:
        """Whether the mask stays as it is throughout."""
        return self._mover is None

    @property
    def watched(self) -> bool:
        """Whether somebody looks on at every step."""
        return self._watcher is not None

    def begin_epoch(self) -> tuple[list[Tensor], torch.Generator]:
        """Begin the next epoch.

        Returns:
            Its batches, as indices of training examples, and the generator that `examples` draws from.

        Raises:
            RefusedError: if the mask moved so that the network cannot learn.
            InputError: if a training with a mask that moves is over already.
        """
        number = self.epoch + 1
        generator = torch.Generator().manual_seed(derive(self.seed, Stream.ORDER, number))
        order = torch.randperm(len(self.data.train.y), generator=generator).to(self.device)
        batches = split_into_batches(order, self.rule.batch_size)
        if self._mover:
            self._mover.begin_epoch(number, len(batches))
            self.masks = self._mover.masks
        self.model.train()
        self._writing = None
        return batches, generator

    def learn(self, batch: Tensor, generator: torch.Generator, index: int, steps: int) -> Tensor:
        """Take step `index` of `steps` from a batch's gradients.

        Args:
            batch: indices of training examples.
            generator: from `begin_epoch`.
            index: of the step in its epoch.
            steps: of the epoch.

        Returns:
            Loss summed over the batch, and how many were classified correctly before the step; shape (2,).
        """
        x, y = self.examples(batch, generator)
        with self.precision():
            logits = full_precision(self.model(laid_out(x)))
            loss = functional.cross_entropy(logits, y, label_smoothing=self.rule.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = loss.detach()
        loss.backward()  # type: ignore[no-untyped-call]
        self.take_step(index, steps)
        with torch.no_grad():
            return torch.stack((loss.detach() * len(y), (logits.argmax(1) == y).sum()))

    def examples(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The training examples of a batch, augmented if the rule says so, and their labels."""
        x, y = self.data.train.x[batch], self.data.train.y[batch]
        return (crop_and_flip(x, generator=generator) if self.augments else x), y

    def take_step(self, index: int, steps: int, *, whole: bool = True) -> None:
        """Change the weights by their gradients, in step `index` (0, 1 ...) of the `steps` of the epoch that began.

        `whole` says whether whoever computed the gradients computed those of masked weights too.
        """
        self.whole_gradients = whole and not self._kernels.compressed
        if self._watcher:
            self._watcher.on_gradients(self, index, steps)
        if self._mover:
            self._moving_step(self._mover, self.epoch + 1, index, steps)
        else:
            self._set_learning_rate(self.rule.learning_rate_at(self.epoch * steps + index, steps))
            self._step()
        if self._watcher:
            self._watcher.on_step(self, index, steps)

    def end_epoch(
        self,
        steps: int,
        train_loss: float,
        train_accuracy: float,
        *,
        start: float,
        validation: tuple[float, float] | None = None,
    ) -> Epoch:
        """End the epoch that began: audit the masks, and validate.

        Args:
            steps: that it had.
            train_loss: mean over its examples.
            train_accuracy: the same.
            start: when it began (`time.perf_counter`).
            validation: loss and accuracy, where the network was calibrated and validated already; for masks that stay.

        Raises:
            DivergedError, RefusedError, FailedError: as `train_epoch`.
        """
        number = self.epoch + 1
        if not math.isfinite(train_loss):
            raise DivergedError(f"training loss is {train_loss} at epoch {number}")
        self._require_finite(number)
        if self._mover:
            self._expand(self._mover)
            self._mover.end_epoch(number, steps)
            self.masks = self._mover.masks
        audit(self.model, self.masks.without(self._kernels.compressed))
        self._kernels.audit(self.masks)
        if validation is None:
            self._calibrate(number)
            validation = self.evaluate(self.data.validation)
        validation_loss, validation_accuracy = validation
        if not math.isfinite(validation_loss):
            raise DivergedError(f"validation loss is {validation_loss} at epoch {number}")
        self.epoch = number
        measured = self._watcher.on_epoch(self, number) if self._watcher else {}
        seconds = perf_counter() - start
        return Epoch(number, train_loss, train_accuracy, validation_loss, validation_accuracy, seconds, measured)

    def calibration_batches(self, number: int) -> list[Tensor]:
        """The training examples, as indices, on which BatchNorm's statistics are measured in epoch `number`."""
        return calibration_batches(len(self.data.train.y), seed=self.seed, number=number, device=self.device)

    def evaluate(self, arrays: Arrays) -> tuple[float, float]:
        """Return mean loss and accuracy of the network in evaluation mode."""
        return evaluate(self.model, arrays, self.precision())

    def network(self) -> tuple[nn.Module, Masks]:
        """The trained network with all its layers dense, and its mask; this training does not go on."""
        if self._mover:
            self._expand(self._mover)
        else:
            self._kernels.expand()
        return self.model, self.masks

    def tensors(self) -> dict[str, Tensor]:
        """All state as named tensors: parameters, buffers, the optimizer's moments, and masks that move."""
        return state_of(self.model, self.optimizer) | (self._mover.tensors() if self._mover else {})

    def checkpoint(self) -> dict[str, Tensor]:
        """`tensors`, without masked weights where masks stay: their zeros need no room."""
        return self.tensors() if self._mover else without_masked(self.tensors(), self.masks)

    def misfit(self, state: dict[str, Tensor]) -> str:
        """Why `load_tensors` could not take these tensors: what of the network's is missing, or has another shape; ""
        where it can."""
        try:
            given = self._kernels.translate(with_masked(state, self.masks), self.masks)
        except RuntimeError as error:  # other numbers of weights than the masks have
            return one_line(error)
        return misfit(self.model, given)

    def load_tensors(self, state: dict[str, Tensor], epoch: int) -> None:
        """Restore what `tensors` or `checkpoint` returned after `epoch` epochs, with whatever kernels."""
        state = self._kernels.translate(with_masked(state, self.masks), self.masks)
        load_state(self.model, self.optimizer, state)
        if self._mover:
            self._mover.load_tensors(state)
            self.masks = self._mover.masks
        self.epoch = epoch

    def rest(self) -> None:
        """Give back memory that is of use in training alone."""
        self._writing = None
        self._writer.rest()

    def _written_out(self) -> WrittenOut | None:
        """What trains an epoch without autograd, where that is possible: on a CPU, a mask that stays, nobody who looks
        on, no layer in compressed form, and a network that has a graph."""
        if self.augments or self._mover or self._watcher or self._kernels.compressed or self.device.type != "cpu":
            return None
        return self._writer.open(self.model, self.data.train.x, self.rule, self.optimizer, self.enforcer.factor_of)

    def _let_move(self, movement: Movement, goal: Goal | None) -> Support:
        """Have the movement move the mask of this training."""
        if goal is None:
            raise InputError("a movement was given without a goal; pass the goal of `prepare` too")
        arrays = self.data.train
        support = Support(self.model, self.masks, self.optimizer, Batch(arrays.x, arrays.y))
        self._mover = Mover(
            movement, goal, support, rule=self.rule, seed=self.seed, input_shape=tuple(arrays.x.shape[1:])
        )
        self.epochs = self._mover.epochs
        return support

    def _step(self) -> None:
        """Change the weights by their gradients; masked ones stay zero, for they and their moments are zero before."""
        self.enforcer.mask_gradients()
        self.optimizer.step()
        if self._mover:
            self.enforcer.mask_weights()

    def _moving_step(self, mover: Mover, number: int, index: int, steps: int) -> None:
        """A step with a mask that may move before and after it."""
        clock = mover.clock(number, index, steps)
        self._set_learning_rate(clock.learning_rate)
        if self._kernels.compressed:  # and the movement is quiet
            self._step()
            return
        if not mover.before_step(clock):
            self._step()
        mover.after_step(clock)

    def _choose_form(self, index: int, steps: int) -> None:
        """Before step `index` of the epoch: compress layers whose masks rest for a while, or expand them.

        With masks that move, layers are dense between epochs, and whenever a movement is asked.
        """
        if not self._mover or not self._kernels.possible:
            return
        ahead = self._mover.quiet_steps(self.epoch + 1, index, steps, most=WORTH_IT)
        if not ahead:
            self._expand(self._mover)
        elif ahead == WORTH_IT and not self._resting:
            self._resting = True
            self._kernels.compress(self._mover.support.masks)
            self._mover.support.leave(self._kernels.compressed)

    def _expand(self, mover: Mover) -> None:
        """Make layers dense again."""
        self._resting = False
        if self._kernels.compressed:
            self._kernels.expand()
            mover.support.leave(())

    def _calibrate(self, number: int) -> None:
        """Measure BatchNorm's statistics anew, for epoch `number`."""
        x, batches = self.data.train.x, self.calibration_batches(number)
        if self._writing is not None and self._writing.measures:
            self._writing.measure_statistics(x, batches)
        else:
            measure_statistics(self.model, (x[batch] for batch in batches), self.precision())

    @torch.no_grad()
    def _require_finite(self, number: int) -> None:
        """Raise DivergedError if a parameter is NaN or infinite: code may hide that from the loss."""
        rows = self.model.parameters() if self._writing is None else [self._writing.row]
        totals = [row.sum() for row in rows]  # no sum of them hides one
        if not totals or bool(torch.isfinite(torch.stack([total.double() for total in totals])).all()):
            return
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise DivergedError(f"parameter {name!r} has numbers that are NaN or infinite at epoch {number}")

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def precision(self) -> torch.autocast:
        """The arithmetic of the forward pass, as a context."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.rule.precision == "bf16")

    @contextmanager
    def _seeded(self, number: int) -> Iterator[None]:
        """Give layers that draw from global state (dropout) the epoch's seed, and put the global state back."""
        index = (
            torch.cuda.current_device()
            if self.device.type == "cuda" and self.device.index is None
            else self.device.index
        )
        with seeded(
            derive(self.seed, Stream.EPOCH, number), devices=[] if self.device.type != "cuda" else [index or 0]
        ):
            yield
