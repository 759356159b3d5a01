"""Find the prunable layers of any network by building it once and watching two examples pass through.

The network is built on torch's "meta" device, which has shapes and no values, so that looking at a network of a
billion weights costs neither memory nor time. A factory that cannot be built there is built for real instead; errors
are always those of the real one.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from snas.densities import Layer
from snas.errors import InputError, one_line
from snas.search_spaces.weights import KINDS, PRUNABLE, positions_in, weights_in

__all__ = ["PRUNABLE", "fingerprint", "finish", "inspect_network"]

# Modules whose printed form leaves options out.
_TERSE = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_EXAMPLES = 2  # more than one, so that a network that mixes the examples of a batch is noticed


def inspect_network(
    factory: Callable[[], nn.Module], input_shape: tuple[int, ...], *, name: str
) -> tuple[tuple[Layer, ...], int, str]:
    """Return the network's prunable layers, in the order of their definition, its number of classes, its fingerprint.

    A layer is one weight: of a Linear or Conv1d/2d/3d, filed under the module's name; of a recurrent layer or cell, or
    of attention's projections, under the parameter's ("rnn.weight_ih_l0", "attention.in_proj_weight"). A weight shared
    by several modules is one layer, named after the first of them and used at the positions of all. A layer whose
    weight is computed from other parameters (weight normalization), or does not reach the output, is left out.

    Args:
        factory: returns a new dense network at every call; it maps (batch, *input_shape) to (batch, classes).
        input_shape: shape of one example.
        name: of the space, for errors.

    Raises:
        InputError: if the factory raises, returns no module, or the same one twice, there is no prunable layer, or the
            network does not map (batch, *input_shape) to (batch, classes).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _inspect(factory, input_shape, name, torch.device("meta"))
    except Exception:
        # Whatever went wrong may be due to "meta" alone: the real network decides.
        return _inspect(factory, input_shape, name, torch.device("cpu"))


def finish(model: nn.Module, input_shape: tuple[int, ...], *, name: str) -> nn.Module:
    """Return a freshly built network ready for use: its lazy layers take their shapes from one pass.

    Raises:
        InputError: if the network has no values, or rejects its input.
    """
    tensors = list(_tensors(model))
    if any(is_lazy(tensor) for tensor in tensors):
        _watch(model, input_shape, name)
        tensors = list(_tensors(model))
    if any(tensor.is_meta for tensor in tensors):
        raise InputError(
            f"space {name!r}: its factory returned a network without values (on torch's meta device); "
            "it must build a new network at every call and keep none"
        )
    return model


def fingerprint(model: nn.Module) -> str:
    """A digest of what a network computes, as far as code can tell: its modules with their options, the names and
    shapes of its parameters and buffers, and the source of every module class that is neither PyTorch's nor ours."""
    parts = [re.sub(r" at 0x[0-9a-f]+", "", repr(model))]
    parts += [f"{key} {tuple(tensor.shape)}" for key, tensor in model.state_dict(keep_vars=True).items()]
    parts += [f"{path} {_options(module)}" for path, module in model.named_modules() if isinstance(module, _TERSE)]
    for kind in sorted({type(module) for module in model.modules()}, key=lambda kind: kind.__qualname__):
        if kind.__module__.partition(".")[0] not in ("torch", "snas"):
            with suppress(OSError, TypeError):  # classes typed at a prompt have no source
                parts.append(inspect.getsource(kind))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _inspect(
    factory: Callable[[], nn.Module], input_shape: tuple[int, ...], name: str, device: torch.device
) -> tuple[tuple[Layer, ...], int, str]:
    model = _build(factory, name, device)
    if device.type == "meta":
        if not all(tensor.is_meta for tensor in _tensors(model)):
            raise InputError(f"space {name!r} is not built on the device that was asked for")
    elif _build(factory, name, device) is model:
        raise InputError(f"space {name!r}: its factory returned the same network twice; build a new one at every call")
    owners: dict[int, tuple[str, nn.Parameter]] = {}
    for path, module in model.named_modules():
        for weight in weights_in(module):
            own = "" if weight.name == "weight" and path else weight.name
            owners.setdefault(id(weight.tensor), (".".join(filter(None, (path, own))), weight.tensor))
    if not owners:
        raise InputError(
            f"space {name!r} has no prunable layer; expected a Linear, Conv1d/2d/3d, recurrent or attention layer in "
            "the network"
        )
    positions, output = _watch(model, input_shape, name)
    owners = _reaching(model, owners, positions, input_shape, device)
    if not owners:
        raise InputError(f"space {name!r} has no prunable layer that reaches the output")
    parameters = {id(parameter): path for path, parameter in model.named_parameters()}
    layers = tuple(
        Layer(
            name=layer,
            shape=tuple(weight.shape),
            parameter=parameters[key],
            positions=max(1, positions.get(key, 1)),
        )
        for key, (layer, weight) in owners.items()
    )
    return layers, int(output.shape[1]), fingerprint(model)


def _reaching(
    model: nn.Module,
    owners: dict[int, tuple[str, nn.Parameter]],
    positions: dict[int, int],
    input_shape: tuple[int, ...],
    device: torch.device,
) -> dict[int, tuple[str, nn.Parameter]]:
    """Leave out layers that were not called and whose weight no gradient reaches: a network does not use them."""
    uncalled = [key for key in owners if key not in positions]
    if not uncalled:
        return owners
    weights = [owners[key][1] for key in uncalled]
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    model.eval()
    with torch.random.fork_rng(devices=[]), device if device.type == "meta" else nullcontext():
        output = model(torch.zeros(_EXAMPLES, *input_shape, device=device))
        gradients: Sequence[Tensor | None] = [None] * len(weights)
        if output.requires_grad:
            gradients = torch.autograd.grad(output.sum(), weights, allow_unused=True)
    for weight in frozen:
        weight.requires_grad_(False)
    unused = {key for key, gradient in zip(uncalled, gradients, strict=True) if gradient is None}
    return {key: owner for key, owner in owners.items() if key not in unused}


def _build(factory: Callable[[], nn.Module], name: str, device: torch.device) -> nn.Module:
    """Call the factory with `device` as the default one; global random state stays as it is."""
    with torch.random.fork_rng(devices=[]), device:
        torch.default_generator.manual_seed(0)
        try:
            model = factory()
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"space {name!r}: its factory raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"space {name!r}: its factory returned {type(model).__name__}; expected a torch.nn.Module")
    return model


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers; shared ones as often as they are there."""
    for module in model.modules():
        for tensor in chain(module._parameters.values(), module._buffers.values()):
            if tensor is not None:
                yield tensor


def _watch(model: nn.Module, input_shape: tuple[int, ...], name: str) -> tuple[dict[int, int], Tensor]:
    """Run two examples; return at how many positions each weight (by id) is used for one of them, and the output."""
    positions: dict[int, int] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], options: Mapping[str, Any], output: Any) -> None:
        for weight, used in positions_in(module, inputs, options, output):
            positions[id(weight)] = positions.get(id(weight), 0) + used

    watched = [module for module in model.modules() if isinstance(module, KINDS)]
    hooks = [module.register_forward_hook(record, with_kwargs=True) for module in watched]
    device = next((tensor.device for tensor in _tensors(model)), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            _unfused_attention(),
            device if device.type == "meta" else nullcontext(),
        ):
            output = model(torch.zeros(_EXAMPLES, *input_shape, device=device))
    except Exception as error:
        shape = ("batch", *input_shape)
        raise InputError(
            f"space {name!r}: the network rejects an input of shape ({', '.join(map(str, shape))}): "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[0] != _EXAMPLES:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"space {name!r}: the network returns {got} for {_EXAMPLES} examples; "
            "expected a tensor of shape (batch, classes)"
        )
    return {key: used // _EXAMPLES for key, used in positions.items()}, output


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Keep transformers from the fused path that they have for inference: it calls none of their layers.

    torch 2.13 leaves that path by itself where hooks are attached, but does not promise to.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _options(module: nn.Module) -> dict[str, Any]:
    """Public attributes that are plain values, and the names of functions (a transformer's activation)."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_") and key != "training"}
    plain = {key: value for key, value in public.items() if isinstance(value, (bool, int, float, str))}
    named = {key: value.__name__ for key, value in public.items() if inspect.isroutine(value)}
    return dict(sorted({**plain, **named}.items()))
