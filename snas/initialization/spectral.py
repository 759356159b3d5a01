"""The largest deviation from isometry, made small: eq. 4.8 of [Lee2020] in the spectral norm.

The spectral norm of W W^T - 1 is the largest |s^2 - 1| over the singular values s of W. It has no gradient where two of
them are equally far off, which is where its minima lie, so that a step that mends one direction spoils the next. The
Schatten norms ||R||_p = (sum |s^2 - 1|^p)^(1/p) are smooth, and between the spectral norm and it times n^(1/p): they
are lowered one after the other, p = 4, 8 ... 64, each from where the one before arrived.

What can be reached is 0 or 1. Where every row can have a free column of its own, a matrix with one 1 in each row is an
isometry. Where not, the rank is too small whatever the weights, one s is 0, and every matrix with singular values up to
sqrt(2) has the least norm, 1: the norm then leaves all other directions as it finds them.
"""

from __future__ import annotations

import torch
from torch import Tensor

POWERS = (4, 8, 16, 32, 64)
STAGE = 20  # steps between two looks at the largest deviation
ROUNDING = 1e-6  # relative; deviations nearer to each other than this are equal


def deviation(wide: Tensor) -> Tensor:
    """Spectral norm of W W^T - 1, for matrices of shape (groups, rows, columns); shape (groups,)."""
    norms: Tensor = torch.linalg.matrix_norm(gram_residual(wide), ord=2)
    return norms


def gram_residual(wide: Tensor) -> Tensor:
    """W W^T - 1 of each group."""
    gram = torch.matmul(wide, wide.mT)
    return gram - torch.eye(wide.shape[-2], dtype=wide.dtype, device=wide.device)


def descend(starts: list[Tensor], free: Tensor, *, steps: int, tolerance: float) -> Tensor:
    """Lower the spectral norm of each group's residual over its free weights.

    Args:
        starts: matrices of shape (groups, rows, columns), rows <= columns, zero where not free; the descent begins at
            the last of them that is no worse than those before.
        free: 0 or 1, same shape.
        steps: at most so many steps in all.
        tolerance: stop when every |s^2 - 1| is below; go on to the next norm when 20 steps lower the largest by less
            than this fraction.

    Returns:
        The best matrix met, group by group; so never one worse than any of `starts`, but for rounding.
    """
    best = starts[0]
    for start in starts[1:]:
        best = _better(start, best)
    for power in POWERS:
        for _ in range(steps // (len(POWERS) * STAGE)):
            before = float(deviation(best).max())
            if before <= tolerance:
                return best
            best = _better(_lower(best, free, power), best)
            if before - float(deviation(best).max()) < tolerance * before:
                break
    return best


def _better(new: Tensor, old: Tensor) -> Tensor:
    """Of each group the matrix that deviates less; the new one where they are equal."""
    return torch.where((deviation(new) <= deviation(old) * (1 + ROUNDING))[:, None, None], new, old)


def _lower(matrix: Tensor, free: Tensor, power: int) -> Tensor:
    """Lower the sum of the groups' Schatten norms by some steps of L-BFGS."""
    places = free.bool()
    weights = matrix[places].clone().requires_grad_()
    scale = deviation(matrix).clamp(min=torch.finfo(matrix.dtype).tiny)[:, None, None]
    if not weights.numel():
        return matrix
    optimizer = torch.optim.LBFGS([weights], max_iter=STAGE, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            scaled = (
                gram_residual(matrix.masked_scatter(places, weights)) / scale
            )  # about 1, so that powers stay in range
            powers = torch.linalg.matrix_power(scaled, power).diagonal(dim1=-2, dim2=-1).sum(-1)
            loss: Tensor = ((powers + torch.finfo(matrix.dtype).tiny) ** (1 / power) * scale[:, 0, 0]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    moved = matrix.masked_scatter(places, weights.detach())
    return moved if bool(torch.isfinite(moved).all()) else matrix
