"""The seam between a search and the networks it searches.

A search space knows which layers of a network can be thinned, how a point of the unit cube becomes exact counts, and
how the network is built. To add one, write a function that returns a `SearchSpace` and decorate it:

    @spaces.register("mine")
    def mine(input_shape, classes, *, width: int = 32) -> SearchSpace:
        \"\"\"One line that `snas list spaces` shows.\"\"\"
        return SearchSpace.from_model(lambda: MyNetwork(classes, width), input_shape=input_shape, name="mine")
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from snas.budget import Budget, key_of
from snas.densities import Densities, Layer, check_density
from snas.errors import InputError
from snas.plugins import Family
from snas.projection import Limits
from snas.search_spaces.coordinates import Scale, blend
from snas.seeds import seeded
from snas.trials import Point

if TYPE_CHECKING:
    import torch
    from torch import nn

Representation = Literal["layer", "block", "depth", "uniform"]
Ends = Literal["search", "dense"]


@dataclass(frozen=True)
class SearchSpace:
    """A family of sparse networks with one architecture.

    Attributes:
        name: how results are filed.
        factory: builds the dense network; called without arguments.
        layers: prunable layers in the order of their definition.
        input_shape: shape of one example, (channels, height, width) or (features,).
        classes: number of classes.
        arguments: what the factory was made from; recorded with results.
        representation: one coordinate per "layer", per "block", five along the "depth", or one for all ("uniform").
        pinned: layer name -> fixed density; pinned layers have no coordinate.
        budget: that all densities obey; None: any density is allowed.
        nonlinearity: what follows the weight layers; sets the gain of initializations.
        learning_rate: a good default for this family.
        network: fingerprint of the dense network, so that one name never stands for two architectures.
    """

    name: str
    factory: Callable[[], nn.Module]
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    classes: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    representation: Representation = "layer"
    pinned: Mapping[str, float] = field(default_factory=dict)
    nonlinearity: str = "relu"
    learning_rate: float = 0.1
    network: str = ""
    budget: Budget | None = None

    @classmethod
    def from_model(
        cls,
        factory: Callable[[], nn.Module],
        *,
        input_shape: Sequence[int],
        name: str,
        pinned: Mapping[str, float] | None = None,
        excluded: Sequence[str] = (),
        groups: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
        nonlinearity: str = "relu",
        learning_rate: float = 0.1,
    ) -> SearchSpace:
        """Make a space of any network: every Linear and Conv1d/2d/3d, recurrent layer or cell (RNN, LSTM, GRU) and
        MultiheadAttention is found, and its weights can be thinned.

        A weight of a recurrent layer or of attention is a layer of its own, named as the parameter is, such as
        "rnn.weight_ih_l0"; of the others, the layer has the module's name.

        Args:
            factory: returns a new dense network at every call; it maps (batch, *input_shape) to (batch, classes).
            input_shape: shape of one example, positive integers.
            name: how results are filed.
            pinned: layer name or pattern (`"stem.*"`) -> fixed density; 1.0 keeps the layer dense.
            excluded: names or patterns of layers that are neither thinned nor counted.
            groups: layer name or pattern -> block name; the layers of a block share a density under
                representation "block".
            arguments: recorded with results.
            nonlinearity: "relu", "tanh", "linear" ...: what follows the weight layers.
            learning_rate: default for training.

        Raises:
            InputError: if the factory raises, returns no module or the same one twice, the module rejects its input,
                has no prunable layer, or a name or pattern matches nothing.

        Example:
            >>> from torch import nn
            >>> def factory():
            ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
            >>> space = SearchSpace.from_model(factory, input_shape=(1, 8, 8), name="tiny")
            >>> [(layer.name, layer.total) for layer in space.layers], space.classes
            ([('1', 2048), ('3', 320)], 10)
        """
        from snas.search_spaces.inspection import inspect_network

        shape = _check_shape(input_shape, name)
        layers, classes, network = inspect_network(factory, shape, name=name)
        chosen = [layer for layer in layers if not any(fnmatchcase(layer.name, pattern) for pattern in excluded)]
        _check_patterns("excluded", excluded, layers)
        _check_patterns("pinned", pinned or {}, chosen)
        _check_patterns("groups", groups or {}, chosen)
        if not chosen:
            raise InputError(f"space {name!r} has no prunable layer left; exclude fewer than all {len(layers)}")
        grouped = tuple(replace(layer, block=_match(layer.name, groups or {}) or layer.block) for layer in chosen)
        fixed = {
            layer.name: check_density(density, f"density of pinned layer {layer.name!r}")
            for layer in grouped
            if (density := _match(layer.name, pinned or {})) is not None
        }
        space = cls(
            name=name,
            factory=factory,
            layers=grouped,
            input_shape=shape,
            classes=classes,
            arguments=dict(arguments or {}),
            pinned=fixed,
            nonlinearity=nonlinearity,
            learning_rate=learning_rate,
            network=network,
        )
        space._require_coordinates()
        return space

    def with_options(
        self,
        *,
        representation: str | None = None,
        first_layer: str = "search",
        last_layer: str = "search",
    ) -> SearchSpace:
        """Return this space with another representation and policy for its first and last layer.

        Args:
            representation: "layer", "block", "depth" or "uniform"; None keeps the space's own.
            first_layer: "search" its density, or keep it "dense".
            last_layer: the same for the last layer.

        Raises:
            InputError: for an unknown option, or when nothing is left to search.
        """
        representation = representation or self.representation
        for what, value, choices in (
            ("representation", representation, get_args(Representation)),
            ("first-layer", first_layer, get_args(Ends)),
            ("last-layer", last_layer, get_args(Ends)),
        ):
            if value not in choices:
                raise InputError(f"{what} is {value!r}; choices: {', '.join(choices)}")
        pinned = dict(self.pinned)
        if first_layer == "dense":
            pinned[self.layers[0].name] = 1.0
        if last_layer == "dense":
            pinned[self.layers[-1].name] = 1.0
        space = replace(self, representation=cast(Representation, representation), pinned=pinned)
        space._require_coordinates()
        return space

    def with_budget(self, budget: Budget | None, *, pinned: Mapping[str, float] | None = None) -> SearchSpace:
        """Return this space with all its densities inside a budget.

        Args:
            budget: None takes away the one that it has.
            pinned: layer name or pattern -> fixed density, beside those that are pinned already.

        Raises:
            InputError: if no densities meet the budget, a pattern matches nothing, a layer is pinned at another density
                already, or every layer is pinned.
        """
        given = pinned or {}
        _check_patterns("pinned", given, self.layers)
        more = {
            layer.name: check_density(given[key], f"density of pinned layer {layer.name!r}")
            for layer in self.layers
            if (key := key_of(layer.name, given)) is not None
        }
        for name, density in more.items():
            if self.pinned.get(name, density) != density:
                raise InputError(
                    f"layer {name!r} is pinned at density {density:g}, and at {self.pinned[name]:g} by its space or "
                    "the policy for the first and last layer; leave one of them out"
                )
        space = replace(self, budget=budget or None, pinned={**self.pinned, **more})
        space._require_coordinates()
        _ = space.limits  # raises where they cannot be met
        return space

    @cached_property
    def free(self) -> tuple[int, ...]:
        """Indices of the layers that are not pinned."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.name not in self.pinned)

    @cached_property
    def mixture(self) -> NDArray[np.float64]:
        """How coordinates add up to the value of each free layer, shape (free layers, coordinates)."""
        return blend(self.layers, self.free, self.representation)

    @property
    def coordinates(self) -> tuple[tuple[int, ...], ...]:
        """For each coordinate that tells of layers, their indices. A budget's total has a coordinate behind these."""
        if self.scale is not None and not self.scale.open_ratios:
            return ()
        return tuple(tuple(self.free[row] for row in np.flatnonzero(column)) for column in self.mixture.T)

    @cached_property
    def scale(self) -> Scale | None:
        """How points are read inside a budget of the whole network; None where each coordinate is a density."""
        if self.budget is None or not self.budget.bounded:
            return None
        return Scale(cast(Limits, self.limits), self.mixture, self.free)

    @cached_property
    def limits(self) -> Limits | None:
        """What the budget means for the layers; None where there is none."""
        return None if self.budget is None else self.budget.limits(self.layers, self.pinned)

    @property
    def dimensions(self) -> int:
        """Length of a point."""
        return int(self.mixture.shape[1]) if self.scale is None else self.scale.dimensions

    @property
    def total_weights(self) -> int:
        """Weights of the dense network's prunable layers."""
        return sum(layer.total for layer in self.layers)

    def densities(self, point: Point | Sequence[float]) -> Densities:
        """Decode a point of the unit cube, and bring it within the budget.

        Without a budget a coordinate is the density of its layers ([Tessera2021] eq. 4.1); inside one it is the
        logarithm of their share (see `snas.search_spaces.coordinates`).

        Args:
            point: shape (dimensions,), entries in [0, 1].

        Raises:
            InputError: for a wrong length, or an entry outside [0, 1].
        """
        values = np.asarray(point, dtype=np.float64)
        if values.shape != (self.dimensions,):
            raise InputError(f"point has shape {values.shape}; space {self.name!r} expects ({self.dimensions},)")
        outside = values[~((values >= 0) & (values <= 1))]
        if len(outside):
            raise InputError(f"point of space {self.name!r} has an entry of {outside[0]}; expected entries in [0, 1]")
        if self.scale is not None:
            return self.scale.decode(values)
        fractions = [self.pinned.get(layer.name, 1.0) for layer in self.layers]
        for i, value in zip(self.free, (self.mixture @ values).tolist(), strict=True):
            fractions[i] = value
        densities = Densities.from_fractions(self.layers, fractions)
        return densities if self.limits is None else self.limits.project(densities.kept)

    def encode(self, densities: Densities) -> Point:
        """The point that stands for densities, or for those nearest to them that this space holds.

        Example:
            >>> from torch import nn
            >>> def factory():
            ...     return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
            >>> space = SearchSpace.from_model(factory, input_shape=(8,), name="tiny").with_budget(Budget(density=0.3))
            >>> space.densities(space.encode(space.densities([0.9, 0.2]))) == space.densities([0.9, 0.2])
            True
        """
        if self.scale is not None:
            return self.scale.encode(densities)
        fractions = np.array(list(densities.fractions.values()))[list(self.free)]
        return np.asarray(np.clip(np.linalg.lstsq(self.mixture, fractions, rcond=None)[0], 0.0, 1.0))

    def build(self, *, generator: torch.Generator) -> nn.Module:
        """Build the dense network. Whatever its constructor draws comes from `generator`, not from global state."""
        import torch

        from snas.search_spaces.inspection import finish

        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with seeded(seed):
            return finish(self.factory(), self.input_shape, name=self.name)

    def describe(self) -> dict[str, Any]:
        """What makes this space what it is, as recorded with every result."""
        return {
            "name": self.name,
            "arguments": dict(self.arguments),
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "representation": self.representation,
            "pinned": dict(self.pinned),
            **({"budget": self.budget.describe()} if self.budget is not None else {}),
            "nonlinearity": self.nonlinearity,
            "network": self.network,
            "layers": [
                {
                    "name": layer.name,
                    "shape": list(layer.shape),
                    "parameter": layer.parameter,
                    "positions": layer.positions,
                    "block": layer.block,
                }
                for layer in self.layers
            ],
        }

    def _require_coordinates(self) -> None:
        if not self.free:
            raise InputError(f"space {self.name!r} has nothing to search: every layer is pinned; pin fewer")


def require_image(input_shape: Sequence[int], name: str, *, smallest: int = 1) -> tuple[int, int, int]:
    """Return `input_shape` when it is (channels, height, width), both sides at least `smallest` pixels.

    Raises:
        InputError: for a vector, or an image that is too small, naming the space `name`.
    """
    if len(input_shape) != 3:
        shape = ", ".join(map(str, input_shape))
        raise InputError(
            f"space {name!r} takes images (channels, height, width); the data has shape ({shape}); choose mlp"
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise InputError(
            f"space {name!r} takes images of at least {smallest}x{smallest} pixels; the data has {height}x{width}"
        )
    return channels, height, width


def require_whole(argument: str, value: int, name: str, *, least: int = 1, most: int | None = None) -> None:
    """Raise InputError unless the argument of space `name` is an integer in its range."""
    if not isinstance(value, int) or value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        raise InputError(f"argument {argument!r} of space {name!r} is {value}; expected an integer, {allowed}")


def _check_shape(input_shape: Sequence[int], name: str) -> tuple[int, ...]:
    """Return the shape as a tuple; raise InputError unless it is a sequence of positive integers."""
    try:
        shape = tuple(operator.index(size) for size in input_shape)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(
            f"space {name!r}: input_shape is {input_shape!r}; expected positive integers, such as (1, 8, 8)"
        )
    return shape


def _match(name: str, patterns: Mapping[str, Any]) -> Any:
    """Value of the first pattern that matches `name`, else None."""
    return next((value for pattern, value in patterns.items() if fnmatchcase(name, pattern)), None)


def _check_patterns(what: str, patterns: Any, layers: Sequence[Layer]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers):
            names = ", ".join(layer.name for layer in layers)
            raise InputError(f"{what} layer {pattern!r} matches no layer; layers: {names}")


SpaceFactory = Callable[..., SearchSpace]

spaces: Family[SpaceFactory] = Family(
    "space",
    group="snas.search_spaces",
    modules=(
        "snas.search_spaces.mlp",
        "snas.search_spaces.perceptron",
        "snas.search_spaces.lenet",
        "snas.search_spaces.small_cnn",
        "snas.search_spaces.alexnet",
        "snas.search_spaces.vgg",
        "snas.search_spaces.resnet",
        "snas.search_spaces.resnet_v2",
        "snas.search_spaces.wide_resnet",
        "snas.search_spaces.recurrent",
    ),
)
