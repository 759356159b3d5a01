"""Whether something computes what a network computes: copies to compare on, and comparisons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TOLERANCE = 1e-9  # relative, in double precision
_OF_MODULES = frozenset(vars(nn.Module()))


def disturbed(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network itself, now in double precision and with other values everywhere."""
    model = model.double()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.device)
                tensor.copy_(0.5 * tensor + 0.1 + 0.1 * noise)
    return model


def own_attributes(module: nn.Module) -> dict[str, object]:
    """What a module keeps beside its parameters, buffers, submodules, hooks and mode."""
    return {name: value for name, value in vars(module).items() if name not in _OF_MODULES}


def memory_of(model: nn.Module) -> dict[str, int]:
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
