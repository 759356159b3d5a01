"""Whole numbers in given proportions: capped, with a floor of one, and a total that is exact."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def share(weights: Sequence[int | Fraction], caps: Sequence[int], total: int) -> list[int]:
    """Split `total` in proportion to `weights`, each part at least 1 and at most its cap.

    Before rounding, part i is t * weights[i] brought into [1, caps[i]], with the one t that gives the total: what a
    capped part cannot take, and what a part below one needs, is shared by the others in their proportions. This is
    solved exactly, in rational numbers. Shares that are not whole are rounded by largest remainder; of equal remainders
    the first rounds up. A larger total never makes an unrounded part smaller, nor a rounded one by more than one.

    Args:
        weights: positive numbers, one per part; only their ratios matter.
        caps: whole numbers of at least 1, one per part.
        total: from len(caps) to sum(caps).

    Example:
        >>> share([3, 1, 1], [10, 10, 10], 8)  # 4.8, 1.6, 1.6
        [5, 2, 1]
        >>> share([3, 1, 1], [3, 10, 10], 9)  # the first is full; the rest of 6 goes to the others, in halves
        [3, 3, 3]
        >>> share([100, 1], [100, 1], 9)  # 8.9 and 0.09: nobody gets nothing
        [8, 1]
    """
    parts = _parts(weights, caps, _scale(weights, caps, total))
    whole = [part.numerator // part.denominator for part in parts]
    remainders = sorted(range(len(parts)), key=lambda index: whole[index] - parts[index])
    for index in remainders[: total - sum(whole)]:
        whole[index] += 1
    return whole


def _parts(weights: Sequence[int | Fraction], caps: Sequence[int], scale: Fraction) -> list[Fraction]:
    return [min(Fraction(cap), max(Fraction(1), scale * weight)) for weight, cap in zip(weights, caps, strict=True)]


def _scale(weights: Sequence[int | Fraction], caps: Sequence[int], total: int) -> Fraction:
    """The t at which the parts sum to `total`. Their sum grows with t, and bends where a part meets a bound of its."""
    bends = sorted({Fraction(1) / weight for weight in weights} | _fractions(caps, weights))
    low, high = 0, len(bends) - 1
    while low < high:  # the first bend at which the sum is large enough
        middle = (low + high) // 2
        if sum(_parts(weights, caps, bends[middle])) >= total:
            high = middle
        else:
            low = middle + 1
    at, above = bends[high], sum(_parts(weights, caps, bends[high]))
    below = sum(_parts(weights, caps, bends[high - 1])) if high else above
    if above in (below, total):
        return at
    return at - (at - bends[high - 1]) * (above - total) / (above - below)


def _fractions(caps: Sequence[int], weights: Sequence[int | Fraction]) -> set[Fraction]:
    return {Fraction(cap) / weight for cap, weight in zip(caps, weights, strict=True)}
