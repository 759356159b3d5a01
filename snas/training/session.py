"""One masked network in training: an epoch at a time, resumable between epochs to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from snas.data.split import Arrays, SearchData
from snas.errors import DivergedError
from snas.masks import Enforcer, Masks, audit
from snas.seeds import Stream, derive
from snas.training.augment import crop_and_flip
from snas.training.rule import TrainingRule

EVALUATION_BATCH = 1000
CALIBRATION_BATCH, CALIBRATION_BATCHES = 128, 4


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave. Losses are mean cross-entropies, accuracies fractions in [0, 1]."""

    number: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


class Session:
    """A network, its masks and its optimizer, between two epochs.

    Every random number of epoch e comes from the seed and e alone, so that a session restored from a checkpoint goes on
    exactly as one that was never interrupted.
    """

    def __init__(
        self, model: nn.Module, masks: Masks, rule: TrainingRule, data: SearchData, *, seed: int, device: torch.device
    ) -> None:
        """Start before the first epoch with a model whose masked weights are zero."""
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
        self.optimizer = rule.make_optimizer(self.model.parameters())
        self._enforcer = Enforcer(self.model, masks)
        self._augments = rule.augment == "on" or (rule.augment == "auto" and data.colour)

    def train_epoch(self) -> Epoch:
        """Train one epoch, audit the masks, and validate.

        Raises:
            DivergedError: if the loss is NaN or infinite.
        """
        start = perf_counter()
        number = self.epoch + 1
        train_loss, train_accuracy = self._train(number)
        if not torch.isfinite(torch.tensor(train_loss)):
            raise DivergedError(f"training loss is {train_loss} at epoch {number}")
        audit(self.model, self.masks)
        self._calibrate(number)
        validation_loss, validation_accuracy = self.evaluate(self.data.validation)
        if not torch.isfinite(torch.tensor(validation_loss)):
            raise DivergedError(f"validation loss is {validation_loss} at epoch {number}")
        self.epoch = number
        seconds = perf_counter() - start
        return Epoch(number, train_loss, train_accuracy, validation_loss, validation_accuracy, seconds)

    def evaluate(self, arrays: Arrays) -> tuple[float, float]:
        """Return mean loss and accuracy of the network in evaluation mode."""
        self.model.eval()
        size = EVALUATION_BATCH
        totals = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad(), self._precision():
            for x, y in zip(torch.split(arrays.x, size), torch.split(arrays.y, size), strict=True):
                logits = self.model(self._prepare(x)).float()
                loss = functional.cross_entropy(logits, y, reduction="sum")
                totals += torch.stack((loss, (logits.argmax(1) == y).sum())).cpu().double()
        loss, correct = (totals / len(arrays.y)).tolist()
        return loss, correct

    def tensors(self) -> dict[str, Tensor]:
        """All state as named tensors: parameters, buffers and the optimizer's moments."""
        state = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    state[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
        return state

    def load_tensors(self, state: dict[str, Tensor], epoch: int) -> None:
        """Restore what `tensors` returned after `epoch` epochs."""
        model = {name.removeprefix("model/"): value for name, value in state.items() if name.startswith("model/")}
        self.model.load_state_dict(model)
        for name, parameter in self.model.named_parameters():
            prefix = f"optimizer/{name}/"
            for key, value in state.items():
                if key.startswith(prefix):
                    like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                    self.optimizer.state[parameter][key.removeprefix(prefix)] = like.copy_(value)
        self.epoch = epoch

    def _train(self, number: int) -> tuple[float, float]:
        """Train epoch `number`; return its mean loss and accuracy."""
        arrays = self.data.train
        order_generator = torch.Generator().manual_seed(derive(self.seed, Stream.ORDER, number))
        order = torch.randperm(len(arrays.y), generator=order_generator).to(self.device)
        batches = _batches(order, self.rule.batch_size)
        totals = torch.zeros(2, device=self.device)
        self.model.train()
        with self._seeded(number):
            for index, batch in enumerate(batches):
                x, y = arrays.x[batch], arrays.y[batch]
                if self._augments:
                    x = crop_and_flip(x, generator=order_generator)
                self._set_learning_rate((number - 1) * len(batches) + index, len(batches))
                with self._precision():
                    logits = self.model(self._prepare(x)).float()
                    loss = functional.cross_entropy(logits, y, label_smoothing=self.rule.label_smoothing)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self._enforcer.mask_gradients()
                self.optimizer.step()
                self._enforcer.mask_weights()
                with torch.no_grad():
                    totals += torch.stack((loss.detach() * len(y), (logits.argmax(1) == y).sum()))
        loss_value, accuracy = (totals / len(order)).tolist()
        return loss_value, accuracy

    @torch.no_grad()
    def _calibrate(self, number: int) -> None:
        """Measure BatchNorm's statistics anew, on training examples, with the weights as they are now.

        The running averages lag behind weights that change fast: after one epoch at a high learning rate a ResNet-32
        that classifies nine digits in ten can validate at chance, and early stopping would decide by that artefact.
        Training itself is unaffected, it normalizes by batch. [Wu2021] Y. Wu, J. Johnson: Rethinking "Batch" in
        BatchNorm, section 3 (precise BatchNorm).
        """
        norms = [
            module for module in self.model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        if not norms:
            return
        generator = torch.Generator().manual_seed(derive(self.seed, Stream.CALIBRATION, number))
        examples = len(self.data.train.y)
        chosen = torch.randperm(examples, generator=generator)[: CALIBRATION_BATCH * CALIBRATION_BATCHES]
        momenta = [norm.momentum for norm in norms]
        self.model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        with self._precision():
            for batch in _batches(chosen.to(self.device), CALIBRATION_BATCH):
                self.model(self._prepare(self.data.train.x[batch]))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _set_learning_rate(self, step: int, steps_per_epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rule.learning_rate_at(step, steps_per_epoch)

    def _prepare(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.rule.precision == "bf16")

    @contextmanager
    def _seeded(self, number: int) -> Iterator[None]:
        """Give layers that draw from global state (dropout) the epoch's seed, and put the global state back."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive(self.seed, Stream.EPOCH, number))
            yield


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """Split into batches; a last batch of one example joins the one before it (BatchNorm cannot normalize one)."""
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat((batches[-1], last))
    return batches
