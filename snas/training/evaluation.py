"""A network's loss and accuracy on examples, and the statistics of BatchNorm that these are computed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from snas.data.split import Arrays
from snas.seeds import Stream, derive

EVALUATION_BATCH = 1000
CALIBRATION_BATCH, CALIBRATION_BATCHES = 128, 4


def full_precision(logits: Tensor) -> Tensor:
    """Logits in single precision, or what they are in where that is more: losses are not to be computed in less."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def laid_out(x: Tensor) -> Tensor:
    """Examples as convolutions read them fastest: channels last."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def exact_type(device: torch.device) -> torch.dtype:
    """The type that sums over many examples are in: double precision, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def split_into_batches(order: Tensor, size: int) -> list[Tensor]:
    """Split into batches; a last batch of one example joins the one before it (BatchNorm cannot normalize one)."""
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat((batches[-1], last))
    return batches


def calibration_batches(examples: int, *, seed: int, number: int, device: torch.device) -> list[Tensor]:
    """The training examples, as indices, on which BatchNorm's statistics are measured in epoch `number`."""
    generator = torch.Generator().manual_seed(derive(seed, Stream.CALIBRATION, number))
    chosen = torch.randperm(examples, generator=generator)
    return split_into_batches(chosen[: CALIBRATION_BATCH * CALIBRATION_BATCHES].to(device), CALIBRATION_BATCH)


@torch.no_grad()
def measure_statistics(model: nn.Module, batches: Iterable[Tensor], precision: AbstractContextManager[object]) -> None:
    """Measure BatchNorm's statistics anew, on batches of training examples, with the weights as they are now.

    The running averages lag behind weights that change fast: after one epoch at a high learning rate a ResNet-32
    that classifies nine digits in ten can validate at chance, and early stopping would decide by that artefact.
    Training itself is unaffected, it normalizes by batch. [Wu2021] Y. Wu, J. Johnson: Rethinking "Batch" in
    BatchNorm, section 3 (precise BatchNorm).
    """
    with measuring(model) as norms, precision:
        if norms:
            for x in batches:
                model(laid_out(x))


@contextmanager
def measuring(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """A network in evaluation mode whose BatchNorms, which are yielded, forget their statistics and average over the
    batches that come now."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def evaluate(model: nn.Module, arrays: Arrays, precision: AbstractContextManager[object]) -> tuple[float, float]:
    """Return mean loss and accuracy of the network in evaluation mode, in which it stays."""
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad(), precision:
        for x, y in zip(torch.split(arrays.x, EVALUATION_BATCH), torch.split(arrays.y, EVALUATION_BATCH), strict=True):
            logits = full_precision(model(laid_out(x)))
            loss = functional.cross_entropy(logits, y, reduction="sum")
            totals += torch.stack((loss, (logits.argmax(1) == y).sum())).cpu().double()
    loss, correct = (totals / len(arrays.y)).tolist()
    return loss, correct
