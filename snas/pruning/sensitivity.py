"""Connection sensitivity: what the loss says about each weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snas.densities import Layer
from snas.masks import weights_of
from snas.pruning.passes import isolated, total_gradient
from snas.pruning.scores import Batch, scores


@scores.register("snip")
def snip(model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Connection sensitivity: by how much the loss changes with the weight's presence ([Lee2019] eq. 3.6).

    With c the indicators of presence, |dL/dc| = |dL/d(cw) * w| ([Lee2020] eq. 4.3), divided by its sum over all layers.
    Where weights are gone already the gradient is that of the masked network and w the weight that there was: the
    saliency of [deJorge2021], section 4.1, by which weights may come back.

    L is the mean cross-entropy of all examples given (the whole training set: [Lee2020] eq. 4.1), computed in chunks
    whose signed gradients are added up in the weights' precision. Normalization layers use the statistics of a chunk,
    dropout is off. On top of the network's own gradients this takes memory for one more set where there are several
    chunks, and for one layer where there is one.

    Args:
        model: the network.
        layers: the layers to score.
        batch: training examples, the target of the loss (see `snas.pruning.passes.losses`), and the masks so far.
        generator: for networks that draw random numbers; a CPU generator.

    Returns:
        Layer name -> scores in float32 (float64 for a network in that) on the CPU. All are 0 where the loss depends on
        no weight, NaN where the loss is not finite.

    Source:
        [Lee2019] N. Lee, T. Ajanthan, P. Torr: SNIP: Single-shot network pruning based on connection sensitivity,
        ICLR 2019. [Lee2020] N. Lee et al.: A signal propagation perspective for pruning neural networks at
        initialization. [deJorge2021] P. de Jorge et al.: Progressive skeletonization.

    Example:
        The logits are w1 x1 + w2 x2 and its negative, so that scores are as |w1 x1| to |w2 x2|.

        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, -1.0], [-3.0, 1.0]])})
        >>> batch = Batch(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
        >>> snip(model, [Layer("fc", (2, 2), "weight")], batch, generator=torch.Generator())["fc"]
        tensor([[0.3000, 0.2000],
                [0.3000, 0.2000]])
    """
    with isolated(model, layers, batch, generator=generator) as weights:
        gradients = total_gradient(model, weights, batch)
    return products(gradients, model, layers, absolute=True)


@scores.register("gradient")
def gradient(
    model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """Absolute gradient of the loss by the weight, |dL/dw|: a control for SNIP ([Lee2019] figure 6).

    With SNIP's loss, and without the factor of the weight itself. Scores are in float32 (float64 for a network in
    that) on the CPU.
    """
    with isolated(model, layers, batch, generator=generator) as weights:
        gradients = total_gradient(model, weights, batch)
    return {layer.name: _precise(part).abs() for layer, part in zip(layers, gradients, strict=True)}


@torch.no_grad()
def products(factors: list[Tensor], model: nn.Module, layers: Sequence[Layer], *, absolute: bool) -> dict[str, Tensor]:
    """Each weight times its factor, divided by the sum of the absolute values.

    Args:
        factors: one tensor per layer, of its weight's shape. The list is emptied, to give memory back on the way.
        model: the network, whose weights are the other factors.
        layers: the layers.
        absolute: whether products lose their sign.

    Returns:
        Layer name -> products, float32 or float64, on the CPU.
    """
    # Only ratios matter: scaling the factors first keeps small products from vanishing in float32.
    largest = max((float(factor.abs().max()) for factor in factors), default=0.0)
    scale = largest if 0 < largest < math.inf else 1.0
    results = []
    factors.reverse()
    for weight in weights_of(model, layers):
        factor = _precise(factors.pop())
        product = (factor / scale).mul_(_precise(weight))
        results.append(product.abs_() if absolute else product)
    total = sum(float(result.abs().sum(dtype=torch.float64)) for result in results) or 1.0
    return {layer.name: result.div_(total) for layer, result in zip(layers, results, strict=True)}


def _precise(values: Tensor) -> Tensor:
    """On the CPU, in float32 at least."""
    values = values.detach().cpu()
    return values if values.dtype == torch.float64 else values.float()
