"""Where pruning ends and how it gets there: a number of weights or given densities, in one cut or in many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snas.densities import Densities, Layer, count
from snas.errors import InputError
from snas.masks import Masks, best, checked_scores, choose
from snas.pruning.allocations import Shape, allocations, between, global_by_score, kept_between
from snas.pruning.paths import refuse_empty
from snas.pruning.scores import Batch, Score

if TYPE_CHECKING:
    from snas.pruning.early import Advance

Control = Literal["none", "shuffle", "redraw", "invert"]


@dataclass(frozen=True)
class Goal:
    """What pruning is to arrive at.

    Attributes:
        layers: the prunable layers.
        target: the densities to end with, or the number of weights that `allocation` shares out between the layers.
        allocation: "global" (the best scores of all layers together), or a name of `allocations`; not used where the
            target is densities.
        pinned: layer name -> fixed density.
        invert: keep the lowest scores instead of the highest: a control.
        shuffle: permute each layer's mask at the end: a control that keeps the densities and nothing else.
    """

    layers: Sequence[Layer]
    target: Densities | int
    allocation: str = "global"
    pinned: Mapping[str, float] = field(default_factory=dict)
    invert: bool = False
    shuffle: bool = False

    @property
    def kept_weights(self) -> int:
        """Weights to keep in the end."""
        return self.target if isinstance(self.target, int) else self.target.kept_weights

    def require_reachable(self) -> None:
        """Raise InputError, saying by how much, if the allocation cannot share out the target."""
        if isinstance(self.target, int):
            name = "uniform" if self.allocation == "global" else self.allocation
            allocations.get(name)(self.layers, self.target, pinned=self.pinned)

    def masks(
        self,
        values: Mapping[str, Tensor],
        *,
        generator: torch.Generator,
        progress: float = 1.0,
        shape: Shape = "exponential",
        among: Masks | None = None,
    ) -> Masks:
        """Choose the weights to keep when `progress` of the way is done.

        Args:
            values: layer name -> scores, higher is kept.
            generator: breaks ties and shuffles; a CPU generator.
            progress: 0: all weights; 1: the goal.
            shape: how the number of weights falls in between.
            among: weights that may be kept; None: all. The others' scores are not looked at.

        Raises:
            InputError: if the goal is out of reach, or a score is missing or NaN.
        """
        if self.invert:
            values = {name: -value for name, value in values.items()}
        wanted = self._wanted(progress, shape)
        if among is None:
            masks = self._best(values, self.layers, wanted, generator)
        else:
            masks = self._best_left(values, among, wanted, generator)
        return shuffled(masks, generator) if self.shuffle and progress >= 1 else masks

    def _wanted(self, progress: float, shape: Shape) -> int | dict[str, int]:
        """Weights to keep now: of all layers together, or layer name -> count."""
        dense = Densities.dense(self.layers)
        if isinstance(self.target, Densities):
            return between(dense, self.target, progress, shape=shape).counts
        if self.allocation != "global":
            final = allocations.get(self.allocation)(self.layers, self.target, pinned=self.pinned)
            return between(dense, final, progress, shape=shape).counts
        if progress >= 1:
            return self.target
        most = sum(self._pinned(layer, layer.total) for layer in self.layers)
        return kept_between(most, self.target, progress, shape=shape)

    def _pinned(self, layer: Layer, otherwise: int) -> int:
        return count(self.pinned[layer.name], layer.total) if layer.name in self.pinned else otherwise

    def _best(
        self,
        values: Mapping[str, Tensor],
        layers: Sequence[Layer],
        wanted: int | dict[str, int],
        generator: torch.Generator,
    ) -> Masks:
        """The best scores of each layer, or of all together."""
        if isinstance(wanted, int):
            # A pinned layer's share is one of what is left of it.
            pinned = {
                now.name: self._pinned(layer, 0) / now.total
                for layer, now in zip(self.layers, layers, strict=True)
                if layer.name in self.pinned
            }
            densities = global_by_score(values, layers, wanted, pinned=pinned, generator=generator)
        else:
            densities = Densities.from_counts(layers, wanted)
        return choose(values, densities, generator=generator)

    def _best_left(
        self, values: Mapping[str, Tensor], among: Masks, wanted: int | dict[str, int], generator: torch.Generator
    ) -> Masks:
        """The same among the weights that are left, which costs what they are, and not what the network is."""
        left = [Layer(x.name, (among.kept.counts[x.name],), x.parameter) for x in self.layers]
        few = {name: torch.from_numpy(_selected(values[name], among[name])) for name in among}
        if isinstance(wanted, dict) or self.pinned:
            chosen = self._best(few, left, wanted, generator)
            marks = [chosen[layer.name].numpy() for layer in left]
        else:  # what is best of all together is best in its layer: once is enough
            best_of_all = best(np.concatenate([checked_scores(few, x) for x in left]), wanted, generator=generator)
            marks = np.split(best_of_all, np.cumsum([layer.total for layer in left])[:-1])
        return _placed(marks, among)


def prune_in_rounds(
    model: nn.Module,
    score: Score,
    goal: Goal,
    batch: Batch,
    *,
    iterations: int,
    revive: bool,
    guarded: bool,
    scoring: torch.Generator,
    choosing: torch.Generator,
    advance: Advance | None = None,
) -> Masks:
    """Score and prune `iterations` times, to densities that fall exponentially ([Tanaka2020] algorithm 1).

    The number of weights after round k of n is start^(1-k/n) goal^(k/n), rounded: exact in every round.

    Args:
        model: the dense network at its initial weights.
        score: of the network as pruned so far.
        goal: what to arrive at.
        batch: training examples.
        iterations: how often, at least 1.
        revive: weights that are gone compete again in each round ([deJorge2021] section 4.1, FORCE); otherwise they
            stay away (iterative SNIP, SynFlow).
        guarded: cut a round in several where it would remove as much score as the first or the last layer has. Where
            that is the flow through all paths, and a score the flow through one weight, as with SynFlow, some path
            survives every cut, and so a weight in each layer that all paths cross ([Tanaka2020] theorem 3). Only where
            scores of all layers compete.
        scoring: what scores draw from.
        choosing: breaks ties.
        advance: trains the network before each round (`snas.pruning.early`); what is gone stays away then.

    Raises:
        InputError: if the goal is out of reach, a score is NaN, or there is no iteration.
        RefusedError: if a layer is emptied on the way and cannot come back.

    Source:
        [Tanaka2020] H. Tanaka et al.: Pruning neural networks without any data by iteratively conserving synaptic flow.
        [deJorge2021] P. de Jorge et al.: Progressive skeletonization.
    """
    if iterations < 1:
        raise InputError(f"iterations is {iterations}; expected an integer of at least 1")
    goal.require_reachable()
    guarded = guarded and goal.allocation == "global" and isinstance(goal.target, int) and not goal.invert
    straight = replace(goal, shuffle=False)
    masks = Masks.dense(goal.layers)
    number = 1
    while number <= iterations:
        pruned = masks.kept.kept_weights < masks.kept.total_weights
        if not revive:
            refuse_empty(masks.kept)
        if advance is not None:
            advance(masks, number / iterations)
        values = score(model, goal.layers, replace(batch, masks=masks if pruned else None), generator=scoring)
        among = masks if pruned and not revive else None
        wanted = straight.masks(values, generator=choosing, progress=number / iterations, among=among)
        least = _least_safe(values, masks, wanted, goal) if guarded else None
        if least is None:
            masks = wanted
            number += 1
        else:
            masks = replace(straight, target=least).masks(values, generator=choosing, among=among)
    return shuffled(masks, choosing) if goal.shuffle else masks


def _least_safe(values: Mapping[str, Tensor], present: Masks, wanted: Masks, goal: Goal) -> int | None:
    """Weights to keep at least, so that less score goes than the outer layers have; None: `wanted` is safe."""
    outer = (present.layers[0].name, present.layers[-1].name)
    flow = max(float(_selected(values[name], present[name]).sum(dtype=np.float64)) for name in outer)
    free = [name for name in present if name not in goal.pinned]
    removed = np.concatenate([_selected(values[name], present[name] & ~wanted[name]) for name in free])
    bound = flow * (1 - 1e-9)  # rounding
    if removed.sum(dtype=np.float64) < bound or flow <= 0:
        return None
    lost = np.sort(removed).cumsum(dtype=np.float64)
    safe = max(1, int(np.count_nonzero(lost < bound)))
    return wanted.kept.kept_weights + len(removed) - safe if safe < len(removed) else None


def _selected(values: Tensor, mask: Tensor) -> NDArray[Any]:
    """The values where the mask is true, shape (weights,). NumPy picks them ten times faster than torch."""
    values = values.detach().cpu()
    array: NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    selected: NDArray[Any] = array[mask.numpy()]
    return selected


def shuffled(masks: Masks, generator: torch.Generator) -> Masks:
    """The masks with each layer's kept places drawn anew: a control that keeps the densities and nothing else."""
    drawn = {}
    for layer in masks.layers:
        order = torch.randperm(layer.total, generator=generator)
        drawn[layer.name] = masks[layer.name].reshape(-1)[order].reshape(layer.shape)
    return Masks(masks.layers, drawn)


def _placed(marks: Sequence[NDArray[np.bool_]], among: Masks) -> Masks:
    """Marks of the weights in `among`, shape (weights left,) for each layer, as masks of all weights."""
    placed = {}
    for layer, own in zip(among.layers, marks, strict=True):
        places = np.zeros(layer.shape, dtype=np.bool_)
        places[among[layer.name].numpy()] = own
        placed[layer.name] = torch.from_numpy(places)
    return Masks(among.layers, placed)
