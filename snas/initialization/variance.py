"""Initial weights that keep signals at one scale from layer to layer, dense or masked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snas.errors import InputError
from snas.initialization import InitialRule, parse_rule
from snas.initialization.mean_field import fixed_point
from snas.masks import Masks, is_not_zero, units, weights_of, zero_masked
from snas.search_spaces.weights import LSTMS, drawn_in, weights_in

# 1 / sqrt(E[f(z)^2]) for z standard normal: what f takes from the signal's root mean square, given back by the weights.
# For tanh and sigmoid it is the convention of torch.nn.init.calculate_gain, 5/3 and 1. Orthogonal weights have another
# gain, that of mean field theory: `isometric_gain`.
GAINS = {
    "linear": 1.0,
    "identity": 1.0,
    "relu": math.sqrt(2),  # [He2015] eq. 10
    "prelu": math.sqrt(2 / (1 + 0.25**2)),  # [He2015] eq. 15, slope 0.25
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    "srelu": math.sqrt(2 / (1 + 0.2**2)),  # begins as a leaky ReLU of slope 0.2
    "elu": 1.2452,
    "selu": 1.0,
    "swish": 1.6766,
    "silu": 1.6766,
    "gelu": 1.5335,
    "tanh": 5 / 3,
    "sigmoid": 1.0,
}
CUT = 2.0  # standard deviations at which truncated normal distributions end


def gain(nonlinearity: str) -> float:
    """Factor on the weights that makes up for the nonlinearity after them.

    Raises:
        InputError: for an unknown nonlinearity.
    """
    if nonlinearity not in GAINS:
        raise InputError(f"unknown nonlinearity {nonlinearity!r}; choices: {', '.join(GAINS)}")
    return GAINS[nonlinearity]


def isometric_gain(nonlinearity: str) -> float:
    """Singular value of orthogonal weights: sigma_w at the critical fixed point (`mean_field.fixed_point`).

    It keeps gradients at one scale, where `gain` keeps signals at one. The two agree for nonlinearities that are linear
    on either side of zero, so for "linear" and "relu", and differ for tanh (1, not 5/3).

    Raises:
        InputError: for an unknown nonlinearity.
    """
    return fixed_point(nonlinearity).weight_deviation


@torch.no_grad()
def initialize(model: nn.Module, *, rule: str, nonlinearity: str, generator: torch.Generator) -> None:
    """Draw the weights of every Linear, Conv1d/2d/3d, recurrent and attention layer, prunable or not, and zero biases.

    Matrices that are stacked in one weight are drawn each by its own fans: the gates of recurrent layers; queries, keys
    and values. The forget gates of LSTMs get a bias of 1 ([Jozefowicz2015] section 2.2), so that their state lasts.

    Args:
        model: initialized in place.
        rule: with fan_in = inputs per output unit, fan_out = outputs per input,
            "he": normal, std gain / sqrt(fan_in) ([He2015] eq. 10);
            "glorot": normal, std sqrt(2 / (fan_in + fan_out)) ([Glorot2010] eq. 12);
            "lecun": normal, std 1 / sqrt(fan_in) ([LeCun1998] section 4.6);
            "he-truncated", "glorot-truncated", "lecun-truncated": a normal distribution cut at two of its standard
            deviations, and widened so that the std is as above;
            "normal", "truncated": std 0.1 whatever the fans, and "normal:STD", "truncated:STD" another. [Lee2020b]
            section 3.5.5 compares these as RN and TN, and does not print their std. In its table 4.1, gamma is the
            variance: 0.01 is "normal:0.1";
            "orthogonal": sigma_w of mean field theory (`isometric_gain`) times a semi-orthogonal matrix ([Saxe2014]),
            which a convolution has at the centre of its kernel, all else being zero (delta-orthogonal, [Xiao2018]
            algorithm 2);
            "orthogonal-full": the same, but the whole of a convolution's kernel is used ([Xiao2018] algorithm 1);
            "as-built": what the network's constructor drew is left.
        nonlinearity: sets the gain.
        generator: the only source of randomness; a CPU generator.

    Raises:
        InputError: for an unknown rule or nonlinearity.

    Source:
        [LeCun1998] Y. LeCun et al.: Efficient BackProp. [Glorot2010] X. Glorot, Y. Bengio: Understanding the difficulty
        of training deep feedforward neural networks. [Saxe2014] A. Saxe et al.: Exact solutions to the nonlinear
        dynamics of learning in deep linear neural networks. [He2015] K. He et al.: Delving deep into rectifiers.
        [Xiao2018] L. Xiao et al.: Dynamical isometry and a mean field theory of CNNs. [Lee2020b] N. Lee: Toward
        efficient deep learning with sparse neural networks, DPhil thesis. [Jozefowicz2015] R. Jozefowicz et al.: An
        empirical exploration of recurrent network architectures.
    """
    parsed = parse_rule(rule)
    conventional = gain(nonlinearity)
    if parsed.name == "as-built":
        return
    for _, weight, bias, groups in drawn_in(model):
        shape = tuple(weight.shape)
        fan_in = math.prod(shape[1:])
        fan_out = shape[0] // groups * math.prod(shape[2:])
        if parsed.name in ("orthogonal", "orthogonal-full"):
            block = (shape[0] // groups, *shape[1:])
            draw = orthogonal_kernel if parsed.name == "orthogonal-full" else delta_orthogonal
            values = torch.cat([draw(block, generator=generator) for _ in range(groups)])
            values = values * isometric_gain(nonlinearity)
        else:
            sample = truncated_normal if "truncated" in parsed.name else _normal
            values = sample(shape, generator=generator).mul_(_deviation(parsed, fan_in, fan_out, conventional))
        weight.copy_(values)
        if bias is not None:
            bias.zero_()
    _open_forget_gates(model)


def _deviation(rule: InitialRule, fan_in: int, fan_out: int, factor: float) -> float:
    """Standard deviation of a layer's weights by a rule that draws them one by one."""
    if rule.deviation is not None:
        return rule.deviation
    return {
        "he": factor / math.sqrt(fan_in),
        "glorot": math.sqrt(2 / (fan_in + fan_out)),
        "lecun": 1 / math.sqrt(fan_in),
    }[rule.name.removesuffix("-truncated")]


def _normal(shape: Sequence[int], *, generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator)


def truncated_normal(shape: Sequence[int], *, generator: torch.Generator) -> Tensor:
    """Normal numbers none of which lies beyond two standard deviations, scaled to variance 1 (so within 2.27).

    Args:
        shape: of the result, float32.
        generator: the only source of randomness.

    Example:
        >>> draws = truncated_normal((1000,), generator=torch.Generator().manual_seed(0))
        >>> bool(draws.abs().max() < 2.28)
        True
    """
    inside = math.erf(CUT / math.sqrt(2))
    # The variance of what is left: 1 - 2 c p(c) / P(|z| < c), with p the density.
    density = math.exp(-(CUT**2) / 2) / math.sqrt(2 * math.pi)
    deviation = math.sqrt(1 - 2 * CUT * density / inside)
    uniform = torch.rand(tuple(shape), dtype=torch.float64, generator=generator)
    values: Tensor = torch.erfinv((2 * uniform - 1) * inside) * (math.sqrt(2) / deviation)
    return values.float()


def delta_orthogonal(shape: Sequence[int], *, generator: torch.Generator) -> Tensor:
    """A semi-orthogonal block at the kernel's centre, zero elsewhere; for a matrix, the block itself.

    Args:
        shape: (out, in, *kernel).
        generator: the only source of randomness.

    Source:
        [Xiao2018] algorithm 2, extended to out < in by a block with orthonormal rows.
    """
    kernel = torch.zeros(tuple(shape))
    centre: tuple[Any, ...] = (..., *[(size - 1) // 2 for size in shape[2:]])
    kernel[centre] = semi_orthogonal(shape[0], shape[1], generator=generator)
    return kernel


def orthogonal_kernel(shape: Sequence[int], *, generator: torch.Generator) -> Tensor:
    """A kernel whose convolution (circular, stride 1) preserves norms if out >= in, and its transpose if not.

    Along each axis, P at one tap and 1 - P at the next, P being a random projection, is such a kernel, and so is the
    convolution of two. A kernel of k taps is made of k - 1 of them per axis and a semi-orthogonal matrix.

    Args:
        shape: (out, in, *kernel).
        generator: the only source of randomness.

    Source:
        [Xiao2018] algorithm 1, extended to out < in by the transpose.
    """
    rows, columns = shape[:2]
    sizes = tuple(shape[2:])
    kernel = semi_orthogonal(rows, columns, generator=generator).reshape(rows, columns, *[1] * len(sizes))
    for step in range(max(sizes, default=1) - 1):
        for axis, size in enumerate(sizes):
            if step < size - 1:
                kernel = _lengthen(kernel, 2 + axis, generator)
    return kernel


def semi_orthogonal(rows: int, columns: int, *, generator: torch.Generator) -> Tensor:
    """A matrix whose rows or columns, whichever are fewer, are orthonormal; uniformly distributed ([Saxe2014])."""
    normal = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(normal)
    signs = torch.where(torch.diagonal(r) < 0, -1.0, 1.0)  # makes the distribution uniform
    matrix: Tensor = q * signs
    return matrix if rows >= columns else matrix.T


@torch.no_grad()
def rescale_by_fan_in(model: nn.Module, masks: Masks) -> None:
    """Zero the masked weights and scale the kept ones so that pre-activations have the dense network's variance.

    The kept weights of an output unit are multiplied by sqrt(fan_in / kept fan_in) of that unit: a sum of fewer terms
    of the same distribution, each that much larger, has the same variance. That the terms are of the same distribution
    holds for masks that do not look at the weights; with masks that keep large ones the variance overshoots (two- to
    sixfold for SNIP and magnitude in a small perceptron). Weights that are zero in the dense network (off the centre of
    a delta-orthogonal kernel) carry no signal and count on neither side. Units that keep none stay as they are.

    Args:
        model: the dense network at its initial weights, before masks are applied; changed in place.
        masks: which weights are kept.

    Source:
        [Evci2022] U. Evci et al.: Gradient flow in sparse neural networks and how lottery tickets win; [Tessera2021]
        section 3.2.1 step 2.
    """
    for layer, weight in zip(masks.layers, weights_of(model, masks.layers), strict=True):
        mask = masks[layer.name].to(weight.device)
        present = is_not_zero(weight)
        # NumPy looks at truth values twenty times faster than torch.
        if bool(present.numpy().all() if present.device.type == "cpu" else present.all()):  # as nearly always
            dense, kept = torch.tensor(weight[0].numel(), device=weight.device), units(mask)
        else:
            dense, kept = units(present), units(present & mask)
        factor = (dense / kept.clamp(min=1)).sqrt().to(weight.dtype)
        weight.mul_(factor.reshape(-1, *[1] * (weight.ndim - 1)))
        zero_masked(weight, mask)


def _open_forget_gates(model: nn.Module) -> None:
    """Set one of an LSTM's two biases to 1 where it acts on the forget gate, the second of four."""
    for lstm in model.modules():
        for weight in weights_in(lstm) if isinstance(lstm, LSTMS) else ():
            if weight.name.startswith("weight_ih") and weight.bias is not None:
                weight.bias.chunk(4)[1].fill_(1.0)


def _lengthen(kernel: Tensor, axis: int, generator: torch.Generator) -> Tensor:
    """Convolve with a random projection at one tap along `axis` and its complement at the next."""
    rows, columns = kernel.shape[:2]
    n = max(rows, columns)
    basis = semi_orthogonal(n, n, generator=generator)
    basis = basis[:, torch.rand(n, generator=generator) < 0.5]  # each direction goes to one of the two taps
    projection = basis @ basis.T
    product = "ij,jk...->ik..." if rows >= columns else "jk,ij...->ik..."
    first: Tensor = torch.einsum(product, projection, kernel)
    gap = torch.zeros_like(first.narrow(axis, 0, 1))
    return torch.cat((first, gap), axis) + torch.cat((gap, kernel - first), axis)
