"""Passes through a network that leave no trace in it: what every score that looks at data is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from snas.densities import Layer
from snas.masks import weights_of, zero_masked
from snas.pruning.scores import Batch
from snas.seeds import seeded

OWN_DROPOUT = (nn.RNNBase, nn.MultiheadAttention)


@contextmanager
def isolated(
    model: nn.Module,
    layers: Sequence[Layer],
    batch: Batch,
    *,
    generator: torch.Generator,
    fixed_statistics: bool = False,
) -> Iterator[list[nn.Parameter]]:
    """Make the network ready for scoring, and put everything back at the end, also after an error.

    Inside, weights that the batch's masks leave out are zero and gradients flow to the layers' weights only; modules
    are in training mode, without dropout; buffers are copies, so that running statistics move there; and what draws
    from the global generator draws from a seeded one. It is the real parameters that change, and neither their storage
    nor their version: recurrent layers hold references to them that no substitute would reach.

    Args:
        model: the network.
        layers: whose weights get gradients.
        batch: examples, and the masks.
        generator: seeds the global generator; a CPU generator.
        fixed_statistics: BatchNorm layers use the mean and variance of the whole batch as constants, instead of those
            of the examples that happen to go through together.

    Yields:
        The layers' weights: the model's own parameters.
    """
    weights = weights_of(model, layers)
    modes = [(module, module.training) for module in model.modules()]
    rates = [(module, module.dropout) for module, _ in modes if isinstance(module, OWN_DROPOUT)]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    devices = sorted({p.device.index or 0 for p, _ in flags if p.device.type == "cuda"})
    seed = int(torch.randint(2**62, (), generator=generator))
    with seeded(seed, devices=devices), copied_buffers(module for module, _ in modes), torch.enable_grad():
        try:
            for module, _ in modes:
                module.training = not isinstance(module, _DropoutNd)
            for module, _ in rates:
                module.dropout = 0.0
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            with _masked(weights, layers, batch), _constant_statistics(model, batch, enabled=fixed_statistics):
                for weight in weights:
                    weight.requires_grad_(True)
                yield weights
        finally:
            for module, mode in modes:
                module.training = mode
            for module, rate in rates:
                module.dropout = rate
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


def losses(model: nn.Module, batch: Batch, *, temperature: float = 1.0) -> Iterator[Tensor]:
    """The mean loss over the batch in parts that add up to it, one for each chunk of examples.

    Exact but for normalization, whose statistics are those of a chunk. The loss of logits z is logsumexp(z) - t z, the
    cross-entropy with the target t, whose gradient is softmax(z) - t. The target is the label; 1/classes for "uniform";
    for "softmax" and "raw" the mean over all examples of softmax(z), or of z itself, a constant. The last is no
    distribution, and the formula with logsumexp is what gives it a meaning: that of the code behind
    [Lee2020] table 4.4, TensorFlow's softmax_cross_entropy_with_logits, whose gradient is softmax(z) - t for any t.

    Args:
        model: inside `isolated`.
        batch: the examples.
        temperature: logits are divided by it.

    Yields:
        Scalars with their graphs; use one up before asking for the next.

    Source:
        [Lee2020] N. Lee et al.: A signal propagation perspective for pruning neural networks at initialization, 4.5.2.
    """
    target = _target(model, batch, temperature)
    for x, y in chunks(batch, device_of(model)):
        logits = logits_of(model, x)
        loss = _mean_loss(logits / temperature if temperature != 1 else logits, y, target)
        # A single chunk's loss is not multiplied by 1.0: its gradients stay the same to the bit.
        yield loss * (len(y) / len(batch.y)) if len(y) < len(batch.y) else loss


def total_gradient(
    model: nn.Module, weights: Sequence[Tensor], batch: Batch, *, temperature: float = 1.0
) -> list[Tensor]:
    """Gradient of the mean loss over all examples, added up in the weights' own precision; zero where none flows."""
    total: list[Tensor] = []
    for loss in losses(model, batch, temperature=temperature):
        if not loss.requires_grad:
            return [torch.zeros_like(weight) for weight in weights]
        parts = torch.autograd.grad(loss, weights, materialize_grads=True)
        total = [old.add_(new) for old, new in zip(total, parts, strict=True)] if total else _owned(parts)
    return total


def chunks(batch: Batch, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and classes on the device, so many at a time as the batch gives; a last single example joins the others,
    because BatchNorm has no statistics of one."""
    parts = list(batch.chunks())
    if len(parts) > 1 and len(parts[-1][1]) == 1:
        last = parts.pop()
        parts[-1] = (torch.cat((parts[-1][0], last[0])), torch.cat((parts[-1][1], last[1])))
    for x, y in parts:
        yield x.to(device), y.to(device)


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """The network's output, shape (examples, classes), in single precision at least."""
    logits: Tensor = model(x)
    return logits if logits.dtype == torch.float64 else logits.float()


def device_of(model: nn.Module) -> torch.device:
    """Where the network is."""
    return next(model.parameters()).device


def _mean_loss(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    if target is None:
        return functional.cross_entropy(logits, y)
    return (logits.logsumexp(1) - logits @ target).mean()


def _target(model: nn.Module, batch: Batch, temperature: float) -> Tensor | None:
    """What the loss compares every example with, shape (classes,); None for the labels."""
    if batch.target == "labels":
        return None
    total: Tensor | None = None
    with torch.no_grad():
        for x, _ in chunks(batch, device_of(model)):
            logits = logits_of(model, x) / temperature
            if batch.target == "uniform":
                return torch.full_like(logits[0], 1 / logits.shape[1])
            part = (logits if batch.target == "raw" else logits.softmax(1)).sum(0)
            total = part if total is None else total + part
    return None if total is None else total / len(batch.y)


def _owned(parts: Sequence[Tensor]) -> list[Tensor]:
    """Gradients that can be changed in place: autograd may give out one tensor twice, or one that is expanded."""
    places = [part.data_ptr() for part in parts]
    return [
        part.clone(memory_format=torch.contiguous_format)
        if not part.is_contiguous() or places.count(part.data_ptr()) > 1
        else part
        for part in parts
    ]


@contextmanager
def copied_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Copies of the buffers in their places; the same for all places of a shared one."""
    places = [
        (module._buffers, name, buffer)
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    copies = {id(buffer): buffer.clone() for _, _, buffer in places}
    try:
        for buffers, name, buffer in places:
            buffers[name] = copies[id(buffer)]
        yield
    finally:
        for buffers, name, buffer in places:
            buffers[name] = buffer


@contextmanager
def _masked(weights: Sequence[nn.Parameter], layers: Sequence[Layer], batch: Batch) -> Iterator[None]:
    """Weights that are gone already are zero; through `data`, which graphs of the caller's do not notice."""
    if batch.masks is None:
        yield
        return
    saved = [weight.data.clone() for weight in weights]
    try:
        for layer, weight in zip(layers, weights, strict=True):
            zero_masked(weight.data, batch.masks[layer.name])
        yield
    finally:
        for weight, values in zip(weights, saved, strict=True):
            weight.data.copy_(values)


@contextmanager
def _constant_statistics(model: nn.Module, batch: Batch, *, enabled: bool) -> Iterator[None]:
    """BatchNorm layers in evaluation mode, with the mean and variance of the batch; several chunks are averaged."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if enabled else []
    if not norms:
        yield
        return
    saved = [(norm, dict(norm._buffers), norm.momentum, norm.track_running_stats) for norm in norms]
    try:
        with torch.no_grad():
            for norm in norms:
                _measure(norm, next(model.parameters()))
            for x, _ in chunks(batch, device_of(model)):
                model(x)
        for norm in norms:
            norm.training = False
        yield
    finally:
        for norm, buffers, momentum, tracked in saved:
            norm._buffers.update(buffers)
            norm.momentum, norm.track_running_stats = momentum, tracked


def _measure(norm: _BatchNorm, like: Tensor) -> None:
    """Let the layer average the statistics of what goes through it from now on."""
    norm._buffers["running_mean"] = torch.zeros(norm.num_features, dtype=like.dtype, device=like.device)
    norm._buffers["running_var"] = torch.ones(norm.num_features, dtype=like.dtype, device=like.device)
    norm._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.long, device=like.device)
    norm.momentum, norm.track_running_stats = None, True
