"""How many weights each layer keeps when a method, and not a search, decides it. Totals are exact to the weight.

To add an allocation, write such a function and decorate it:

    @allocations.register("mine")
    def mine(layers, kept, *, pinned) -> Densities:
        \"\"\"One line that says what it is.\"\"\"
        return in_proportion(layers, kept, [... for layer in layers], pinned=pinned)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from snas.densities import Densities, Layer, check_density, count
from snas.errors import InputError
from snas.masks import best, checked_scores
from snas.plugins import Family
from snas.pruning.shares import share

SMART_CLASSIFIER = 0.3
Shape = Literal["exponential", "linear", "cubic"]


class Allocation(Protocol):
    """How a total is shared between the layers."""

    def __call__(self, layers: Sequence[Layer], kept: int, *, pinned: Mapping[str, float]) -> Densities:
        """Share `kept` weights between the layers.

        Args:
            layers: all layers, from the input to the output.
            kept: weights to keep in all layers together.
            pinned: layer name -> fixed density.

        Raises:
            InputError: if `kept` cannot be met with at least one weight in every free layer; the message names the
                nearest total that can.
        """
        ...


allocations: Family[Allocation] = Family("allocation", group="snas.allocations")


def kept_from_density(density: float, total: int) -> int:
    """Number of weights nearest to `density` of `total`.

    Example:
        >>> kept_from_density(0.1, 266_200)
        26620

    Raises:
        InputError: unless 0 < density <= 1.
    """
    return count(check_density(density), total)


@allocations.register("uniform")
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
    return in_proportion(layers, kept, [layer.total for layer in layers], pinned=pinned)


@allocations.register("uniform-dense-first")
def uniform_dense_first(layers: Sequence[Layer], kept: int, *, pinned: Mapping[str, float]) -> Densities:
    """The first layer dense, the same density in all others ([Evci2020] section 3).

    The source gives the other layers the asked density and so keeps a little more in all; here the total is the asked
    one, and the others pay for the first. `pinned` goes before: a first layer pinned below 1 is not dense.
    A network of one layer has nothing to share.

    Raises:
        InputError: if `kept` is below the first layer's size and one weight for each other layer.

    Source:
        [Evci2020] U. Evci et al.: Rigging the lottery: making all tickets winners, ICML 2020.

    Example:
        >>> uniform_dense_first([Layer("a", (2, 3)), Layer("b", (4, 5))], 11, pinned={}).kept
        (6, 5)
    """
    shares = [layer.total for layer in layers]
    return _in_proportion(layers, kept, shares, pinned, _held(layers[0], 1.0, layers, pinned))


@allocations.register("er")
def er(layers: Sequence[Layer], kept: int, *, pinned: Mapping[str, float]) -> Densities:
    """Erdos-Renyi: a layer's density is proportional to (in + out) / (in * out) ([Mocanu2018] eq. 3).

    A layer cannot be more than dense; what is left over then goes to the others in the same proportions
    ([Evci2020] section 3).

    Raises:
        InputError: if `kept` is out of reach (as in `uniform`).

    Source:
        [Mocanu2018] D. Mocanu et al.: Scalable training of artificial neural networks with adaptive sparse connectivity
        inspired by network science, Nature Communications 9.

    Example:
        >>> er([Layer("a", (300, 784)), Layer("b", (100, 300)), Layer("c", (10, 100))], 26_620, pinned={}).kept
        (18714, 6906, 1000)
    """
    shares = [sum(layer.shape[:2]) * math.prod(layer.shape[2:]) for layer in layers]
    return in_proportion(layers, kept, shares, pinned=pinned)


@allocations.register("erk")
def erk(layers: Sequence[Layer], kept: int, *, pinned: Mapping[str, float]) -> Densities:
    """Erdos-Renyi-Kernel: density in proportion to (in + out + w + h) / (in * out * w * h) ([Evci2020] section 3).

    The sum and the product go over all dimensions of the weight, so that a linear layer has the density of `er`. Capped
    and shared out as there.

    Raises:
        InputError: if `kept` is out of reach (as in `uniform`).

    Example:
        >>> erk([Layer("a", (16, 8, 3, 3)), Layer("b", (10, 16))], 56, pinned={}).kept  # shares 30 and 26
        (30, 26)
    """
    return in_proportion(layers, kept, [sum(layer.shape) for layer in layers], pinned=pinned)


@allocations.register("smart")
def smart(layers: Sequence[Layer], kept: int, *, pinned: Mapping[str, float]) -> Densities:
    """Smart ratios: density in proportion to k^2 + k, k = L .. 2 from the first layer on; the last has 0.3 [Su2020].

    The source spills what a layer cannot take into the next layers in turn; here all that have room share it, as in
    `erk`. It holds every linear layer at 0.3, its networks having one; here only the last layer is the classifier.
    A network of one layer has nothing to share. `pinned` goes before: a last layer pinned otherwise is not at 0.3.

    Raises:
        InputError: if `kept` is out of reach, for example below 0.3 of the classifier.

    Source:
        [Su2020] J. Su et al.: Sanity-checking pruning methods: random tickets can win the jackpot, NeurIPS 2020,
        section 4.2.

    Example:
        >>> layers = [Layer("a", (10, 10)), Layer("b", (10, 10)), Layer("c", (10, 10))]
        >>> smart(layers, 66, pinned={}).kept  # 12 to 6 in the first two
        (24, 12, 30)
    """
    return _smart(layers, kept, pinned, lambda place: 1)


@allocations.register("smart-vgg")
def smart_vgg(layers: Sequence[Layer], kept: int, *, pinned: Mapping[str, float]) -> Densities:
    """Smart ratios as for VGG: k^2 + k is also divided by the square of the layer's number, 1 for the first [Su2020].

    Raises:
        InputError: as in `smart`.

    Example:
        >>> layers = [Layer("a", (10, 10)), Layer("b", (10, 10)), Layer("c", (10, 10))]
        >>> smart_vgg(layers, 66, pinned={}).kept  # 12 to 6 / 4
        (32, 4, 30)
    """
    return _smart(layers, kept, pinned, lambda place: place**2)


def in_proportion(
    layers: Sequence[Layer], kept: int, shares: Sequence[int | Fraction], *, pinned: Mapping[str, float]
) -> Densities:
    """Keep weights in proportion to `shares`, no more than a layer has and at least one.

    Args:
        layers: all layers.
        kept: weights to keep in all layers together.
        shares: positive numbers, one per layer; only the ratios between free layers matter. Whole or rational, for the
            sake of exact totals.
        pinned: layer name -> fixed density.

    Raises:
        InputError: if `kept` cannot be met with at least one weight in every free layer.

    Example:
        >>> in_proportion([Layer("a", (2, 3)), Layer("b", (2, 2))], 6, [1, 2], pinned={}).kept
        (2, 4)
    """
    return _in_proportion(layers, kept, shares, pinned, {})


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
    fixed, rest = _split(layers, kept, pinned, {})
    free = [layer for layer in layers if layer.name not in fixed]
    counts = dict(fixed)
    if free:
        values = np.concatenate([checked_scores(scores, layer) for layer in free])
        parts = np.split(best(values, rest, generator=generator), np.cumsum([layer.total for layer in free])[:-1])
        counts |= {layer.name: int(np.count_nonzero(part)) for layer, part in zip(free, parts, strict=True)}
    return Densities.from_counts(layers, counts)


def between(start: Densities, target: Densities, progress: float, *, shape: Shape) -> Densities:
    """Each layer's count on its way from `start` down to `target`; see `kept_between`.

    Args:
        start: counts at progress 0.
        target: counts at progress 1, of the same layers; no layer keeps more than in `start`.
        progress: 0 to 1.
        shape: how the counts fall in between.

    Raises:
        InputError: if the two are of different layers, or a layer would have to grow.

    Example:
        >>> layers = (Layer("a", (10, 10)), Layer("b", (8, 2)))
        >>> between(Densities.dense(layers), Densities(layers, (1, 4)), 0.5, shape="exponential").kept
        (10, 8)
    """
    ours, theirs = ([(layer.name, layer.shape) for layer in side.layers] for side in (start, target))
    if ours != theirs:
        raise InputError("the densities to start from and to end with are of different layers; give those of one space")
    for layer, first, last in zip(start.layers, start.kept, target.kept, strict=True):
        if last > first:
            raise InputError(
                f"layer {layer.name!r} would grow from {first} to {last} weights; expected no more at the end"
            )
    kept = (
        kept_between(first, last, progress, shape=shape) for first, last in zip(start.kept, target.kept, strict=True)
    )
    return Densities(start.layers, tuple(kept))


def kept_between(start: int, target: int, progress: float, *, shape: Shape) -> int:
    """A number of weights on its way from `start` down to `target`, rounded; exactly these at the ends.

    Args:
        start: at progress 0.
        target: at progress 1, at most `start`. The exponential way to 0 leads to 1, and to 0 at the very end.
        progress: 0 to 1; the count never rises with it.
        shape: with p = progress,
            "exponential": start^(1-p) target^p, the same fraction at every step ([Tanaka2020] algorithm 1);
            "linear": start + p (target - start);
            "cubic": target + (start - target) (1 - p)^3, fast at first ([Zhu2018] eq. 1).

    Raises:
        InputError: for an unknown shape, a progress outside [0, 1], or a target above the start or below 0.

    Source:
        [Zhu2018] M. Zhu, S. Gupta: To prune, or not to prune. [Tanaka2020] H. Tanaka et al.: Pruning neural networks
        without any data by iteratively conserving synaptic flow.

    Example:
        >>> [kept_between(1000, 10, p / 4, shape="exponential") for p in range(5)]
        [1000, 316, 100, 32, 10]
        >>> [kept_between(1000, 10, p / 4, shape="cubic") for p in range(5)]
        [1000, 428, 134, 25, 10]
    """
    if shape not in get_args(Shape):
        raise InputError(f"shape is {shape!r}; choices: {', '.join(get_args(Shape))}")
    if not 0 <= progress <= 1:
        raise InputError(f"progress is {progress}; expected 0 <= progress <= 1")
    if not 0 <= target <= start:
        raise InputError(f"cannot go from {start} to {target} weights; expected 0 <= target <= start")
    if progress == 1 or start == 0:
        return target
    if shape == "exponential":
        exact = float(start * (max(1, target) / start) ** progress)
    else:
        remaining = 1 - progress if shape == "linear" else (1 - progress) ** 3
        exact = target + (start - target) * remaining
    return min(start, max(target, math.floor(exact + 0.5)))


def _smart(layers: Sequence[Layer], kept: int, pinned: Mapping[str, float], divisor: Callable[[int], int]) -> Densities:
    """Densities in proportion to (k^2 + k) / divisor(l), l = 1 .. L and k = L - l + 1; the last layer is fixed."""
    ratios = [Fraction(k**2 + k, divisor(len(layers) - k + 1)) for k in range(len(layers), 0, -1)]
    shares = [ratio * layer.total for ratio, layer in zip(ratios, layers, strict=True)]
    return _in_proportion(layers, kept, shares, pinned, _held(layers[-1], SMART_CLASSIFIER, layers, pinned))


def _held(layer: Layer, density: float, layers: Sequence[Layer], pinned: Mapping[str, float]) -> dict[str, int]:
    """The count of a layer whose density the allocation itself fixes; none where the caller pins it, or it is alone."""
    if layer.name in pinned or len(layers) == 1:
        return {}
    return {layer.name: max(1, count(density, layer.total))}


def _in_proportion(
    layers: Sequence[Layer],
    kept: int,
    shares: Sequence[int | Fraction],
    pinned: Mapping[str, float],
    held: Mapping[str, int],
) -> Densities:
    """As `in_proportion`, with the counts of the layers that the allocation holds fixed."""
    fixed, rest = _split(layers, kept, pinned, held)
    free = [(layer, weight) for layer, weight in zip(layers, shares, strict=True) if layer.name not in fixed]
    counts = share([weight for _, weight in free], [layer.total for layer, _ in free], rest) if free else []
    return Densities.from_counts(layers, fixed | {layer.name: n for (layer, _), n in zip(free, counts, strict=True)})


def _split(
    layers: Sequence[Layer], kept: int, pinned: Mapping[str, float], held: Mapping[str, int]
) -> tuple[dict[str, int], int]:
    """Counts of the fixed layers, and what is left for the free ones; raises InputError where that is impossible."""
    fixed = {layer.name: count(pinned[layer.name], layer.total) for layer in layers if layer.name in pinned}
    parts = [f"{sum(fixed.values())} of them in pinned layers"] if fixed else []
    parts += [f"{number} of them in layer {name!r}, which this allocation fixes" for name, number in held.items()]
    fixed |= held
    free = [layer.total for layer in layers if layer.name not in fixed]
    low = sum(fixed.values()) + len(free)
    high = sum(fixed.values()) + sum(free)
    if not low <= kept <= high:
        total = sum(layer.total for layer in layers)
        nearest = low if kept < low else high
        raise InputError(
            f"cannot keep {kept} of {total} weights; possible with at least one in each layer: {low} to {high}"
            f"{''.join(f', {part}' for part in parts)}; nearest: {nearest} (density {nearest / total:.6g}), "
            f"off by {abs(nearest - kept)}"
        )
    return fixed, kept - sum(fixed.values())
