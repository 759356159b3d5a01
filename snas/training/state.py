"""A network in training as named tensors: its parameters and buffers, and what its optimizer remembers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snas.masks import Masks

MODEL, OPTIMIZER = "model/", "optimizer/"
KEPT = "kept/"  # of a weight, or what the optimizer remembers of it, where masked entries are left out
OF_MASKS = "masks/sha256"  # which ones
WORTH_IT = 2  # entries for one that is kept


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


def without_masked(state: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """The same state with the kept weights alone, and what is remembered of them, of layers that lack half or more.

    Args:
        state: from `state_of`; masked weights and what is remembered of them are zero.
        masks: of the network.

    Returns:
        Name -> tensor; "kept/NAME" in the place of NAME has the kept entries in their order, shape (kept,), and
        "masks/sha256" the masks' checksum, shape (32,), bytes.
    """
    found = dict(state)
    names: dict[str, list[str]] = {}
    for name in state:
        names.setdefault(_owner(name), []).append(name)
    for layer in masks.layers:
        if WORTH_IT * masks.kept.counts[layer.name] > layer.total:
            continue
        kept = torch.from_numpy(np.flatnonzero(masks[layer.name].numpy()))  # three times as fast as torch's
        for name in names.get(layer.parameter, ()):
            if state[name].shape == layer.shape:
                found[KEPT + name] = found.pop(name).detach().cpu().reshape(-1).index_select(0, kept)
    if found.keys() != state.keys():
        found[OF_MASKS] = _checksum(masks)
    return found


def with_masked(state: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """What `without_masked` was made of, in the order of names, and states that lack nothing as they are.

    Raises:
        RuntimeError: if the state is of other masks.
    """
    if not any(name.startswith(KEPT) for name in state):
        return dict(state)
    given = state.get(OF_MASKS)
    if given is None or not torch.equal(given.cpu(), _checksum(masks)):
        raise RuntimeError("it is of other masks")
    found = {}
    layers = {layer.parameter: layer.name for layer in masks.layers}
    for name, value in state.items():
        whole = name.removeprefix(KEPT)
        if whole != name:
            layer = layers.get(_owner(whole))
            if layer is None or value.numel() != masks.kept.counts[layer]:
                raise RuntimeError(f"{whole} has {value.numel()} kept weights, which the masks have not")
            value = value.new_zeros(masks[layer].shape).masked_scatter_(masks[layer], value)
        if name != OF_MASKS:
            found[whole] = value
    return dict(sorted(found.items()))


def _checksum(masks: Masks) -> Tensor:
    return torch.tensor(list(bytes.fromhex(masks.checksum())), dtype=torch.uint8)


def _owner(name: str) -> str:
    """The parameter or buffer that something in a state is, or that an optimizer remembers it of."""
    return name.removeprefix(MODEL) if name.startswith(MODEL) else name.removeprefix(OPTIMIZER).rpartition("/")[0]
