"""Approximate isometry: bring the kept weights of each layer as near to an orthogonal matrix as the mask allows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snas.errors import InputError
from snas.initialization.variance import gain as gain_of
from snas.masks import Masks, weights_of


def enforce_isometry(model: nn.Module, masks: Masks, *, nonlinearity: str) -> None:
    """Apply `approximate_isometry` to every masked layer, and set masked weights to zero, in place.

    Args:
        model: the network at its initial weights.
        masks: which weights are kept.
        nonlinearity: singular values move towards its gain, as orthogonal initialization has them.
    """
    factor = gain_of(nonlinearity)
    for layer, weight in zip(masks.layers, weights_of(model, masks.layers), strict=True):
        owner = model.get_submodule(layer.parameter.rpartition(".")[0])
        groups = int(getattr(owner, "groups", 1))
        with torch.no_grad():
            weight.copy_(approximate_isometry(weight.detach(), masks[layer.name], gain=factor, groups=groups))


@torch.no_grad()
def approximate_isometry(
    weight: Tensor,
    mask: Tensor,
    *,
    gain: float = 1.0,
    groups: int = 1,
    steps: int = 1000,
    learning_rate: float = 0.1,
    tolerance: float = 0.01,
) -> Tensor:
    """Descend on ||(C * W)^T (C * W) - 1||^2 over the kept weights ([Lee2020] eq. 4.8).

    W is the weight divided by `gain`, as a matrix of shape (out, in * kernel). The smaller of the two Gram matrices,
    W W^T or W^T W, is used: the squared norms differ by the constant |out - in * kernel|, so that their gradients
    agree. A step that would raise the loss is halved until it does not, so that the loss never increases.

    Args:
        weight: shape (out, in, *kernel).
        mask: boolean, same shape; true where a weight is kept.
        gain: singular values move towards it.
        groups: of a grouped convolution; each group is a matrix of its own.
        steps: at most so many steps of gradient descent.
        learning_rate: size of a step at first, and at most.
        tolerance: stop when the squared singular values of W are this near to 1 in root mean square, or when a step
            lowers the loss by less than this fraction of it.

    Returns:
        The new weight, zero where masked; shape, type and device of `weight`.

    Raises:
        InputError: if mask and weight differ in shape.

    Source:
        [Lee2020] N. Lee, T. Ajanthan, S. Gould, P. Torr: A signal propagation perspective for pruning neural networks
        at initialization, ICLR 2020, section 4.
    """
    if mask.shape != weight.shape:
        raise InputError(f"mask has shape {tuple(mask.shape)}; expected the weight's, {tuple(weight.shape)}")
    kept = mask.to(weight.device)
    matrix = _as_matrix(weight.masked_fill(~kept, 0.0) / gain, groups)
    free = _as_matrix(kept, groups).to(matrix.dtype)
    # Columns that are masked throughout stay zero and need no arithmetic.
    used = free.flatten(0, 1).any(0)
    matrix[..., used] = _descend(matrix[..., used], free[..., used], steps, learning_rate, tolerance)
    return (matrix * gain).reshape(weight.shape).to(weight.dtype)


def isometry_loss(weight: Tensor, *, gain: float = 1.0, groups: int = 1) -> Tensor:
    """The squared norm of eq. 4.8 on the smaller Gram matrix; a scalar, 0 for a semi-orthogonal matrix times `gain`."""
    return _residual(_wide(_as_matrix(weight / gain, groups))).square().sum()


def _descend(matrix: Tensor, free: Tensor, steps: int, learning_rate: float, tolerance: float) -> Tensor:
    """Gradient descent with a step that is halved where needed. Matrices have shape (groups, rows, columns)."""
    tall = matrix.shape[-2] > matrix.shape[-1]
    matrix, free = _wide(matrix), _wide(free)
    residual = _residual(matrix)
    loss = float(residual.square().sum())
    enough = tolerance**2 * residual.shape[0] * residual.shape[1]
    step = learning_rate
    for _ in range(steps):
        if loss <= enough:
            break
        gradient = 4 * torch.matmul(residual, matrix) * free
        while True:
            trial = matrix - step * gradient
            trial_residual = _residual(trial)
            trial_loss = float(trial_residual.square().sum())
            if trial_loss <= loss:
                break
            step /= 2
            if step < 1e-9 * learning_rate:  # as low as the arithmetic resolves
                return _transposed(matrix, tall)
        converged = loss - trial_loss <= tolerance * loss
        matrix, residual, loss = trial, trial_residual, trial_loss
        if converged:
            break
        step = min(learning_rate, 1.5 * step)
    return _transposed(matrix, tall)


def _residual(wide: Tensor) -> Tensor:
    """W W^T - 1 of each group."""
    gram = torch.matmul(wide, wide.transpose(-1, -2))
    return gram - torch.eye(wide.shape[-2], dtype=wide.dtype, device=wide.device)


def _as_matrix(weight: Tensor, groups: int) -> Tensor:
    """Shape (groups, out / groups, in * kernel)."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def _wide(matrix: Tensor) -> Tensor:
    return _transposed(matrix, matrix.shape[-2] > matrix.shape[-1])


def _transposed(matrix: Tensor, yes: bool) -> Tensor:
    return matrix.transpose(-1, -2) if yes else matrix
