"""How far the kept weights of a network are from isometries."""

from __future__ import annotations

import torch
from torch import nn

from snas.initialization.isometry import stacked
from snas.initialization.spectral import gram_residual
from snas.masks import Masks, weights_of


@torch.no_grad()
def orthogonality_score(model: nn.Module, masks: Masks, *, gain: float = 1.0) -> float:
    """The mean over the masked layers of ||(C * W)^T (C * W) - 1||, Frobenius norm ([Lee2020] section 4.5.1).

    Columns are output units, as in the source's code, where a weight has shape (kernel * in, out): the matrix compared
    with 1 has one row and column per output unit, so that a layer with more of them than inputs scores above 0 even
    where it is isometric, sqrt(out - kernel * in).

    Args:
        model: a network; unchanged.
        masks: which weights count; the others are taken for zero.
        gain: 0 is the score of singular values of this size.

    Returns:
        The score, 0 or more; 0 where every layer's kept weights have orthogonal rows of norm `gain`. A weight of
        several matrices (groups, gates) counts as one layer: the root of the sum of their squared norms.

    Source:
        [Lee2020] N. Lee, T. Ajanthan, S. Gould, P. Torr: A signal propagation perspective for pruning neural networks
        at initialization, ICLR 2020, tables 1 and 2.

    Example:
        >>> from snas.densities import Layer
        >>> model = nn.Linear(3, 2)
        >>> _ = nn.init.eye_(model.weight)
        >>> orthogonality_score(model, Masks.dense([Layer("weight", (2, 3), parameter="weight")]))
        0.0
    """
    scores = []
    for layer, weight in zip(masks.layers, weights_of(model, masks.layers), strict=True):
        path, _, name = layer.parameter.rpartition(".")
        parts = stacked(model.get_submodule(path), name)
        kept = weight.double() * masks[layer.name].to(weight.device) / gain
        scores.append(float(gram_residual(kept.reshape(parts, layer.shape[0] // parts, -1)).square().sum().sqrt()))
    return sum(scores) / len(scores)
