"""What can be seen of a network without computing anything: whether it may be written out, and what is like it."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as module_base
from torch.optim import optimizer as optimizer_base

from snas.copies import OF_MODULES
from snas.graphs.proofs import own_attributes

LARGEST = 1 << 19  # weights of a layer: beyond, its product takes nearly all of a step
_PLAIN = (int, float, bool, str, bytes, NoneType, torch.dtype, torch.device)  # attributes that count by their value
_HOOKS = tuple(name for name in OF_MODULES if name.endswith("_hooks"))
_KNOWN = ("torch.nn.modules.", "snas.")
_CODE = (type, FunctionType, BuiltinFunctionType)  # attributes that count by identity


class NotStraight(Exception):
    """The network's code is not a straight line of operations that can be written out; the message says why."""


class DrawsNumbers(NotStraight):
    """Random numbers were drawn while it was looked at, perhaps by somebody else."""


def watched_everywhere() -> bool:
    """Whether somebody has hooks on all modules, or all optimizers, of the process."""
    known = (*vars(module_base).items(), *vars(optimizer_base).items())
    return any(value for name, value in known if name.startswith("_global_") and name.endswith("_hooks"))


@dataclass(frozen=True, slots=True)
class Look:
    """What can be seen of a network.

    Attributes:
        all: everything, to be compared with that of other networks.
        memory: what its modules keep in attributes of their own, as `memory_of` finds it.
        known: whether its code is PyTorch's and ours alone, and all that it keeps are numbers and words. Such code
            reads nothing but what can be seen: networks that look alike compute the same.
    """

    all: Hashable
    memory: Hashable
    known: bool


def look(model: nn.Module, input_shape: Sequence[int]) -> Look | None:
    """All that can be seen of a network for these inputs; None where it is seen that it cannot be written out.

    Networks that look alike have modules of the same types and with the same attributes under the same names, and
    parameters of the same shapes. What they compute may still differ, by what other people's code finds elsewhere. One
    that has a module or a parameter under two names cannot be written out.

    Raises:
        NotStraight: for a module with an attribute of which nobody knows what it does.
    """
    linears, kinds, memory = 0, [], []
    seen: set[int] = set()
    dtypes: set[torch.dtype] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        if id(module) in seen:
            return None
        seen.add(id(module))
        kind, state = type(module), vars(module)
        own = _own(module, path)
        if module.training is not True or any(state.get(name) for name in _HOOKS):
            return None
        if any(name == "forward" or (name.endswith("_hooks") and state[name]) for name, _ in own):
            return None
        if kind is not nn.BatchNorm1d and any(buffer is not None for buffer in module._buffers.values()):
            return None
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return None
        linears += kind is nn.Linear
        shapes = []
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) in seen or not _is_usual(parameter):
                return None
            seen.add(id(parameter))
            dtypes.add(parameter.dtype)
            shapes.append((name, tuple(parameter.shape)))
        kinds.append((kind, kind.forward, tuple(shapes), tuple(module._modules)))
        memory.append((path, own))
    if not linears or len(dtypes) != 1:
        return None
    remembered = tuple(memory)
    known = all(kind.__module__.startswith(_KNOWN) for kind, *_ in kinds)
    known = known and all(
        type(value) is tuple and isinstance(value[1], _PLAIN) for _, own in memory for _, value in own
    )
    return Look((tuple(input_shape), *dtypes, *kinds, remembered), remembered, known)


def memory_of(model: nn.Module) -> Hashable:
    """Values of what modules keep in attributes of their own. Raises NotStraight for values that cannot be told."""
    return tuple((path, _own(module, path)) for path, module in model.named_modules())


@contextmanager
def no_random_numbers() -> Iterator[None]:
    """Raise DrawsNumbers if random numbers are drawn from global generators herein, which are put back."""
    before = torch.random.get_rng_state()
    numpys: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    pythons = random.getstate()
    same = False
    try:
        yield
        after: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
        same = after["state"]["pos"] == numpys["state"]["pos"] and after["gauss"] == numpys["gauss"]
        same = same and np.array_equal(after["state"]["key"], numpys["state"]["key"])
        same = same and random.getstate() == pythons and torch.equal(torch.random.get_rng_state(), before)
        if not same:
            raise DrawsNumbers("it draws random numbers")
    finally:
        if not same:
            torch.random.set_rng_state(before)
            np.random.set_state(numpys)  # noqa: NPY002
            random.setstate(pythons)


def _is_usual(parameter: nn.Parameter) -> bool:
    return (
        type(parameter) is nn.Parameter
        and parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.float64)
        and 1 <= parameter.ndim <= 2
        and parameter.numel() <= LARGEST
        and parameter.requires_grad
        and not parameter._backward_hooks
        and not parameter._post_accumulate_grad_hooks
    )


def _own(module: nn.Module, path: str) -> tuple[tuple[str, Hashable], ...]:
    """Names and values of a module's own attributes."""
    return tuple((name, _value_of(value, where=path)) for name, value in own_attributes(module).items())


def _value_of(value: object, *, where: str) -> Hashable:
    """An attribute as something that equal attributes have in common, and others not."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, _CODE):
        return value
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_value_of(each, where=where) for each in value)
    if isinstance(value, dict):
        return dict, tuple((_value_of(key, where=where), _value_of(each, where=where)) for key, each in value.items())
    raise NotStraight(f"module {where!r} has an attribute of type {type(value).__name__}")
