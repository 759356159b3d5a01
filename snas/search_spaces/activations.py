"""Activations by name, for the spaces that offer a choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from snas.errors import InputError

Activation = Literal["prelu", "relu", "swish", "elu", "srelu", "sigmoid", "tanh"]


class SReLU(nn.Module):
    """S-shaped rectified linear unit ([Jin2015] eq. 1), with four learnable parameters per unit.

    y = upper + upper_slope (x - upper) where x >= upper; x between the thresholds; lower + lower_slope (x - lower)
    where x <= lower. It starts as a leaky ReLU: lower = 0, lower_slope = 0.2, upper = 1, upper_slope = 1.

    [Jin2015] Jin, Xu, Feng, Wei, Xiong and Yan, Deep Learning with S-shaped Rectified Linear Activation Units.

    Args:
        units: size of the last dimension of the input.

    Example:
        >>> SReLU(3)(torch.tensor([[-1.0, 0.5, 2.0]])).tolist()
        [[-0.20000000298023224, 0.5, 2.0]]
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.zeros(units))
        self.lower_slope = nn.Parameter(torch.full((units,), 0.2))
        self.upper = nn.Parameter(torch.ones(units))
        self.upper_slope = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (batch, units)."""
        above = self.upper + self.upper_slope * (x - self.upper)
        below = self.lower + self.lower_slope * (x - self.lower)
        return torch.where(x >= self.upper, above, torch.where(x <= self.lower, below, x))


_ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "prelu": lambda units: nn.PReLU(),
    "relu": lambda units: nn.ReLU(),
    "swish": lambda units: nn.SiLU(),
    "elu": lambda units: nn.ELU(),
    "srelu": SReLU,
    "sigmoid": lambda units: nn.Sigmoid(),
    "tanh": lambda units: nn.Tanh(),
}


def make_activation(name: str, units: int) -> nn.Module:
    """Return a new activation for (batch, units): PReLU has one learnable slope, SReLU four parameters per unit.

    Raises:
        InputError: for an unknown name.
    """
    if name not in _ACTIVATIONS:
        raise InputError(f"activation is {name!r}; choices: {', '.join(get_args(Activation))}")
    return _ACTIVATIONS[name](units)
