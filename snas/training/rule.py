"""How every network of a study is trained: one rule, recorded with each result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from snas.errors import InputError

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer

Schedule = Literal["cosine", "step", "constant"]
Augmentation = Literal["auto", "on", "off"]
Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
MOMENTUM = 0.9  # of rules that do not say it
OptimizerName = Literal["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]
WITH_MOMENTUM = ("sgd", "nesterov")


def _field(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True, kw_only=True)
class TrainingRule:
    """Everything that decides how a network is trained, except its seed and its mask.

    Raises:
        InputError: for a value outside its range.
    """

    epochs: int = _field(16, "Epochs of a full training; candidates may be stopped earlier.")
    batch_size: int = _field(64, "Examples per training step.")
    lr: float = _field(0.1, "Initial learning rate; default: what the space recommends.")
    optimizer: OptimizerName = _field("sgd", "Optimizer; sgd and nesterov have momentum.")
    momentum: float = _field(MOMENTUM, "Momentum of sgd and nesterov; 0: plain sgd.")
    weight_decay: float = _field(5e-4, "Weight decay.")
    schedule: Schedule = _field("cosine", "Learning rate over the full training; step divides by 10 at 1/2 and 3/4.")
    label_smoothing: float = _field(0.0, "Label smoothing in [0, 1).")
    augment: Augmentation = _field("auto", "Random crops and flips; auto: for colour images.")
    precision: Precision = _field("fp32", "Arithmetic of the forward pass; weights stay in float32.")

    def __post_init__(self) -> None:
        for what, number in (("epochs", self.epochs), ("batch-size", self.batch_size)):
            whole = isinstance(number, int) and not isinstance(number, bool)
            _require(whole and number >= 1, what, number, "an integer of at least 1")
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a number above 0")
        _require(math.isfinite(self.weight_decay) and self.weight_decay >= 0, "weight-decay", self.weight_decay, ">= 0")
        _require(0 <= self.label_smoothing < 1, "label-smoothing", self.label_smoothing, "0 <= value < 1")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 <= value < 1")
        own = self.optimizer not in WITH_MOMENTUM and self.momentum != MOMENTUM
        _require(not own, "momentum", self.momentum, f"none beside optimizer {self.optimizer}; leave it out")
        plain = self.optimizer == "nesterov" and not self.momentum
        _require(not plain, "momentum", self.momentum, "a value above 0 for optimizer nesterov; or choose sgd")
        for what, value, choices in (
            ("optimizer", self.optimizer, get_args(OptimizerName)),
            ("schedule", self.schedule, get_args(Schedule)),
            ("augment", self.augment, get_args(Augmentation)),
            ("precision", self.precision, get_args(Precision)),
        ):
            _require(value in choices, what, value, f"one of {', '.join(choices)}")

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of optimizer step `step` (0, 1, 2 ... over the whole training)."""
        progress = step / (self.epochs * steps_per_epoch)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "step":
            return self.lr * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
        return self.lr

    def make_optimizer(self, parameters: Iterable[Parameter]) -> Optimizer:
        """Make the optimizer for `parameters`."""
        return _OPTIMIZERS[self.optimizer](parameters, self)

    def describe(self) -> str:
        """The rule on one short line."""
        momentum = f" momentum {self.momentum:g}" if self.optimizer in WITH_MOMENTUM and self.momentum else ""
        parts = [
            f"{self.optimizer} lr {self.lr:g}{momentum} wd {self.weight_decay:g} {self.schedule}",
            f"batch {self.batch_size}, {self.epochs} epochs",
        ]
        if self.label_smoothing:
            parts.append(f"label smoothing {self.label_smoothing:g}")
        if self.augment != "auto":
            parts.append(f"augment {self.augment}")
        if self.precision != "fp32":
            parts.append(self.precision)
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The rule as plain values, as the registry stores it; the usual momentum is left out, as when it could
        not be set."""
        values = asdict(self)
        if self.momentum == MOMENTUM:
            del values["momentum"]
        return values


def _require(condition: bool, what: str, value: Any, expected: str) -> None:
    if not condition:
        raise InputError(f"{what} is {value}; expected {expected}")


def _sgd(nesterov: bool) -> Callable[[Iterable[Parameter], TrainingRule], Optimizer]:
    def make(parameters: Iterable[Parameter], rule: TrainingRule) -> Optimizer:
        from torch.optim import SGD

        parameters = list(parameters)
        return SGD(
            parameters,
            lr=rule.lr,
            momentum=rule.momentum,
            weight_decay=rule.weight_decay,
            nesterov=nesterov,
            fused=_fused(parameters),
        )

    return make


def _other(name: str) -> Callable[[Iterable[Parameter], TrainingRule], Optimizer]:
    def make(parameters: Iterable[Parameter], rule: TrainingRule) -> Optimizer:
        import torch.optim

        parameters = list(parameters)
        more = {"fused": _fused(parameters)} if name != "RMSprop" else {}
        kind = getattr(torch.optim, name)
        optimizer: Optimizer = kind(parameters, lr=rule.lr, weight_decay=rule.weight_decay, **more)
        return optimizer

    return make


def _fused(parameters: Iterable[Parameter]) -> bool:
    """Whether one kernel can do the whole step: several times faster for many small layers."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


_OPTIMIZERS = {
    "sgd": _sgd(nesterov=False),
    "nesterov": _sgd(nesterov=True),
    "adam": _other("Adam"),
    "adamw": _other("AdamW"),
    "rmsprop": _other("RMSprop"),
    "adagrad": _other("Adagrad"),
}
