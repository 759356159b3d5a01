"""The scale at which a wide random network neither amplifies nor damps signals: mean field theory's fixed point.

In a wide network with weights of variance sigma_w^2 / fan_in and biases of variance sigma_b^2, the pre-activations of
each layer are normal with variance q, which the next layer maps to

    sigma_w^2 E[f(sqrt(q) z)^2] + sigma_b^2,    z standard normal                              [Poole2016] eq. 3

At a fixed point q* all layers act alike, and the mean squared singular value of a layer's Jacobian is

    chi = sigma_w^2 E[f'(sqrt(q*) z)^2]                                                        [Schoenholz2017] eq. 5

Orthogonal weights times the sigma_w with chi = 1 are what layerwise dynamical isometry starts from ([Lee2020] section
4.3.3). Which fixed point that is depends on the nonlinearity:

- tanh: q* -> 0 and sigma_w = 1, the limit in which all singular values go to 1 ([Pennington2017] section 2.4.2).
- linear, and all that are linear on either side of zero (ReLU, leaky ReLU, PReLU, SReLU at their initial slopes):
  f' does not depend on the scale, so that any q is a fixed point of the one critical sigma_w. 1 is given.
- SELU, ELU, GELU, swish: q* = 1, the scale that normalized inputs have and that SELU is made for; a bias variance
  between 0.03 and 0.07 would hold it there. Biases start at zero here, as everywhere; q then shrinks, by 3 to 7 % a
  layer.
- sigmoid: at q = 1 and chi = 1 the fixed point would need a negative bias variance; the smallest q* that needs none is
  taken. Its weights are large, as mean field theory of an uncentred nonlinearity would have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from snas.errors import InputError

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: 1.0 * z,
    "identity": lambda z: 1.0 * z,
    "relu": functional.relu,
    "prelu": lambda z: functional.leaky_relu(z, 0.25),
    "leaky_relu": functional.leaky_relu,
    "srelu": lambda z: functional.leaky_relu(z, 0.2),
    "elu": functional.elu,
    "selu": functional.selu,
    "swish": functional.silu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_SCALE_FREE = ("linear", "identity", "relu", "prelu", "leaky_relu", "srelu")
_REACH, _PANELS, _NODES = 12.0, 24, 24  # standard deviations on either side of zero, and how they are divided


@dataclass(frozen=True)
class FixedPoint:
    """Where a wide random network is critical.

    Attributes:
        variance: q*, of the pre-activations; 0 stands for the limit.
        weight_deviation: sigma_w; a weight's standard deviation is sigma_w / sqrt(fan_in).
        bias_variance: sigma_b^2 that holds q* there.
    """

    variance: float
    weight_deviation: float
    bias_variance: float


@lru_cache
def fixed_point(nonlinearity: str) -> FixedPoint:
    """The critical fixed point that orthogonal weights are scaled for.

    Args:
        nonlinearity: a name in `NONLINEARITIES`.

    Raises:
        InputError: for an unknown nonlinearity.

    Source:
        [Poole2016] B. Poole et al.: Exponential expressivity in deep neural networks through transient chaos.
        [Schoenholz2017] S. Schoenholz et al.: Deep information propagation. [Pennington2017] J. Pennington et al.:
        Resurrecting the sigmoid in deep learning through dynamical isometry. [Lee2020] N. Lee et al.: A signal
        propagation perspective for pruning neural networks at initialization.

    Example:
        >>> fixed_point("tanh")
        FixedPoint(variance=0.0, weight_deviation=1.0, bias_variance=0.0)
        >>> round(fixed_point("relu").weight_deviation ** 2, 12)
        2.0
    """
    if nonlinearity not in NONLINEARITIES:
        raise InputError(f"unknown nonlinearity {nonlinearity!r}; choices: {', '.join(NONLINEARITIES)}")
    if nonlinearity == "tanh":
        return FixedPoint(0.0, 1.0, 0.0)
    signal, slope = moments(nonlinearity, 1.0)
    if nonlinearity in _SCALE_FREE:
        return FixedPoint(1.0, slope**-0.5, 0.0)
    if signal <= slope:
        return FixedPoint(1.0, slope**-0.5, 1.0 - signal / slope)
    variance = _without_bias(nonlinearity)
    return FixedPoint(variance, moments(nonlinearity, variance)[1] ** -0.5, 0.0)


def moments(nonlinearity: str, variance: float) -> tuple[float, float]:
    """E[f(sqrt(q) z)^2] and E[f'(sqrt(q) z)^2] for z standard normal and q = `variance`, above 0.

    By Gauss-Legendre quadrature on panels on either side of zero, where several nonlinearities have a kink that the
    more usual Gauss-Hermite rule would converge slowly at. In double precision.

    Example:
        >>> [round(moment, 12) for moment in moments("relu", 4.0)]
        [2.0, 0.5]
    """
    z, weights = _normal_nodes()
    h = (variance**0.5 * z).requires_grad_()
    with torch.enable_grad():
        values = NONLINEARITIES[nonlinearity](h)
        (slopes,) = torch.autograd.grad(values.sum(), h)
    return float((weights * values.detach() ** 2).sum()), float((weights * slopes**2).sum())


def _without_bias(nonlinearity: str) -> float:
    """The q above 1 with q = E[f^2] / E[f'^2], by bisection: critical, and held without biases."""
    low, high = 1.0, 2.0
    while _excess(nonlinearity, high) > 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _excess(nonlinearity, middle) > 0 else (low, middle)
    return (low + high) / 2


def _excess(nonlinearity: str, variance: float) -> float:
    signal, slope = moments(nonlinearity, variance)
    return signal / slope - variance


@lru_cache
def _normal_nodes() -> tuple[Tensor, Tensor]:
    """Nodes and weights of the standard normal distribution, with zero at a panel's border."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = _REACH / _PANELS
    centres = np.arange(-_REACH + half, _REACH, 2 * half)
    z = (centres[:, None] + half * nodes).ravel()
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return torch.from_numpy(z), torch.from_numpy(np.tile(half * weights, len(centres)) * density)
