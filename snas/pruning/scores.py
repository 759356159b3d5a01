"""How much each weight matters, before training.

All scores have one signature: network, layers and a batch in; layer name -> score of each weight out, of the weight's
shape, higher is kept. They leave no trace in the network. To add one, write such a function and decorate it:

    @scores.register("mine")
    def mine(model, layers, batch, *, generator):
        \"\"\"One line that says what it is.\"\"\"
        return {layer.name: ... for layer in layers}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from snas.densities import Layer
from snas.masks import weights_of
from snas.plugins import Family


class Batch(NamedTuple):
    """Examples: inputs x of shape (batch, *input_shape) and classes y of shape (batch,)."""

    x: Tensor
    y: Tensor


class Score(Protocol):
    """How much each weight matters."""

    def __call__(
        self, model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Score every weight of `layers`.

        Args:
            model: the dense network at its initial weights; unchanged on return.
            layers: the layers to score.
            batch: training examples.
            generator: the only source of randomness; a CPU generator.

        Returns:
            Layer name -> scores of the weight's shape, higher is kept.
        """
        ...


scores: Family[Score] = Family("score", group="snas.scores")


@scores.register("random")
def random(model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Every weight alike: scores are uniform random numbers."""
    return {layer.name: torch.rand(layer.shape, generator=generator) for layer in layers}


@scores.register("magnitude")
def magnitude(
    model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """Absolute value of the weight ([Lee2019] eq. 3.2)."""
    return {layer.name: weight.detach().abs() for layer, weight in zip(layers, weights_of(model, layers), strict=True)}


@scores.register("snip")
def snip(model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Connection sensitivity: by how much the loss changes with the weight's presence ([Lee2019] eq. 3.6).

    With c the indicators of presence, |dL/dc| = |dL/dw * w| ([Lee2020] eq. 4.3), divided by its sum over all layers;
    the loss is the cross-entropy of one batch. Normalization layers use the batch's statistics, dropout is off.

    Returns:
        Layer name -> scores in float32 on the CPU. All are 0 where the loss depends on no weight, NaN where the loss
        is not finite.

    Source:
        [Lee2019] N. Lee, T. Ajanthan, P. Torr: SNIP: Single-shot network pruning based on connection sensitivity,
        ICLR 2019.
    """
    weights = {
        layer.parameter: weight.detach().requires_grad_()
        for layer, weight in zip(layers, weights_of(model, layers), strict=True)
    }
    with _training_mode(model, generator), torch.enable_grad():
        # Buffers are replaced by copies, so that running statistics move there and not in the network.
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        device = next(iter(weights.values())).device
        logits: Tensor = functional_call(model, {**buffers, **weights}, (batch.x.to(device),))
        loss = functional.cross_entropy(logits.float(), batch.y.to(device))
        gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    with torch.no_grad():
        pairs = [(g.float().cpu(), w.float().cpu()) for g, w in zip(gradients, weights.values(), strict=True)]
        # Only ratios matter: scaling the gradients first keeps small products from vanishing in float32.
        largest = max(float(g.abs().max()) for g, _ in pairs)
        scale = largest if 0 < largest < math.inf else 1.0
        sensitivities = [(g / scale * w).abs() for g, w in pairs]
        total = sum(float(s.sum(dtype=torch.float64)) for s in sensitivities)
        return {layer.name: s / (total or 1.0) for layer, s in zip(layers, sensitivities, strict=True)}


@contextmanager
def _training_mode(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Training mode but for dropout, and a seeded global generator for what draws from it; both are put back."""
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        try:
            for module, _ in modes:
                module.training = not isinstance(module, nn.modules.dropout._DropoutNd)
            yield
        finally:
            for module, mode in modes:
                module.training = mode
