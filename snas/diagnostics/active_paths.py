"""What the kept weights of a network connect, whatever their values: active paths, units and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snas.graphs import Graph
from snas.masks import Masks, units, weights_of
from snas.pruning.paths import NORMALIZATIONS
from snas.pruning.scores import Batch
from snas.pruning.synflow import Linearized, flowing_copy
from snas.pruning.walks import Walks
from snas.search_spaces.weights import weights_in

# Powers of two, so that scaling by them does not round. Signals and gradients are scaled apart, which lets each count
# up to 2**2000 paths.
_SHRINK = 1000


def path_signals(model: nn.Module, masks: Masks, x: Tensor, *, graph: Graph | None = None) -> dict[str, float]:
    """What leads from input to output in a masked network at its initial weights.

    Perceptrons of known code are walked through by their graphs (`snas.pruning.walks`), which gives the same numbers to
    rounding. For others, all are of a copy, in double precision on the CPU, that is linear for positive signals (see
    `snas.pruning.synflow`). It is looked at with three sets of weights: absolute values; ones; and ones divided by the
    kept inputs of their unit, which keeps signals in range at any depth.

    Args:
        model: the network; unchanged.
        masks: which weights it keeps.
        x: examples, shape (n, *input_shape); only their shape is used.
        graph: of the network, known (`snas.graphs`); looked for where it is not given.

    Returns:
        synflow: log10 of the flow R = 1^T prod |W| 1 ([Tanaka2020] eq. 2).
        paths: log10 of the number of paths of kept weights from an input to an output ([Pham2023] effective paths).
            Each position that a convolution is used at counts; normalizations lead straight on; an average pools paths
            by their mean, a maximum by the most.
        width: the share of a layer's output units that a path leads through, averaged over layers ([Pham2023] effective
            nodes, as a share).
        effective: the share of kept weights that a path leads through; one minus it is what the density does not tell
            of the effective sparsity ([Vysogorets2023]).

        A signal beyond double precision is left out, and a logarithm of 0.

    Source:
        [Tanaka2020] H. Tanaka, D. Kunin, D. Yamins, S. Ganguli: Pruning neural networks without any data by iteratively
        conserving synaptic flow, NeurIPS 2020.
        [Pham2023] H. Pham, T.-A. Ta, S. Liu et al.: Towards data-agnostic pruning at initialization: what makes a good
        sparse mask?, NeurIPS 2023.
        [Vysogorets2023] A. Vysogorets, J. Kempe: Connectivity matters: neural network pruning through the lens of
        effective sparsity, JMLR 24 (99), 2023.

    Example:
        Two inputs, two hidden units, one output; the second hidden unit leads nowhere.

        >>> from snas.densities import Layer
        >>> layers = (Layer("0", (2, 2)), Layer("1", (1, 2)))
        >>> masks = Masks(layers, {"0": torch.tensor([[1, 1], [0, 1]]) > 0, "1": torch.tensor([[1, 0]]) > 0})
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> found = path_signals(model, masks, torch.zeros(1, 2))
        >>> round(10 ** found["paths"]), found["width"], found["effective"]
        (2, 0.75, 0.75)
    """
    if (walks := Walks.of(model, masks, x.shape[1:], graph=graph)) is not None:
        shares, weights = walks.used()
        found = {"synflow": _log10(walks.flow()), "paths": _scaled_back(walks.count(math.ldexp(1.0, -_SHRINK)))}
    else:
        found, shares, weights = _by_copy(model, masks, x)
    found["width"] = sum(shares) / len(shares)
    found["effective"] = sum(weights) / max(1, masks.kept.kept_weights)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _by_copy(model: nn.Module, masks: Masks, x: Tensor) -> tuple[dict[str, float], list[float], list[int]]:
    """Flow and paths; and of each layer, the share of output units and the number of kept weights on a path."""
    flowing = flowing_copy(model, masks.layers, Batch(x[:1], torch.zeros(1), masks=masks))
    ones = torch.ones((1, *x.shape[1:]), dtype=torch.float64)
    layers = dict(zip(masks, weights_of(flowing, masks.layers), strict=True))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        found = {"synflow": _log10(float(_run(flowing, ones).detach().sum()))}
        _pass_normalizations(flowing)
        weights = _set_to_one(flowing, layers, masks)
        found["paths"] = _count_paths(flowing, ones)
        _share(weights)
        used = _used(flowing, layers, masks, ones)
    shares = [float(mask.reshape(len(mask), -1).any(1).mean()) for mask in used]
    return found, shares, [int(np.count_nonzero(mask)) for mask in used]


def _run(flowing: nn.Module, x: Tensor) -> Tensor:
    with Linearized():
        output: Tensor = flowing(x)
    return output


def _count_paths(flowing: nn.Module, ones: Tensor) -> float:
    """Log10 of the sum of the outputs' derivatives with respect to the inputs: of the number of paths."""
    scale = math.ldexp(1.0, -_SHRINK)
    x = (ones * scale).requires_grad_(True)
    output = _run(flowing, x)
    if not output.requires_grad:
        return -math.inf
    (gradient,) = torch.autograd.grad(output, x, torch.full_like(output, scale), materialize_grads=True)
    return _scaled_back(float(gradient.sum()))


def _scaled_back(count: float) -> float:
    """Log10 of a count that was scaled down; the scale is taken off without leaving the range of a double."""
    return _log10(count) + _SHRINK * math.log10(2)


def _used(flowing: nn.Module, layers: Mapping[str, Tensor], masks: Masks, ones: Tensor) -> list[NDArray[np.bool_]]:
    """Of each layer, the kept weights that a path leads through: those with a signal and a gradient."""
    output = _run(flowing, ones).sum()
    if not output.requires_grad:
        return [np.zeros(layer.shape, dtype=np.bool_) for layer in masks.layers]
    gradients = torch.autograd.grad(output, list(layers.values()), materialize_grads=True)
    return [(gradient.numpy() != 0) & mask.numpy() for gradient, mask in zip(gradients, masks.values(), strict=True)]


@torch.no_grad()
def _set_to_one(flowing: nn.Module, layers: Mapping[str, Tensor], masks: Masks) -> list[Tensor]:
    """Make every kept weight 1, and return the weights of all layers. Those without a mask are kept."""
    known = {id(weight): masks[name] for name, weight in layers.items()}
    weights = {id(own.tensor): own.tensor for module in flowing.modules() for own in weights_in(module)}
    for key, weight in weights.items():
        weight.copy_(known[key].view(torch.uint8)) if key in known else weight.fill_(1)
    return list(weights.values())


@torch.no_grad()
def _share(weights: Sequence[Tensor]) -> None:
    """Divide weights that are 1 or 0 by the kept inputs of their unit."""
    for weight in weights:
        weight *= (1 / units(weight).clamp(min=1)).reshape(-1, *[1] * (weight.ndim - 1))


def _pass_normalizations(flowing: nn.Module) -> None:
    """Let normalizations pass their input: they have no weights that a path could use, and their factors are alike."""
    for module in flowing.modules():
        if isinstance(module, NORMALIZATIONS):
            module.forward = _pass  # type: ignore[method-assign]


def _pass(x: Tensor) -> Tensor:
    return x


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf
