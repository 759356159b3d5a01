"""A network in training as named tensors: its parameters and buffers, and what its optimizer remembers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MODEL, OPTIMIZER = "model/", "optimizer/"


def state_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """All state, by name; parameters' own tensors, not copies.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> list(state_of(model, torch.optim.SGD(model.parameters())))
        ['model/weight', 'model/bias']
    """
    state = {MODEL + name: value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                state[f"{OPTIMIZER}{name}/{key}"] = torch.as_tensor(value)
    return state


def misfit(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What of the network's is missing in a state, or has another shape there, or is unknown; "" where nothing is."""
    given = {name: tuple(value.shape) for name, value in state.items() if name.startswith(MODEL)}
    own = {MODEL + name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name, shape in own.items():
        if given.get(name) != shape:
            return f"{name.removeprefix(MODEL)} is {given.get(name, 'missing')}, not {shape}"
    more = next((name for name in given if name not in own), None)
    return "" if more is None else f"{more.removeprefix(MODEL)} is unknown"


def load_state(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Restore what `state_of` returned; the optimizer remembers copies."""
    model.load_state_dict({name.removeprefix(MODEL): value for name, value in state.items() if name.startswith(MODEL)})
    for name, parameter in model.named_parameters():
        prefix = f"{OPTIMIZER}{name}/"
        for key, value in state.items():
            if key.startswith(prefix):
                fused = optimizer.param_groups[0].get("fused")
                where = parameter.device if fused else value.device  # of a count of steps
                of_weights = value.shape == parameter.shape
                like = torch.empty_like(parameter) if of_weights else torch.empty_like(value, device=where)
                optimizer.state[parameter][key.removeprefix(prefix)] = like.copy_(value)
