"""Copies of networks that are only looked at."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

# What a deep copy returns as it is.
_ATOMS = frozenset({NoneType, bool, int, float, complex, str, bytes, type, FunctionType, BuiltinFunctionType})
_CONTAINERS = frozenset({dict, OrderedDict, list, set})
OF_MODULES = frozenset(vars(nn.Module()))  # attributes that every module has


def double_copy(model: nn.Module) -> nn.Module:
    """The same as `copy.deepcopy(model).to("cpu", torch.float64)`, in a quarter of the time or less for small networks.

    Nearly all the time of a deep copy goes into the dozen empty dictionaries that every module has for its hooks. Here
    modules, plain containers and tensors are copied directly, and what else they hold by `copy.deepcopy`, as is the
    whole network where a class has its own way of copying or converting.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> twin = double_copy(model)
        >>> twin[0].weight.dtype, bool((twin[0].weight == model[0].weight).all()), twin[0].weight is model[0].weight
        (torch.float64, True, False)
    """
    twin = with_tensors(model, _double)
    return copy.deepcopy(model).to("cpu", torch.float64) if twin is None else twin


def with_tensors(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module | None:
    """A deep copy with parameters and buffers that `convert` makes of the network's, one for each; None where something
    has its own way of being copied or converted."""
    modules = list(model.modules())
    kinds: set[Any] = {type(module) for module in modules}
    if not all(_is_plain(kind) for kind in kinds):
        return None
    memo: dict[int, Any] = {}
    for module in modules:
        for tensor in chain(module._parameters.values(), module._buffers.values()):
            if tensor is not None and id(tensor) not in memo:
                if not _is_plain_tensor(tensor):
                    return None
                memo[id(tensor)] = convert(tensor)
    twin: nn.Module = _copy(model, memo)
    return twin


def evaluation_copy(model: nn.Module) -> nn.Module:
    """The same as `double_copy(model).eval()`, without the detours of setting an attribute of a module."""
    twin = double_copy(model)
    modules = list(twin.modules())
    if any(type(each).train is not nn.Module.train or type(each).eval is not nn.Module.eval for each in modules):
        return twin.eval()
    for module in modules:
        vars(module)["training"] = False
    return twin


def _double(tensor: Tensor) -> Tensor:
    """A copy as `nn.Module.to` makes it."""
    changes = tensor.is_floating_point() or tensor.is_complex()
    values = tensor.detach().to("cpu", torch.float64 if changes else tensor.dtype, copy=True)
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy(value, memo)`."""
    kind: Any = type(value)
    if kind in _ATOMS:
        return value
    if (known := memo.get(id(value))) is not None:
        return known
    twin: Any
    if kind in _CONTAINERS and not value:
        twin = memo[id(value)] = kind()
        return twin
    if kind is dict or kind is OrderedDict:
        twin = memo[id(value)] = kind()
        twin.update(_copy_values(value, memo))
        return twin
    if isinstance(value, nn.Module) and _is_plain(kind):
        twin = memo[id(value)] = kind.__new__(kind)
        twin.__setstate__(
            {
                # The dozen for its hooks are of this module alone: they need not be known when met again.
                name: type(own)()
                if name in OF_MODULES and not own and type(own) in _CONTAINERS
                else _copy(own, memo)
                if type(own) not in _ATOMS
                else own
                for name, own in vars(value).items()
            }
        )
        return twin
    if kind is tuple and all(type(own) in _ATOMS for own in value):
        return value
    return copy.deepcopy(value, memo)


def _copy_values(values: Mapping[Any, Any], memo: dict[int, Any]) -> dict[Any, Any]:
    return {
        key if type(key) is str else _copy(key, memo): own if type(own) in _ATOMS else _copy(own, memo)
        for key, own in values.items()
    }


def _is_plain_tensor(tensor: Tensor) -> bool:
    kind = type(tensor)
    return kind is nn.Parameter or (kind is Tensor and not tensor.requires_grad and not vars(tensor))


@lru_cache(maxsize=256)
def _is_plain(kind: Any) -> bool:
    """Whether a deep copy of such a module is a new object with copies of its attributes, and all that `nn.Module.to`
    does to it is to convert its parameters and buffers."""
    own = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__")
    same = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "_apply", "to")
    return (
        not any(hasattr(kind, name) for name in own)
        and all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in same)
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )
