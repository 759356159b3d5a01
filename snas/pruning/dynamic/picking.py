"""Exact numbers of weights: the strongest of a layer, random ones, and shares of a total."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from snas.errors import DivergedError
from snas.masks import best


def strongest(values: Tensor, count: int, *, among: Tensor, generator: torch.Generator) -> Tensor:
    """Mark the `count` largest of `values` where `among` is true.

    Args:
        values: numbers, of any shape.
        count: how many; at most as many as `among` has.
        among: boolean mask of that shape.
        generator: breaks ties, uniformly among equals; a CPU generator.

    Returns:
        A boolean mask of the shape of `among`, with exactly `count` true.

    Raises:
        DivergedError: if a value is NaN.

    Example:
        >>> among = torch.tensor([True, True, False])
        >>> strongest(torch.tensor([1.0, 2.0, 3.0]), 1, among=among, generator=torch.Generator()).tolist()
        [False, True, False]
    """
    candidates = values[among]
    if bool(torch.isnan(candidates).any()):
        raise DivergedError("a weight or its gradient is NaN where the mask is to move; lower the learning rate")
    chosen = torch.from_numpy(best(candidates.cpu().numpy(), count, generator=generator))
    marked = torch.zeros_like(among)
    marked[among] = chosen.to(among.device)
    return marked


def draw(among: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Mark `count` of the places where `among` is true, every set of them with the same probability.

    Args:
        among: boolean mask.
        count: how many; at most as many as `among` has.
        generator: a CPU generator.

    Returns:
        A boolean mask of the shape of `among`, with exactly `count` true.

    Example:
        >>> int(draw(torch.tensor([True, False, True, True]), 2, generator=torch.Generator()).sum())
        2
    """
    marked = torch.zeros_like(among, memory_format=torch.contiguous_format)
    marked.view(-1)[places(among, count, generator=generator)] = True
    return marked


def places(among: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """As `draw`, but the places' numbers, counted along the rows: a tensor of int64, shape (count,)."""
    flat = among.reshape(-1)
    if 2 * int(torch.count_nonzero(flat)) < len(flat) or 4 * count > len(flat):
        candidates = flat.nonzero().reshape(-1)
        return candidates[torch.randperm(len(candidates), generator=generator)[:count].to(flat.device)]
    # Few of many: trying places until enough are found is much faster than a list of all candidates.
    found = torch.empty(0, dtype=torch.int64, device=flat.device)
    while len(found) < count:
        tried = torch.randint(len(flat), (count - len(found),), generator=generator).to(flat.device)
        found = torch.unique(torch.cat((found, tried[flat[tried]])))
    return found


def split(weights: Sequence[float], room: Sequence[int], total: int) -> list[int]:
    """Split `total` in proportion to `weights`, no part above its room.

    What a full part cannot take is shared by the others in their proportions; where these are all zero, in proportion
    to their room. Shares that are not whole are rounded by largest remainder; of equal remainders the first rounds up.

    Args:
        weights: numbers of at least 0, one per part; only their ratios matter.
        room: whole numbers of at least 0, one per part.
        total: from 0 to sum(room).

    Raises:
        DivergedError: if a weight is not finite.

    Example:
        >>> split([2.0, 1.0, 1.0], [10, 10, 10], 8)
        [4, 2, 2]
        >>> split([2.0, 1.0, 1.0], [3, 10, 10], 8)  # the first is full; the other 5 go 2.5 to 2.5
        [3, 3, 2]
        >>> split([0.0, 0.0], [4, 12], 4)
        [1, 3]
    """
    if not all(math.isfinite(weight) for weight in weights):
        raise DivergedError(
            "the shares of layers are not finite where weights are to move between them; lower the learning rate"
        )
    exact = _capped([Fraction(weight) for weight in weights], room, total)
    whole = [part.numerator // part.denominator for part in exact]
    remainders = sorted(range(len(exact)), key=lambda index: whole[index] - exact[index])
    for index in remainders[: total - sum(whole)]:
        whole[index] += 1
    return whole


def _capped(weights: list[Fraction], room: Sequence[int], total: int) -> list[Fraction]:
    """The parts before rounding: t * weights brought below their room, with the one t that gives the total."""
    parts = [Fraction(0)] * len(weights)
    free = [index for index in range(len(weights)) if room[index]]
    left = Fraction(total)
    while free and left:
        if not any(weights[index] for index in free):
            weights = [Fraction(places) for places in room]
        scale = left / sum(weights[index] for index in free)
        full = [index for index in free if scale * weights[index] >= room[index]]
        for index in full or free:
            parts[index] = Fraction(room[index]) if full else scale * weights[index]
            left -= parts[index]
        free = [index for index in free if index not in full] if full else []
    return parts
