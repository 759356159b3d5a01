"""Ways to get a sparse network before training: a score, an allocation and an initialization, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from snas.densities import Densities
from snas.errors import InputError
from snas.initialization.isometry import enforce_isometry
from snas.initialization.variance import initialize, rescale_by_fan_in
from snas.masks import Masks, choose
from snas.plugins import Family
from snas.pruning.allocations import global_by_score, uniform
from snas.pruning.paths import refuse_empty, require_trainable
from snas.pruning.scores import Batch, scores
from snas.seeds import Stream, derive

if TYPE_CHECKING:
    from snas.search_spaces.base import SearchSpace

Allocation = Literal["given", "uniform", "global", "dense"]


@dataclass(frozen=True)
class Method:
    """A way to get a sparse network before training.

    Attributes:
        name: how results are filed.
        score: name of the score that chooses the weights within their layers.
        allocation: how many weights each layer keeps: "given" by the caller, "uniform", "global" (the best scores of
            all layers together) or "dense" (all).
        initialization: rule for the initial weights; None takes the caller's.
        nonlinearity: what gives the initial weights their gain; None takes the space's. LDI has "linear", that is
            gain 1, as published: eq. 4.8 asks for singular values of 1 whatever the nonlinearity.
        isometry: bring the kept weights near to isometry, in place of rescaling them.
        rescale: scale the kept weights by their unit's masked fan-in, unless the caller decides. Right for masks that
            do not look at the weights; one that keeps large weights has more variance left than the fan-in says, and
            the published methods train the very weights that they scored.
        help: one line for the user.
    """

    name: str
    score: str
    allocation: Allocation
    initialization: str | None = None
    nonlinearity: str | None = None
    isometry: bool = False
    rescale: bool = False
    help: str = ""


methods: Family[Method] = Family("method", group="snas.methods")

for _method in (
    Method("dense", "random", "dense", help="The dense network: everything is kept."),
    Method("random", "random", "uniform", rescale=True, help="Random weights, the same density in every layer."),
    Method("magnitude", "magnitude", "global", help="The largest initial weights of all layers."),
    Method("snip", "snip", "global", help="SNIP: the largest connection sensitivities of all layers [Lee2019]."),
    Method(
        "ldi",
        "snip",
        "global",
        initialization="orthogonal-full",
        nonlinearity="linear",
        isometry=True,
        help="LDI-AI: SNIP from orthogonal weights, then approximate isometry [Lee2020].",
    ),
):
    methods.register(_method.name)(_method)


@dataclass(frozen=True)
class Sparse:
    """A network ready to train: masked weights are zero, and a path leads from its input to its output."""

    model: nn.Module
    masks: Masks
    densities: Densities


def prepare(
    space: SearchSpace,
    method: Method,
    target: Densities | int,
    batch: Batch,
    *,
    seed: int,
    initialization: str = "he",
    rescale: bool | None = None,
    device: torch.device | str = "cpu",
) -> Sparse:
    """Build, initialize and mask a network of `space`.

    The same seed and initialization give the same dense initial weights whatever the method, so that methods can be
    compared in pairs.

    Args:
        space: which network.
        method: how its mask and weights are made.
        target: densities for a method with given ones, else the number of weights to keep; "dense" needs none.
        batch: training examples that scores are computed from.
        seed: of everything random.
        initialization: rule for the initial weights, unless the method has its own.
        rescale: scale kept weights by their unit's masked fan-in, unless the method enforces isometry; None leaves it
            to the method.
        device: where the network goes, and scores are computed.

    Raises:
        InputError: if the target is of the wrong kind or out of reach, or the initialization is unknown.
        RefusedError: if a layer keeps no weight, or no path leads from the input to the output.
    """
    model = space.build(generator=_generator(seed, Stream.BUILD))
    rule = method.initialization or initialization
    nonlinearity = method.nonlinearity or space.nonlinearity
    initialize(model, rule=rule, nonlinearity=nonlinearity, generator=_generator(seed, Stream.WEIGHTS))
    model = model.to(device)
    masks = _choose(space, method, target, model, batch, seed)
    require_trainable(model, masks, input_shape=space.input_shape)
    if method.isometry:
        enforce_isometry(model, masks, nonlinearity=nonlinearity)
    elif method.rescale if rescale is None else rescale:
        rescale_by_fan_in(model, masks)
    masks.apply(model)
    return Sparse(model, masks, masks.kept)


def _choose(
    space: SearchSpace, method: Method, target: Densities | int, model: nn.Module, batch: Batch, seed: int
) -> Masks:
    """Score, allocate and choose."""
    if method.allocation == "dense":
        return Masks.dense(space.layers)
    given = method.allocation == "given"
    if isinstance(target, Densities) != given:
        expected = "densities" if given else "the number of weights to keep"
        raise InputError(f"method {method.name!r} was given {type(target).__name__}; expected {expected}")
    if isinstance(target, Densities):
        if [(layer.name, layer.shape) for layer in target.layers] != [
            (layer.name, layer.shape) for layer in space.layers
        ]:
            raise InputError(f"the densities are of other layers than those of space {space.name!r}")
        refuse_empty(target)
    values = scores.get(method.score)(model, space.layers, batch, generator=_generator(seed, Stream.SCORE))
    generator = _generator(seed, Stream.MASK)
    densities = target if isinstance(target, Densities) else _allocate(space, method, target, values, generator)
    return choose(values, densities, generator=generator)


def _allocate(
    space: SearchSpace, method: Method, kept: int, values: Mapping[str, Tensor], generator: torch.Generator
) -> Densities:
    if method.allocation == "uniform":
        return uniform(space.layers, kept, pinned=space.pinned)
    return global_by_score(values, space.layers, kept, pinned=space.pinned, generator=generator)


def _generator(seed: int, stream: Stream) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, stream))
