"""Synaptic flow: what each weight passes on, whatever the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any
from weakref import proxy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from snas.copies import evaluation_copy
from snas.densities import Layer
from snas.errors import RefusedError
from snas.masks import weights_of, zero_masked
from snas.pruning.scores import Batch, scores

# Activations that are not linear for positive signals, as torch names its functions.
SATURATING = frozenset(
    {
        *("tanh", "sigmoid", "expit", "hardtanh", "hardsigmoid", "relu6", "softsign", "softmax", "log_softmax"),
        *("softmin", "gelu", "silu", "mish", "hardswish", "softplus", "logsigmoid", "log_sigmoid"),
        *("tanhshrink", "softshrink", "hardshrink"),
    }
)


@scores.register("synflow")
def synflow(
    model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """Synaptic flow: the share of all flow from input to output that passes the weight ([Tanaka2020] eq. 2).

    R = 1^T prod |W| 1 is the sum of the outputs of a copy of the network with absolute weights, for an input of ones;
    the score is |w dR/dw| / R. It needs no data but the shape of an example. It is computed in double precision and
    evaluation mode, on the CPU wherever the network is.

    The scores of a layer that every path crosses once add up to exactly 1 ([Tanaka2020] theorem 2), which keeps such
    layers from being emptied. This is so because the copy is linear for positive signals: biases are zero; BatchNorm
    is its evaluation mode's factor, without its shift; other normalizations average; what saturates (tanh, sigmoid,
    softmax) passes its input. Recurrent layers pass the mean of their gates, attention the mean of queries, keys and
    values, or else products of signals would make flow of flow. Weights that are used several times, as in recurrent
    layers, have the sum over their uses. The published code differs in one thing: it leaves biases and shifts in, as
    absolute values. At initialization they are zero, and scores are the same.

    Args:
        model: the network.
        layers: the layers to score.
        batch: its inputs' shape and its masks are used, nothing else.
        generator: not used.

    Returns:
        Layer name -> scores in float64 on the CPU, 0 for weights that are gone or lead nowhere.

    Raises:
        RefusedError: if the flow is too large for double precision.

    Source:
        [Tanaka2020] H. Tanaka, D. Kunin, D. Yamins, S. Ganguli: Pruning neural networks without any data by iteratively
        conserving synaptic flow, NeurIPS 2020.

    Example:
        Of the paths 3 * 1 and 1 * 1, the first carries three quarters.

        >>> model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
        >>> _ = model.load_state_dict({"0.weight": torch.tensor([[3.0], [-1.0]]), "1.weight": torch.ones(1, 2)}, False)
        >>> batch = Batch(torch.zeros(1, 1), torch.zeros(1))
        >>> synflow(model, [Layer("1", (1, 2))], batch, generator=torch.Generator())["1"]
        tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    flowing = flowing_copy(model, layers, batch)
    weights = weights_of(flowing, layers)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), Linearized():
        flow: Tensor = flowing(torch.ones(1, *batch.x.shape[1:], dtype=torch.float64)).sum()
    gradients = (
        torch.autograd.grad(flow, weights, materialize_grads=True)
        if flow.requires_grad
        else [torch.zeros_like(weight) for weight in weights]
    )
    if not all(bool(torch.isfinite(values).all()) for values in (flow, *gradients)):
        raise RefusedError(
            f"the synaptic flow through this network is {float(flow.detach()):g}, beyond double precision; "
            "prune it by another score, such as snip"
        )
    total = float(flow.detach()) or 1.0
    with torch.no_grad():
        pairs = zip(layers, weights, gradients, strict=True)
        return {layer.name: (gradient * weight).abs_().div_(total) for layer, weight, gradient in pairs}


def flowing_copy(model: nn.Module, layers: Sequence[Layer], batch: Batch) -> nn.Module:
    """A copy that is linear for positive signals inside `Linearized`: double precision on the CPU, evaluation mode,
    absolute weights, no biases, and modules that pass signals on."""
    flowing = evaluation_copy(model)
    with torch.no_grad():
        for name, parameter in flowing.named_parameters():
            parameter.requires_grad_(False)
            if "bias" in name.rpartition(".")[2]:
                parameter.zero_()
            parameter.abs_()
        for layer, weight in zip(layers, weights_of(flowing, layers), strict=True):
            weight.requires_grad_(True)
            if batch.masks is not None:
                zero_masked(weight, batch.masks[layer.name])
    for module in flowing.modules():
        for kinds, passing in SURROGATES:
            if isinstance(module, kinds):
                module.forward = partial(passing, proxy(module))  # no cycle, as in `paths`
    return flowing


@lru_cache(maxsize=1024)
def _name_of(func: Any) -> str:
    """What torch calls a function, whether it is special, or works in place."""
    name: str = getattr(func, "__name__", "")
    return name.removeprefix("special_").removesuffix("_")


class Linearized(TorchFunctionMode):
    """Activations that saturate pass their input, however they are called."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        name = _name_of(func)
        if name == "glu":
            values = args[0] if args else options["input"]
            first, second = values.chunk(2, args[1] if len(args) > 1 else options.get("dim", -1))
            return (first + second) / 2
        if name in SATURATING:
            return args[0] if args else options["input"]
        return func(*args, **options)


def _normalization(module: Any, x: Tensor) -> Tensor:
    """A normalization's factors, and its mixing of signals, without what makes it independent of their size."""
    scale: Tensor | None = getattr(module, "weight", None)
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        mixed = (x + x.mean(tuple(range(-len(module.normalized_shape), 0)), keepdim=True)) / 2
        return mixed if scale is None else mixed * scale
    if isinstance(module, nn.LocalResponseNorm):
        return x
    if isinstance(module, nn.GroupNorm):
        groups = x.reshape(len(x), module.num_groups, -1)
        x = ((groups + groups.mean(2, keepdim=True)) / 2).reshape(x.shape)
    elif module.running_var is not None:
        spread = (module.running_var + module.eps).rsqrt()
        scale = spread if scale is None else scale * spread
    return x if scale is None else x * scale.reshape(-1, *[1] * (x.ndim - 2))


def _recurrent(module: nn.RNNBase, x: Tensor, *_: Any) -> tuple[Tensor, Any]:
    """All layers and directions of a recurrent module."""
    sequence = x.transpose(0, 1) if module.batch_first else x
    last: list[Tensor] = []
    cells: list[Tensor] = []
    for layer in range(module.num_layers):
        directions = []
        for suffix in ("", "_reverse")[: 2 if module.bidirectional else 1]:
            w_input, w_state = (getattr(module, f"weight_{kind}_l{layer}{suffix}") for kind in ("ih", "hh"))
            project: Tensor | None = getattr(module, f"weight_hr_l{layer}{suffix}", None)
            states: list[Tensor] = []
            for step in sequence.flip(0) if suffix else sequence:
                cell = _gates(step, states[-1] if states else None, w_input, w_state, module.hidden_size)
                states.append(cell if project is None else cell @ project.T)
            last.append(states[-1])
            cells.append(cell)
            directions.append(torch.stack(states[::-1] if suffix else states))
        sequence = torch.cat(directions, -1)
    output = sequence.transpose(0, 1) if module.batch_first else sequence
    hidden = torch.stack(last)
    return output, (hidden, torch.stack(cells)) if isinstance(module, nn.LSTM) else hidden


def _cell(module: Any, x: Tensor, state: Any = None) -> Any:
    """One step of a recurrent cell."""
    before: Tensor | None = state[0] if isinstance(state, tuple) else state
    after = _gates(x, before, module.weight_ih, module.weight_hh, module.hidden_size)
    return (after, after) if isinstance(module, nn.LSTMCell) else after


def _gates(x: Tensor, state: Tensor | None, w_input: Tensor, w_state: Tensor, units: int) -> Tensor:
    """The mean of what the gates pass, shape (..., units)."""
    passed = x @ w_input.T if state is None else x @ w_input.T + state @ w_state.T
    return passed.reshape(*passed.shape[:-1], -1, units).mean(-2)


def _attention(module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    """Queries, and the mean over all positions of keys and values; there are no attention weights."""
    stacked = module.in_proj_weight
    w_query, w_key, w_value = (
        (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight) if stacked is None else stacked.chunk(3)
    )
    positions = 1 if module.batch_first and query.ndim == 3 else 0
    others = (key @ w_key.T).mean(positions, keepdim=True) + (value @ w_value.T).mean(positions, keepdim=True)
    return functional.linear((query @ w_query.T + others) / 3, module.out_proj.weight), None


SURROGATES: tuple[tuple[tuple[type[nn.Module], ...], Callable[..., Any]], ...] = (
    (
        (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm),
        _normalization,
    ),
    ((nn.RNNBase,), _recurrent),
    ((nn.RNNCellBase,), _cell),
    ((nn.MultiheadAttention,), _attention),
)
