"""A short training that scores look into: between two cuts the network learns, and in the end only the mask is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from snas.errors import DivergedError
from snas.masks import Enforcer, Masks
from snas.pruning.passes import copied_buffers, device_of, logits_of
from snas.pruning.scores import Batch
from snas.seeds import seeded

if TYPE_CHECKING:
    from torch import Tensor

MINIBATCH = 100
MOMENTUM = 0.9

Advance = Callable[[Masks, float], None]


@contextmanager
def short_training(
    model: nn.Module, batch: Batch, *, passes: int, lr: float, generator: torch.Generator
) -> Iterator[Advance]:
    """Let a network be trained for a while, and put everything back at the end, also after an error.

    It is stochastic gradient descent with momentum 0.9 at a constant rate, in single precision, on the cross-entropy
    of minibatches of 100 examples (all of them where there are fewer; a pass leaves out the last few that fill none).
    All parameters that require gradients learn, biases and normalization too; dropout is on.

    Args:
        model: the network at its initial weights; those, its buffers, gradients and modes are what they were
            afterwards.
        batch: the examples and their labels.
        passes: how often it sees each of them.
        lr: learning rate.
        generator: order of the examples, and what the network draws; a CPU generator.

    Yields:
        A function of masks and of the share of the training, in [0, 1], that is to be over: it sets masked weights to
        zero and trains up to there, with them held at zero. It raises DivergedError where the loss is not finite.
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = [(parameter, parameter.detach().clone(), parameter.grad) for parameter in model.parameters()]
    devices = sorted({p.device.index or 0 for p, _, _ in kept if p.device.type == "cuda"})
    seed = int(torch.randint(2**62, (), generator=generator))
    with seeded(seed, devices=devices), copied_buffers(model.modules()), torch.enable_grad():
        try:
            model.train()
            yield _Steps(model, batch, passes=passes, lr=lr, generator=generator)
        finally:
            for parameter, values, gradient in kept:
                parameter.data.copy_(values)
                parameter.grad = gradient
            for module, mode in modes:
                module.training = mode


class _Steps:
    """Counts the steps of a short training and takes them."""

    def __init__(self, model: nn.Module, batch: Batch, *, passes: int, lr: float, generator: torch.Generator) -> None:
        self._model, self._batch, self._generator = model, batch, generator
        self._size = min(MINIBATCH, len(batch.y))
        self._total = passes * (len(batch.y) // self._size)
        self._done = 0
        self._waiting: list[Tensor] = []
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.SGD(learning, lr=lr, momentum=MOMENTUM)

    def __call__(self, masks: Masks, share: float) -> None:
        """Train with these masks until `share` of the training is over."""
        enforcer = Enforcer(self._model, masks)
        enforcer.mask_weights()
        loss: Tensor | None = None
        while self._done < round(share * self._total):
            loss = self._step(enforcer)
        if loss is not None and not bool(torch.isfinite(loss)):
            raise DivergedError(
                f"the short training that the mask is drawn from has a loss of {float(loss)}; take another mask rule, "
                "or a space whose learning_rate is lower"
            )

    def _step(self, enforcer: Enforcer) -> Tensor:
        places = self._draw()
        device = device_of(self._model)
        logits = logits_of(self._model, self._batch.x[places].to(device))
        loss = functional.cross_entropy(logits, self._batch.y[places].to(device))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        enforcer.mask_gradients()
        self._optimizer.step()
        enforcer.mask_weights()
        self._done += 1
        return loss.detach()

    def _draw(self) -> Tensor:
        """Places of the next minibatch; a new pass has a new order."""
        if not self._waiting:
            order = torch.randperm(len(self._batch.y), generator=self._generator).to(self._batch.y.device)
            self._waiting = [part for part in torch.split(order, self._size) if len(part) == self._size][::-1]
        return self._waiting.pop()
