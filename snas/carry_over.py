"""Densities of one network for another: of other data, another size, another budget.

A search's result is a vector of densities, so that what was learned on one data set may serve another, larger one
([Tessera2021] section 4.2, "possible generalization"). A density itself does not travel: at another budget, or in wider
layers, the same numbers give another total. What is carried over is how a layer departs from a rule that already knows
of shapes and budgets, Erdos-Renyi-kernel ([Evci2020]):

    ratio(layer) = log(kept(layer) / erk(layer)),  both at the source's own number of weights
    wish(layer)  = erk'(layer) * exp(ratio(its counterpart)),  at the target's number of weights,

projected onto the target's budget. The same network at the same number of weights gets the same counts.

A layer's counterpart is found by kind (the first layer, the last, 1x1 convolutions, other convolutions, matrices) and
by its place among those of its kind, from 0 to 1, with straight lines between the source's layers. A kind that the
source does not have takes all its inner layers; a network without inner layers tells nothing of them, and ERK stands.

Limits. Relative depth is all that is known of a layer: blocks, widths and what it is for are not. What data ask for
differs: [Lee2020b] table 4.5 carries whole masks of LeNet at 3 % of the weights between MNIST and Fashion-MNIST, and
errors rise from 2.42 to 2.66 and from 11.90 to 14.17 %. So carried-over densities are a place to start a search from,
or a candidate to be compared, never a result.

[Tessera2021] K. Tessera: Learning sparse architectures, MSc thesis. [Evci2020] U. Evci et al.: Rigging the lottery.
[Lee2020b] N. Lee: Toward efficient deep learning with sparse neural networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snas.budget import Limits
from snas.densities import Densities, Layer
from snas.errors import InputError
from snas.pruning.allocations import erk

Array = NDArray[np.float64]


def carry_over(source: Densities, limits: Limits, *, total: int | None = None) -> Densities:
    """What densities of one network ask for in another, inside its budget.

    Args:
        source: at least one weight in every layer.
        limits: of the budget for the layers of the other network.
        total: weights that the other network is to keep; brought within the budget. None: the source's fraction.

    Raises:
        InputError: if a layer of the source keeps nothing.

    Example:
        >>> from snas.budget import Budget
        >>> small = (Layer("a", (8, 16)), Layer("b", (8, 8)), Layer("c", (4, 8)))
        >>> large = (Layer("a", (80, 160)), Layer("b", (80, 80)), Layer("c", (4, 80)))
        >>> carry_over(Densities(small, (12, 32, 8)), Budget(density=0.1).limits(large)).kept
        (476, 1269, 207)
    """
    if source.empty_layers:
        raise InputError(f"layer {source.empty_layers[0]!r} keeps nothing; densities to carry over keep some of each")
    whole = sum(layer.total for layer in limits.layers)
    wanted = round(source.density * whole) if total is None else total
    wanted = min(max(wanted, limits.least), limits.most)
    start = np.array(erk(limits.layers, wanted, pinned={}).kept, dtype=np.float64)
    return limits.project(start * np.exp(_ratios(source, limits.layers)), wanted)


def _ratios(source: Densities, layers: Sequence[Layer]) -> Array:
    """Of each layer, the logarithm of (kept / ERK) of its counterpart in the source."""
    usual = erk(source.layers, source.kept_weights, pinned={}).kept
    known = np.log(np.array(source.kept) / np.array(usual))
    here, there = _kinds(layers), _kinds(source.layers)
    found = np.zeros(len(layers))
    for kind in dict.fromkeys(here):
        theirs = [i for i, own in enumerate(there) if own == kind]
        if theirs:
            mine = [i for i, own in enumerate(here) if own == kind]
            places = _places(len(mine))
        else:
            mine, places = _among_inner(here, kind)
            theirs = [i for i, own in enumerate(there) if own not in ("first", "last")]
        if theirs:
            found[mine] = np.interp(places, _places(len(theirs)), known[theirs])
    return found


def _kinds(layers: Sequence[Layer]) -> list[str]:
    """What each layer is."""
    kinds = []
    for place, layer in enumerate(layers):
        if place == len(layers) - 1:
            kinds.append("last")
        elif place == 0:
            kinds.append("first")
        elif len(layer.shape) == 2:
            kinds.append("matrix")
        else:
            kinds.append("pointwise" if max(layer.shape[2:]) == 1 else "convolution")
    return kinds


def _places(number: int) -> Array:
    """Relative depths of so many layers, shape (number,): from 0 to 1, of a single one the middle."""
    return np.linspace(0.0, 1.0, number) if number > 1 else np.array([0.5])


def _among_inner(kinds: Sequence[str], kind: str) -> tuple[list[int], Array]:
    """The layers of a kind, and their relative depths among all but the first and the last."""
    inner = [i for i, own in enumerate(kinds) if own not in ("first", "last")]
    chosen = [place for place, i in enumerate(inner) if kinds[i] == kind]
    return [inner[place] for place in chosen], _places(len(inner))[chosen]
