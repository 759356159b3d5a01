"""Networks to be initialized are copied: drawing what is drawn anew at once takes most of building a small one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from snas.copies import with_tensors
from snas.search_spaces.weights import drawn_in

if TYPE_CHECKING:
    from snas.search_spaces.base import SearchSpace


class Alike:
    """A factory that builds the same network at every call, but for the weights and biases that initializations draw.

    It is for networks of PyTorch's modules and ours, which have their parameters and buffers on the CPU, and it may not
    do anything else that somebody could notice.
    """

    def __init__(self, factory: Callable[[], nn.Module]) -> None:
        """Declare that `factory` is one."""
        self._factory = factory
        self._patterns: dict[torch.dtype, nn.Module | None] = {}  # by PyTorch's default type, which factories go by

    def __call__(self) -> nn.Module:
        """Build a network."""
        return self._factory()

    def remember(self, model: nn.Module) -> None:
        """Copy what it has built, without the values of what is drawn."""
        if all(tensor.device.type == "cpu" for tensor in chain(model.parameters(), model.buffers())):
            drawn = {id(tensor) for weight in drawn_in(model) for tensor in (weight.tensor, weight.bias)}
            self._patterns[torch.get_default_dtype()] = with_tensors(
                model, lambda tensor: _like(tensor, "meta" if id(tensor) in drawn else "cpu")
            )

    def copy(self) -> nn.Module | None:
        """A new network, drawn values being whatever was in memory; None where none is remembered."""
        pattern = self._patterns.get(torch.get_default_dtype())
        return None if pattern is None else with_tensors(pattern, lambda tensor: _like(tensor, "cpu"))

    def __getstate__(self) -> dict[str, Any]:
        """The factory alone goes to other processes."""
        return {"_factory": self._factory, "_patterns": {}}


def build_undrawn(space: SearchSpace, *, generator: torch.Generator) -> nn.Module:
    """Build a network for `snas.initialization.variance.initialize` to draw the weights of, by any rule but "as-built".

    Args:
        space: which network.
        generator: as for `SearchSpace.build`; not used where there is a network to copy.

    Returns:
        What `space.build` returns; what that rule draws may have any values.
    """
    if not isinstance(space.factory, Alike):
        return space.build(generator=generator)
    if (copied := space.factory.copy()) is not None:
        return copied
    model = space.build(generator=generator)
    space.factory.remember(model)
    return model


def _like(tensor: Tensor, device: str) -> Tensor:
    """A new tensor; its values are those of the given one, where both have values."""
    if tensor.is_meta or device == "meta":  # `empty_like` is slow there
        values = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    else:
        values = tensor.detach().clone()
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
