"""Approximate isometry: bring the kept weights of each layer as near to an orthogonal matrix as the mask allows."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from snas.errors import InputError
from snas.initialization import spectral
from snas.initialization.spectral import gram_residual
from snas.initialization.variance import isometric_gain
from snas.masks import Masks, weights_of
from snas.search_spaces.weights import weights_in

Norm = Literal["frobenius", "spectral"]


def enforce_isometry(model: nn.Module, masks: Masks, *, nonlinearity: str, norm: Norm = "frobenius") -> None:
    """Apply `approximate_isometry` to every masked layer, and set masked weights to zero, in place.

    Args:
        model: the network at its initial weights.
        masks: which weights are kept.
        nonlinearity: singular values move towards its `isometric_gain`, as orthogonal initialization has them.
        norm: which norm of eq. 4.8.
    """
    factor = isometric_gain(nonlinearity)
    for layer, weight in zip(masks.layers, weights_of(model, masks.layers), strict=True):
        path, _, name = layer.parameter.rpartition(".")
        groups = stacked(model.get_submodule(path), name)
        mask = masks[layer.name]
        with torch.no_grad():
            weight.copy_(approximate_isometry(weight.detach(), mask, gain=factor, groups=groups, norm=norm))


def stacked(module: nn.Module, name: str) -> int:
    """How many matrices a module's weight holds, one below the other.

    See `snas.search_spaces.weights`: the groups of a convolution, the gates of a recurrent layer, queries, keys and
    values; every other weight is one matrix.

    Example:
        >>> stacked(nn.LSTM(2, 3), "weight_hh_l0"), stacked(nn.Linear(2, 3), "weight")
        (4, 1)
    """
    return next((weight.blocks for weight in weights_in(module) if weight.name == name), 1)


@torch.no_grad()
def approximate_isometry(
    weight: Tensor,
    mask: Tensor,
    *,
    gain: float = 1.0,
    groups: int = 1,
    steps: int = 1000,
    tolerance: float = 0.01,
    norm: Norm = "frobenius",
) -> Tensor:
    """Descend on ||(C * W)^T (C * W) - 1|| over the kept weights ([Lee2020] eq. 4.8).

    W is the weight divided by `gain`, as a matrix of shape (out, in * kernel). The smaller of the two Gram matrices,
    W W^T or W^T W, is used: the squared Frobenius norms differ by the constant |out - in * kernel|, so that their
    gradients agree, and the larger one's spectral norm is at least 1 whatever the weights. The source takes ten
    thousand steps of fixed size along the gradient. Conjugate directions, each followed to the squared Frobenius norm's
    minimum along it (exactly, it being a polynomial of degree four there), need tens, and it never increases.
    The spectral norm is lowered from where that ends (`snas.initialization.spectral`).

    Args:
        weight: shape (out, in, *kernel).
        mask: boolean, same shape; true where a weight is kept.
        gain: singular values move towards it.
        groups: matrices stacked in the weight (`stacked`); each is a matrix of its own.
        steps: at most so many steps with either norm.
        tolerance: stop when the squared singular values of W are this near to 1, in root mean square with the Frobenius
            norm and each of them with the spectral one, or when a step along the gradient lowers the norm by less
            than this fraction of it (20 steps of the spectral descent, with each of its norms).
        norm: "frobenius" for the mean deviation from isometry, "spectral" for the largest.

    Returns:
        The new weight, zero where masked; shape, type and device of `weight`. Its norm is not above that of the masked
        weight given, but for rounding.

    Raises:
        InputError: if mask and weight differ in shape, or the norm is unknown.

    Source:
        [Lee2020] N. Lee, T. Ajanthan, S. Gould, P. Torr: A signal propagation perspective for pruning neural networks
        at initialization, ICLR 2020, section 4; the spectral norm is in figure 4.8 of N. Lee's thesis.
    """
    if mask.shape != weight.shape:
        raise InputError(f"mask has shape {tuple(mask.shape)}; expected the weight's, {tuple(weight.shape)}")
    if norm not in get_args(Norm):
        raise InputError(f"norm is {norm!r}; choices: {', '.join(get_args(Norm))}")
    kept = mask.to(weight.device)
    matrix = _as_matrix(weight.masked_fill(~kept, 0.0) / gain, groups)
    free = _as_matrix(kept, groups).to(matrix.dtype)
    # Columns that are masked throughout stay zero and need no arithmetic.
    used = free.flatten(0, 1).any(0)
    start = matrix[..., used]
    near = _descend(start, free[..., used], steps, tolerance)
    matrix[..., used] = (
        near if norm == "frobenius" else _descend_further(start, near, free[..., used], steps, tolerance)
    )
    return (matrix * gain).reshape(weight.shape).to(weight.dtype)


def isometry_loss(weight: Tensor, *, gain: float = 1.0, groups: int = 1) -> Tensor:
    """The squared norm of eq. 4.8 on the smaller Gram matrix; a scalar, 0 for a semi-orthogonal matrix times `gain`."""
    return gram_residual(_wide(_as_matrix(weight / gain, groups))).square().sum()


def _descend(matrix: Tensor, free: Tensor, steps: int, tolerance: float) -> Tensor:
    """Nonlinear conjugate gradients (Polak and Ribiere) on matrices of shape (groups, rows, columns)."""
    tall = matrix.shape[-2] > matrix.shape[-1]
    matrix, free = _wide(matrix), _wide(free)
    residual = gram_residual(matrix)
    loss = float(residual.square().sum())
    enough = tolerance**2 * residual.shape[0] * residual.shape[1]
    previous: Tensor | None = None
    direction = matrix
    for _ in range(steps):
        if loss <= enough:
            break
        gradient = 4 * torch.matmul(residual, matrix) * free
        direction = -gradient if previous is None else _conjugate(gradient, previous, direction)
        linear = torch.matmul(matrix, direction.mT)
        linear = linear + linear.mT
        quadratic = torch.matmul(direction, direction.mT)
        step = _line_minimum(residual, linear, quadratic)
        moved = residual + step * linear + step**2 * quadratic  # = W W^T - 1 after the step
        drop = loss - float(moved.square().sum())
        if drop > 0:
            matrix, residual, loss = matrix + step * direction, moved, loss - drop
        # A step that brings little may have had a poor direction: that is settled by one along the gradient itself.
        slow = drop <= tolerance * loss
        if slow and previous is None:
            break
        previous = None if slow else gradient
    return _transposed(matrix, tall)


def _descend_further(start: Tensor, near: Tensor, free: Tensor, steps: int, tolerance: float) -> Tensor:
    """The spectral norm's descent, without the rows that keep nothing: no weight of theirs can be mended."""
    rows = free.any(-1).any(0)
    tall = int(rows.sum()) > free.shape[-1]
    starts = [_transposed(matrix[:, rows], tall) for matrix in (start, near)]
    result = near.clone()
    if rows.any():
        wide = spectral.descend(starts, _transposed(free[:, rows], tall), steps=steps, tolerance=tolerance)
        result[:, rows] = _transposed(wide, tall)
    return result


def _conjugate(gradient: Tensor, previous: Tensor, direction: Tensor) -> Tensor:
    """The next direction of descent; the negative gradient where the conjugate one would ascend."""
    beta = max(0.0, float((gradient * (gradient - previous)).sum()) / float(previous.square().sum()))
    conjugate = beta * direction - gradient
    return conjugate if float((conjugate * gradient).sum()) < 0 else -gradient


def _line_minimum(residual: Tensor, linear: Tensor, quadratic: Tensor) -> float:
    """The step t > 0 that minimizes ||residual + t linear + t^2 quadratic||^2; 0 where none lowers it."""
    polynomial = np.polynomial.Polynomial(
        [
            0.0,
            2 * float((residual * linear).sum()),
            float(linear.square().sum()) + 2 * float((residual * quadratic).sum()),
            2 * float((linear * quadratic).sum()),
            float(quadratic.square().sum()),
        ]
    )
    turns: list[float] = np.real(polynomial.deriv().roots()).tolist()
    return min([0.0, *(turn for turn in turns if turn > 0)], key=polynomial)


def _as_matrix(weight: Tensor, groups: int) -> Tensor:
    """Shape (groups, out / groups, in * kernel)."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def _wide(matrix: Tensor) -> Tensor:
    return _transposed(matrix, matrix.shape[-2] > matrix.shape[-1])


def _transposed(matrix: Tensor, yes: bool) -> Tensor:
    return matrix.mT if yes else matrix
