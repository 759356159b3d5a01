"""Make a sparse network ready to train: build, initialize, score, share out, mask."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn

from snas.densities import Densities
from snas.errors import InputError
from snas.initialization.isometry import enforce_isometry
from snas.initialization.variance import initialize, rescale_by_fan_in
from snas.masks import Masks
from snas.pruning.early import short_training
from snas.pruning.goal import Goal, prune_in_rounds
from snas.pruning.methods import Method
from snas.pruning.paths import refuse_empty, require_trainable
from snas.pruning.scores import Batch, scores
from snas.search_spaces.alike import build_undrawn
from snas.seeds import Stream, derive

if TYPE_CHECKING:
    from snas.search_spaces.base import SearchSpace


@dataclass(frozen=True)
class Sparse:
    """A network ready to train: masked weights are zero, and a path leads from its input to its output.

    Attributes:
        model: the network.
        masks: that it starts with.
        densities: that it starts with.
        goal: what a movement of its mask is to end with.
    """

    model: nn.Module
    masks: Masks
    densities: Densities
    goal: Goal


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
        DivergedError: if the short training that some methods draw their mask from has a loss that is not finite.
    """
    rule = method.initialization or initialization
    nonlinearity = method.nonlinearity or space.nonlinearity
    model, goal, masks = choose_masks(
        space, method, target, batch, seed=seed, initialization=initialization, device=device
    )
    if method.offset == "none":  # a dense offset leads everywhere
        require_trainable(model, masks, input_shape=space.input_shape)
    else:
        refuse_empty(masks.kept)
    if method.control == "redraw":
        generator = _generator(seed, Stream.REDRAW)
        if rule == "as-built":  # the constructor draws
            model.load_state_dict(space.build(generator=generator).state_dict())
        initialize(model, rule=rule, nonlinearity=nonlinearity, generator=generator)
    if method.isometry != "none":
        enforce_isometry(model, masks, nonlinearity=nonlinearity, norm=method.isometry)
        masks.apply(model)
    elif (method.rescale if rescale is None else rescale) and not method.starts_dense:
        rescale_by_fan_in(model, masks)
    else:
        masks.apply(model)
    return Sparse(model, masks, masks.kept, goal)


def choose_masks(
    space: SearchSpace,
    method: Method,
    target: Densities | int,
    batch: Batch,
    *,
    seed: int,
    initialization: str = "he",
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, Goal, Masks]:
    """Build and initialize a network, and choose its masks, whether or not it could work with them.

    Args: as `prepare`.

    Returns:
        The network at its dense initial weights, what its mask is to end with, and the masks to start with, which may
        leave a layer empty.

    Raises:
        InputError, DivergedError: as `prepare`.
        RefusedError: if a layer is emptied in one of several rounds and cannot come back.
    """
    rule = method.initialization or initialization
    nonlinearity = method.nonlinearity or space.nonlinearity
    builder = _generator(seed, Stream.BUILD)
    # "as-built" leaves what the constructor draws.
    model = space.build(generator=builder) if rule == "as-built" else build_undrawn(space, generator=builder)
    initialize(model, rule=rule, nonlinearity=nonlinearity, generator=_generator(seed, Stream.WEIGHTS))
    if method.offset == "dct":
        from snas.layers.dct import add_offsets

        add_offsets(model, space.layers)
    if any(tensor.device != torch.device(device) for tensor in chain(model.parameters(), model.buffers())):
        model = model.to(device)
    goal = make_goal(space, method, target)
    goal.require_reachable()
    return model, goal, _choose(method, goal, model, batch, seed, lr=space.learning_rate)


def make_goal(space: SearchSpace, method: Method, target: Densities | int) -> Goal:
    """What the method is to arrive at.

    Raises:
        InputError: if the target is of the wrong kind, of another network, or empties a layer.
    """
    if method.allocation == "dense":
        target = Densities.dense(space.layers)
    elif isinstance(target, Densities) != (method.allocation == "given"):
        expected = "densities" if method.allocation == "given" else "the number of weights to keep"
        raise InputError(f"method {method.name!r} was given {type(target).__name__}; expected {expected}")
    if isinstance(target, Densities):
        if not target.are_of(space.layers):
            raise InputError(f"the densities are of other layers than those of space {space.name!r}")
        refuse_empty(target)
    return Goal(
        space.layers,
        target,
        allocation=method.allocation,
        pinned=space.pinned,
        invert=method.control == "invert",
        shuffle=method.control == "shuffle",
    )


def _choose(method: Method, goal: Goal, model: nn.Module, batch: Batch, seed: int, *, lr: float) -> Masks:
    """The masks to start with; a short training that scores look into has the learning rate that the space advises."""
    if method.starts_dense:
        return Masks.dense(goal.layers)
    scoring = _generator(seed, Stream.SCORE)
    with ExitStack() as stack:
        advance = None
        if method.passes:
            training = short_training(model, batch, passes=method.passes, lr=lr, generator=scoring)
            advance = stack.enter_context(training)
        return prune_in_rounds(
            model,
            scores.get(method.score),
            goal,
            replace(batch, target=method.target),
            iterations=method.iterations,
            revive=method.revive,
            guarded=method.guarded,
            scoring=scoring,
            choosing=_generator(seed, Stream.MASK),
            advance=advance,
        )


def _generator(seed: int, stream: Stream) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, stream))
