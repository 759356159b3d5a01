"""How many weights each layer keeps when a method, and not a search, decides it. Totals are exact to the weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from snas.densities import Densities, Layer, check_density, count
from snas.errors import InputError
from snas.masks import best, checked_scores


def kept_from_density(density: float, total: int) -> int:
    """Number of weights nearest to `density` of `total`.

    Example:
        >>> kept_from_density(0.1, 266_200)
        26620

    Raises:
        InputError: unless 0 < density <= 1.
    """
    return count(check_density(density), total)


def uniform(layers: Sequence[Layer], kept: int, *, pinned: Mapping[str, float]) -> Densities:
    """The same density in every free layer, rounded so that the total is exact and no layer is emptied.

    Shares that are not whole are rounded by largest remainder; a layer whose share is below one weight gets one, and
    the others share the rest.

    Args:
        layers: all layers.
        kept: weights to keep in all layers together.
        pinned: layer name -> fixed density.

    Raises:
        InputError: if `kept` cannot be met with at least one weight in every free layer.

    Example:
        >>> uniform([Layer("a", (2, 3)), Layer("b", (2, 2))], 5, pinned={}).kept
        (3, 2)
    """
    fixed, rest = _split(layers, kept, pinned)
    shares = {layer.name: 1 for layer in layers if layer.name not in fixed}
    large = [layer for layer in layers if layer.name not in fixed]
    while large:
        weights = rest - (len(shares) - len(large))
        total = sum(layer.total for layer in large)
        small = [layer for layer in large if weights * layer.total < total]
        if not small:
            shares |= _largest_remainder(large, weights)
            break
        large = [layer for layer in large if layer not in small]
    return Densities.from_counts(layers, fixed | shares)


def global_by_score(
    scores: Mapping[str, Tensor],
    layers: Sequence[Layer],
    kept: int,
    *,
    pinned: Mapping[str, float],
    generator: torch.Generator,
) -> Densities:
    """Count, per layer, the best scores of all free layers taken together ([Lee2019] eq. 3.7). A layer may be emptied.

    Args:
        scores: layer name -> scores of the weight's shape, comparable between layers.
        layers: all layers.
        kept: weights to keep in all layers together.
        pinned: layer name -> fixed density.
        generator: breaks ties, uniformly among equals.

    Raises:
        InputError: if `kept` is out of reach (as in `uniform`), or a score is missing or NaN.
    """
    fixed, rest = _split(layers, kept, pinned)
    free = [layer for layer in layers if layer.name not in fixed]
    counts = dict(fixed)
    if free:
        values = np.concatenate([checked_scores(scores, layer) for layer in free])
        parts = np.split(best(values, rest, generator=generator), np.cumsum([layer.total for layer in free])[:-1])
        counts |= {layer.name: int(np.count_nonzero(part)) for layer, part in zip(free, parts, strict=True)}
    return Densities.from_counts(layers, counts)


def _split(layers: Sequence[Layer], kept: int, pinned: Mapping[str, float]) -> tuple[dict[str, int], int]:
    """Counts of the pinned layers, and what is left for the free ones; raises InputError where that is impossible."""
    fixed = {layer.name: count(pinned[layer.name], layer.total) for layer in layers if layer.name in pinned}
    free = [layer.total for layer in layers if layer.name not in pinned]
    low = sum(fixed.values()) + len(free)
    high = sum(fixed.values()) + sum(free)
    if not low <= kept <= high:
        total = sum(layer.total for layer in layers)
        nearest = low if kept < low else high
        held = f", {sum(fixed.values())} of them in pinned layers" if fixed else ""
        raise InputError(
            f"cannot keep {kept} of {total} weights; possible with at least one in each layer: {low} to {high}{held}; "
            f"nearest: {nearest} (density {nearest / total:.6g})"
        )
    return fixed, kept - sum(fixed.values())


def _largest_remainder(layers: Sequence[Layer], kept: int) -> dict[str, int]:
    """Share `kept` in proportion to the layers' sizes; the largest remainders, then the first layers, round up."""
    total = sum(layer.total for layer in layers)
    whole = {layer.name: kept * layer.total // total for layer in layers}
    remainders = sorted(layers, key=lambda layer: -(kept * layer.total % total))
    for layer in remainders[: kept - sum(whole.values())]:
        whole[layer.name] += 1
    return whole
