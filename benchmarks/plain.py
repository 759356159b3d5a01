"""Training as one writes it by hand in plain PyTorch: what the benchmarks compare with. Nothing of snas is in here.

An MLP or a given network, random masks with given counts, SGD with momentum, cosine learning rate, a validation after
each epoch. Masks are kept by multiplying the weights after every step, which is cheaper than torch.nn.utils.prune.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

MOMENTUM = 0.9


@dataclass(frozen=True)
class Data:
    """Examples (n, ...) float32 and labels (n,) int64, to train on and to validate."""

    x: Tensor
    y: Tensor
    validation_x: Tensor
    validation_y: Tensor


@dataclass(frozen=True)
class Rule:
    """How networks are trained; the fields mean what they do in torch.optim.SGD."""

    epochs: int
    batch_size: int = 64
    lr: float = 0.01
    weight_decay: float = 5e-4


def perceptron(sizes: Sequence[int], classes: int) -> nn.Sequential:
    """Linear, BatchNorm and PReLU for each hidden layer, and a linear classifier."""
    cells = [
        nn.Sequential(nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.PReLU())
        for inputs, width in pairwise(sizes)
    ]
    return nn.Sequential(nn.Flatten(), *cells, nn.Linear(sizes[-1], classes))


def prunable(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear and convolutional layers, in the order of the network."""
    return [module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


@torch.no_grad()
def mask_randomly(model: nn.Module, kept: Sequence[int]) -> list[Tensor]:
    """Keep so many weights of each layer, drawn by He's rule for the inputs that each unit has left. Returns the masks,
    as factors of the weights' shape."""
    masks = []
    for weight, count in zip(prunable(model), kept, strict=True):
        mask = torch.zeros(weight.numel())
        mask[torch.randperm(weight.numel())[:count]] = 1.0
        mask = mask.reshape(weight.shape)
        inputs = mask.flatten(1).sum(1).clamp(min=1).reshape(-1, *[1] * (weight.ndim - 1))
        weight.copy_(torch.randn_like(weight) * (2 / inputs).sqrt() * mask)
        masks.append(mask)
    return masks


def validate(model: nn.Module, data: Data) -> float:
    """Accuracy on the validation examples."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in zip(data.validation_x.split(1000), data.validation_y.split(1000), strict=True):
            correct += int((model(x).argmax(1) == y).sum())
    return correct / len(data.validation_y)


class Trainer:
    """Optimizer, learning rate and masks of one network; `masked` has pairs of a weight and its mask."""

    def __init__(self, model: nn.Module, masked: Iterable[tuple[Tensor, Tensor]], data: Data, rule: Rule) -> None:
        self.model, self.masked, self.data, self.rule = model, list(masked), data, rule
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=rule.lr, momentum=MOMENTUM, weight_decay=rule.weight_decay
        )
        steps = math.ceil(len(data.y) / rule.batch_size)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, rule.epochs * steps)

    def train(self) -> None:
        """One epoch of training, in an order of its own."""
        self.model.train()
        order = torch.randperm(len(self.data.y)).to(self.data.y.device)
        for batch in order.split(self.rule.batch_size):
            loss = functional.cross_entropy(self.model(self.data.x[batch]), self.data.y[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            with torch.no_grad():
                for weight, mask in self.masked:
                    weight.mul_(mask)


def train_epochs(
    model: nn.Module, masks: Sequence[Tensor], data: Data, rule: Rule, *, epochs: int | None = None
) -> Iterator[float]:
    """Train, and yield the validation accuracy after each of `epochs` epochs, by default all of the rule's."""
    trainer = Trainer(model, zip(prunable(model), masks, strict=True), data, rule)
    for _ in range(rule.epochs if epochs is None else epochs):
        trainer.train()
        yield validate(model, data)
