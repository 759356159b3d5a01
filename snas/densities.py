"""How much of each layer is kept: exact integer counts, never rounded twice.

A density is a fraction of weights kept, in [0, 1]. A `Densities` object holds the number of kept weights of every
prunable layer; fractions exist only at the borders (what a strategy proposes, what a table shows).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snas.errors import InputError


@dataclass(frozen=True, slots=True)
class Layer:
    """One prunable weight tensor.

    Attributes:
        name: the layer's name in the network, for example "blocks.0.conv1".
        shape: shape of the weight, (out, in, *kernel).
        parameter: full name of the weight parameter; `name + ".weight"` when left empty.
        positions: output positions at which each weight is used for one example (1 for a linear layer).
        block: layers of one block share a density under representation "block"; `name` when left empty.
    """

    name: str
    shape: tuple[int, ...]
    parameter: str = ""
    positions: int = 1
    block: str = ""

    def __post_init__(self) -> None:
        if not self.parameter:
            object.__setattr__(self, "parameter", f"{self.name}.weight")
        if not self.block:
            object.__setattr__(self, "block", self.name)

    @property
    def total(self) -> int:
        """Number of weights of the dense layer."""
        return math.prod(self.shape)


def check_density(value: float, what: str = "density") -> float:
    """Return `value` when it is a number with 0 < value <= 1, else raise InputError naming `what`."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 < value <= 1):
        raise InputError(f"{what} is {value}; expected 0 < density <= 1")
    return float(value)


def count(fraction: float, total: int) -> int:
    """Number of weights nearest to `fraction * total`, halves rounded up."""
    return min(total, math.floor(fraction * total + 0.5))


@dataclass(frozen=True, slots=True)
class Densities:
    """The number of kept weights of every layer, in the order of `layers`.

    Example:
        >>> layers = (Layer("fc1", (4, 3)), Layer("fc2", (2, 4)))
        >>> densities = Densities.from_fractions(layers, [0.5, 0.25])
        >>> densities.kept, densities.kept_weights, densities.density
        ((6, 2), 8, 0.4)

    Raises:
        InputError: if a count is missing, negative or above the layer's size.
    """

    layers: tuple[Layer, ...]
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.kept):
            raise InputError(f"{len(self.kept)} counts for {len(self.layers)} layers; give one count per layer")
        for layer, kept in zip(self.layers, self.kept, strict=True):
            if not 0 <= kept <= layer.total:
                raise InputError(f"layer {layer.name!r} cannot keep {kept} of its {layer.total} weights")

    @classmethod
    def dense(cls, layers: Sequence[Layer]) -> Densities:
        """Keep everything."""
        return cls(tuple(layers), tuple(layer.total for layer in layers))

    @classmethod
    def from_fractions(cls, layers: Sequence[Layer], fractions: Sequence[float]) -> Densities:
        """Keep in each layer the count nearest to its fraction; fractions are in [0, 1], one per layer."""
        if len(layers) != len(fractions):
            raise InputError(f"{len(fractions)} densities for {len(layers)} layers; give one density per layer")
        for layer, fraction in zip(layers, fractions, strict=True):
            if not 0 <= fraction <= 1:
                raise InputError(f"density for layer {layer.name!r} is {fraction}; expected 0 <= density <= 1")
        return cls(tuple(layers), tuple(count(f, layer.total) for layer, f in zip(layers, fractions, strict=True)))

    @classmethod
    def from_counts(cls, layers: Sequence[Layer], counts: Mapping[str, int]) -> Densities:
        """Read counts by layer name."""
        missing = [layer.name for layer in layers if layer.name not in counts]
        if missing:
            raise InputError(f"no count for layer {missing[0]!r}; give one for each of {len(layers)} layers")
        return cls(tuple(layers), tuple(int(counts[layer.name]) for layer in layers))

    def are_of(self, layers: Sequence[Layer]) -> bool:
        """Whether they are of these layers: the same names and shapes in the same order."""
        return [(own.name, own.shape) for own in self.layers] == [(layer.name, layer.shape) for layer in layers]

    @property
    def kept_weights(self) -> int:
        """Kept weights of the whole network."""
        return sum(self.kept)

    @property
    def total_weights(self) -> int:
        """Weights of the dense network."""
        return sum(layer.total for layer in self.layers)

    @property
    def density(self) -> float:
        """Fraction of all prunable weights that is kept."""
        return self.kept_weights / self.total_weights

    @property
    def fractions(self) -> dict[str, float]:
        """Layer name -> fraction kept."""
        return {layer.name: kept / layer.total for layer, kept in zip(self.layers, self.kept, strict=True)}

    @property
    def counts(self) -> dict[str, int]:
        """Layer name -> kept weights."""
        return {layer.name: kept for layer, kept in zip(self.layers, self.kept, strict=True)}

    @property
    def flops(self) -> int:
        """Effective floating-point operations for one example: a multiplication and an addition per kept weight and
        output position. Bias, normalization and activation are not counted."""
        return 2 * sum(kept * layer.positions for layer, kept in zip(self.layers, self.kept, strict=True))

    @property
    def empty_layers(self) -> tuple[str, ...]:
        """Names of the layers that keep nothing."""
        return tuple(layer.name for layer, kept in zip(self.layers, self.kept, strict=True) if kept == 0)
