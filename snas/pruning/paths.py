"""Whether a masked network can work at all, found out before anything is spent on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import proxy

import torch
from torch import Tensor, nn

from snas.copies import evaluation_copy
from snas.densities import Densities
from snas.errors import RefusedError, one_line
from snas.masks import Masks, units, weights_of
from snas.positive import positive
from snas.pruning.walks import Walks
from snas.search_spaces.weights import GRUS, LSTMS, PRUNABLE, weights_in

log = logging.getLogger("snas")

NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)

# Small enough that no activation saturates, even where skip connections add up; see `has_path`.
INPUT = 1e-6

# Biases of gated recurrent layers. A gate multiplies a value, so what it reads only shows where that value is not zero.
GATE_BIAS = 0.1


def require_trainable(model: nn.Module, masks: Masks, *, input_shape: Sequence[int]) -> None:
    """Refuse a masked network that cannot learn from its input. The model is left as it is.

    Args:
        model: the network; its weights do not matter.
        masks: which weights it keeps.
        input_shape: shape of one example.

    Raises:
        RefusedError: if a layer keeps no weight, or no path of kept weights leads from the input to the output.
    """
    refuse_empty(masks.kept)
    if masks.kept.kept_weights == masks.kept.total_weights or has_path(model, masks, input_shape=input_shape):
        return
    # A dense network that fails too does so for a reason that is not its mask's: the check says nothing about it.
    if has_path(model, Masks.dense(masks.layers), input_shape=input_shape):
        raise RefusedError("no path of kept weights leads from the input to the output")


def refuse_empty(densities: Densities) -> None:
    """Raise RefusedError if a layer keeps no weight."""
    for layer, kept in zip(densities.layers, densities.kept, strict=True):
        if kept == 0:
            raise RefusedError(f"layer {layer.name!r} keeps none of its {layer.total} weights")


def has_path(model: nn.Module, masks: Masks, *, input_shape: Sequence[int]) -> bool:
    """Whether the output depends on the input through kept weights.

    Perceptrons of known code are walked through by their graphs (`snas.pruning.walks`). Of others, a copy gets positive
    weights where the masks keep one, no biases (but small ones in LSTMs and GRUs), and averages for normalizations; a
    small positive input then makes every signal positive, nothing cancels, and the output's gradient with respect to
    the input is zero exactly where no path leads. A gate that the input reaches is a path, for it scales what the bias
    gives. Weights are divided by the number of kept inputs of their unit, which keeps signals in range at any depth,
    and differ at random, so that an output that is normalized (log-softmax) still depends on them. The answer is true
    also where the copy cannot be made or run.
    """
    try:
        if (walks := Walks.of(model, masks, input_shape)) is not None:
            return walks.lead()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            probe = _probe(model, masks)
            x = torch.full((1, *input_shape), INPUT, dtype=torch.float64, requires_grad=True)
            output: Tensor = probe(x)
            direction = positive(output.shape, 0)
            if not output.requires_grad:
                return False
            (gradient,) = torch.autograd.grad((output * direction).sum(), x, allow_unused=True)
    except (RuntimeError, TypeError, ValueError) as error:
        log.info("the path check is left out: the network cannot be probed (%s)", one_line(error))
        return True
    return gradient is not None and bool(torch.count_nonzero(gradient))


def _probe(model: nn.Module, masks: Masks) -> nn.Module:
    """The copy, in evaluation mode and double precision, on the CPU."""
    probe = evaluation_copy(model)
    masked = list(zip(masks, weights_of(probe, masks.layers), strict=True))
    weights: dict[int, Tensor] = {id(weight): weight for _, weight in masked}
    known = {id(weight): masks[name] for name, weight in masked}
    with torch.no_grad():
        for module in probe.modules():
            if isinstance(module, NORMALIZATIONS):
                # No cycle: the copy is freed at once.
                module.forward = partial(_average, proxy(module))  # type: ignore[method-assign]
            if isinstance(module, PRUNABLE) and module.bias is not None:
                module.bias.zero_()
            for own in weights_in(module):
                weights[id(own.tensor)] = own.tensor
                if own.bias is not None:
                    own.bias.fill_(GATE_BIAS if isinstance(module, (*LSTMS, *GRUS)) else 0.0)
        for place, (key, weight) in enumerate(weights.items(), 1):
            values = positive(weight.shape, place)
            if key not in known:
                torch.div(values, weight[0].numel(), out=weight)
            else:
                kept = units(known[key]).clamp(min=1).reshape(-1, *[1] * (weight.ndim - 1))
                weight.copy_(known[key].view(torch.uint8)).mul_(values).mul_(1 / kept.double())
    return probe


def _average(module: Any, x: Tensor) -> Tensor:
    """What stands for a normalization: it leads wherever that does, with positive weights."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return (x + x.mean(tuple(range(-len(module.normalized_shape), 0)), keepdim=True)) / 2
    if isinstance(module, nn.GroupNorm):
        groups = x.reshape(len(x), module.num_groups, -1)
        return ((groups + groups.mean(2, keepdim=True)) / 2).reshape(x.shape)
    return x
