"""Whether something computes what a network computes: copies to compare on, and comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from snas.copies import OF_MODULES
from snas.positive import positive

TOLERANCE = 1e-9  # relative, in double precision


def disturbed(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network itself, now in double precision and with other values everywhere."""
    model = model.double()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.device)
                tensor.copy_(0.5 * tensor + 0.1 + 0.1 * noise)
    return model


@torch.no_grad()
def disturb(tensors: Iterable[Tensor]) -> None:
    """Give tensors on the CPU other values, as `disturbed` does, with numbers that need not be drawn."""
    for place, tensor in enumerate(tensors):
        if tensor.is_floating_point():
            tensor.mul_(0.5).add_(positive(tensor.shape, place), alpha=0.1)


def batch_of(shape: Sequence[int], place: int) -> Tensor:
    """Numbers between -1 and 1 as different as random ones, float64; which ones tells `place`, from 0 to 9."""
    return positive(shape, 100 + place).sub(1).mul_(2)


def the_same(some: Iterable[object], others: Iterable[object]) -> bool:
    """Whether these are the same objects, in the same order."""
    return list(map(id, some)) == list(map(id, others))


def own_attributes(module: nn.Module) -> dict[str, object]:
    """What a module keeps beside its parameters, buffers, submodules, hooks and mode."""
    return {name: value for name, value in vars(module).items() if name not in OF_MODULES}


def identities_in(model: nn.Module) -> dict[str, int]:
    """Identities of what modules keep in attributes of their own."""
    return {
        f"{path}.{name}": id(value)
        for path, module in model.named_modules()
        for name, value in own_attributes(module).items()
    }


def close(a: Tensor, b: Tensor) -> bool:
    """Whether tensors are equal to rounding in double precision."""
    a, b = a.detach(), b.detach()
    scale = float(b.abs().max()) if b.numel() else 0.0
    return a.shape == b.shape and bool(((a - b).abs() <= TOLERANCE * max(scale, 1.0)).all())


def agree(found: Sequence[Tensor], expected: Sequence[Tensor | None]) -> bool:
    """Whether tensors are equal to rounding in double precision, each beside its own size, or that of the largest where
    this is below 1.

    Example:
        >>> one, small = torch.ones(1).double(), torch.full((1,), 1e-12).double()
        >>> agree([one, small], [one, 2 * small]), agree([small], [2 * small]), agree([one], [None])
        (True, False, False)
    """
    wanted = [value for value in expected if value is not None]
    if [value.shape for value in found] != [value.shape for value in wanted]:
        return False
    with torch.no_grad():
        sizes = torch.stack(torch._foreach_norm(wanted)).numpy()
        differences = torch.stack(torch._foreach_norm(torch._foreach_sub(list(found), wanted))).numpy()
    allowed = TOLERANCE * np.maximum(sizes, min(sizes.max(), 1.0))
    return bool(((differences <= allowed) & np.isfinite(sizes)).all())
