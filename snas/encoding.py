"""What a point of the cube stands for: a network's shape, its densities, and the rules for its mask and its training.

A point has the coordinates of the densities first (see `SearchSpace.densities`), then one for every choice left to
the search: the mask rule, the training rule, and each searched argument of the space, in this order. What has a single
value has no coordinate. A choice of k is read from a coordinate cut into k equal parts; `canonical` moves it to the
middle of its part, and what the chosen architecture does not read to 1/2, so that a model of the scores does not see
differences that are none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from snas.budget import Budget
from snas.densities import Densities
from snas.errors import InputError
from snas.pruning.methods import Method, given_densities, join_rules
from snas.search_spaces.base import SearchSpace
from snas.trials import Point

AUTO_MASKS = ("random", "magnitude", "snip", "grasp", "synflow", "ldi")
MOST_SHAPES = 512

Indices = tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """A network to be trained.

    Attributes:
        space: the architecture.
        densities: kept weights of each of its layers.
        rule: what chooses the mask, and what moves it in training: "snip", or "random + rigl".
    """

    space: SearchSpace
    densities: Densities
    rule: str

    @property
    def method(self) -> Method:
        """How its network is made ready and trained."""
        return given_densities(self.rule)


@dataclass(frozen=True)
class Encoding:
    """How points become candidates.

    Attributes:
        space: the architecture, or the one that searched arguments start from; without its budget.
        budget: that all candidates obey; densities of the network are fractions of `space`, also for other shapes.
        pins: layer name or pattern -> fixed density.
        masks: mask rules to choose from.
        trains: training rules to choose from.
        shapes: argument of the space -> its values to choose from, in order.
        reopen: makes the space with other arguments; needed only for shapes.
        usual: argument of the space -> the value that stands for it where none is given; for those left out, what
            `space` has, or the first of its values.

    Raises:
        InputError: for an unknown rule or one that is given twice, a budget that no shape can meet, shapes whose points
            have different lengths, or when nothing is left to search.
    """

    space: SearchSpace
    budget: Budget | None = None
    pins: Mapping[str, float] = field(default_factory=dict)
    masks: tuple[str, ...] = ("random",)
    trains: tuple[str, ...] = ("static",)
    shapes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    reopen: Callable[[Mapping[str, Any]], SearchSpace] | None = field(default=None, compare=False)
    usual: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        rules = [
            given_densities(join_rules(mask, train)).name for mask, train in itertools.product(self.masks, self.trains)
        ]
        if twice := [rule for rule in rules if rules.count(rule) > 1]:
            raise InputError(f"rule {twice[0]!r} is given twice, in different words; give each once")
        _ = self._within  # raises where the budget cannot be met
        if self.dimensions == 0:
            raise InputError(
                "the budget, the pins and the representation leave nothing to search: all points are the same "
                "network; choose another budget, representation layer, or several masks"
            )

    @property
    def dimensions(self) -> int:
        """Length of a point."""
        return self._density_dimensions + len(self._sizes)

    @property
    def options(self) -> tuple[int, ...]:
        """How many options each choice with a coordinate has; these coordinates are a point's last."""
        return self._sizes

    @cached_property
    def architectures(self) -> tuple[SearchSpace, ...]:
        """All architectures that can be chosen, with their budgets."""
        return tuple(self._within.values())

    def decode(self, point: Point) -> Candidate:
        """The candidate that a point stands for.

        Args:
            point: shape (dimensions,), entries in [0, 1].

        Raises:
            InputError: for a wrong length, or an entry outside [0, 1].
        """
        chosen = self._chosen(point)
        indices = tuple(chosen[2:])
        space = self._within[indices]
        densities = space.densities(np.asarray(point[: space.dimensions]))
        rule = join_rules(self.masks[chosen[0]], self.trains[chosen[1]])
        return Candidate(self._bare[indices], densities, rule)

    def canonical(self, point: Point) -> Point:
        """The point with every choice in the middle of its part, and with 1/2 where nothing is read; it stands for the
        same candidate.

        Raises:
            InputError: as `decode`.
        """
        chosen = self._chosen(point)
        space = self._within[tuple(chosen[2:])]
        read = np.zeros(self._density_dimensions, dtype=bool)
        read[: space.dimensions] = True
        if space.scale is None or space.scale.open_ratios:
            columns = space.mixture.shape[1]
            read[:columns] = space.mixture.any(axis=0)
        return np.concatenate([np.where(read, point[: self._density_dimensions], 0.5), self._middles(chosen)])

    def encode(
        self,
        densities: Densities,
        *,
        mask: str | None = None,
        train: str | None = None,
        shape: Mapping[str, Any] | None = None,
    ) -> Point:
        """The point for densities of the architecture with these arguments, under these rules (default: the first).

        Raises:
            InputError: for a rule or shape that is not searched.
        """
        indices = self._indices(shape or {})
        own = self._within[indices].encode(densities)
        rest = np.full(self._density_dimensions - len(own), 0.5)
        chosen = (
            _index("mask rule", self.masks[0] if mask is None else mask, self.masks),
            _index("training rule", self.trains[0] if train is None else train, self.trains),
            *indices,
        )
        return np.concatenate([own, rest, self._middles(chosen)])

    def space_of(self, shape: Mapping[str, Any]) -> SearchSpace:
        """The architecture with these arguments, inside the budget; those not given are as usual. Where it cannot meet
        the budget, the nearest one that can.

        Raises:
            InputError: if it is not one that is searched.
        """
        return self._within[self._indices(shape)]

    @property
    def left_out(self) -> tuple[Mapping[str, Any], ...]:
        """Shapes that are searched by name, but cannot meet the budget."""
        return tuple(shape for indices, shape in self._shapes() if indices not in self._within)

    def traits(self, candidate: Candidate) -> dict[str, Any]:
        """What a candidate is beside its densities, as the registry files it."""
        shape = {name: candidate.space.arguments.get(name) for name in self.shapes}
        return {"rule": candidate.rule} | ({"shape": shape} if shape else {})

    def describe(self) -> dict[str, Any]:
        """What makes it what it is, beside the space; what is as usual is left out."""
        values = {
            "budget": self.budget.describe() if self.budget else {},
            "pins": dict(self.pins),
            "masks": list(self.masks) if len(self.masks) > 1 else [],
            "train": ",".join(self.trains) if self.trains != ("static",) else "",
            "shapes": {name: list(choices) for name, choices in self.shapes.items()},
        }
        return {key: value for key, value in values.items() if value}

    @cached_property
    def _choices(self) -> tuple[int, ...]:
        """How many mask rules, training rules and values of each searched argument there are."""
        return (len(self.masks), len(self.trains), *(len(values) for values in self.shapes.values()))

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """The same of those that have a coordinate."""
        return tuple(size for size in self._choices if size > 1)

    @cached_property
    def _density_dimensions(self) -> int:
        return max(space.dimensions for space in self._within.values())

    @cached_property
    def _within(self) -> dict[Indices, SearchSpace]:
        """Indices of the searched arguments' values -> architecture inside the budget, where it can meet it."""
        found: dict[Indices, SearchSpace] = {}
        refused: list[tuple[dict[str, Any], InputError]] = []
        for indices, shape in self._shapes():
            space = self.space if not self.shapes else self._reopened(shape)
            try:
                found[indices] = self._bring_within(space)
            except InputError as error:
                refused.append((shape, error))
        if not found:
            self._refuse(refused)
        lengths = {indices: space.mixture.shape[1] for indices, space in found.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"representation {self.space.representation!r} gives the searched shapes {min(lengths.values())} to "
                f"{max(lengths.values())} coordinates; choose representation depth or uniform"
            )
        return found

    def _refuse(self, refused: Sequence[tuple[dict[str, Any], InputError]]) -> NoReturn:
        """Say why no architecture can meet the budget, by the example of the one that comes nearest."""
        if not self.shapes:
            raise refused[0][1]
        shape, why = min(refused, key=lambda item: getattr(item[1], "gap", math.inf))
        text = ", ".join(f"{name}={value}" for name, value in shape.items())
        raise InputError(f"no shape that is searched can meet the budget; with {text}, {why}")

    @cached_property
    def _bare(self) -> dict[Indices, SearchSpace]:
        """The architectures without their budgets, as candidates have them."""
        return {
            indices: space if space.budget is None else replace(space, budget=None)
            for indices, space in self._within.items()
        }

    def _shapes(self) -> list[tuple[Indices, dict[str, Any]]]:
        """Every combination of the searched arguments' values, with its indices."""
        number = math.prod(self._choices[2:])
        if number > MOST_SHAPES:
            raise InputError(f"{number} shapes are too many; search at most {MOST_SHAPES}")
        combinations = itertools.product(*(range(size) for size in self._choices[2:]))
        return [
            (indices, {name: values[i] for (name, values), i in zip(self.shapes.items(), indices, strict=True)})
            for indices in combinations
        ]

    def _reopened(self, shape: Mapping[str, Any]) -> SearchSpace:
        if self.reopen is None:
            raise InputError("the shape of this space cannot be searched; name a space that takes arguments")
        return self.reopen(shape)

    def _bring_within(self, space: SearchSpace) -> SearchSpace:
        if not self.budget and not self.pins:
            return space
        budget = self.budget
        if budget and self.shapes:
            budget = replace(budget, whole=budget.whole or self.space.total_weights)
        return space.with_budget(budget, pinned=self.pins)

    def _indices(self, shape: Mapping[str, Any]) -> Indices:
        """Of the architecture with these arguments, or of the nearest one inside the budget."""
        return self._nearest(self._wanted(shape))

    def _wanted(self, shape: Mapping[str, Any]) -> Indices:
        if unknown := [name for name in shape if name not in self.shapes]:
            raise InputError(f"argument {unknown[0]!r} is not searched; choices: {', '.join(self.shapes) or 'none'}")
        wanted = []
        for name, values in self.shapes.items():
            usual = self.usual.get(name, self.space.arguments.get(name))
            wanted.append(_index(name, shape.get(name, usual if usual in values else values[0]), values))
        return tuple(wanted)

    def _nearest(self, wanted: Sequence[int]) -> Indices:
        """The architecture of these values; where it cannot meet the budget, the nearest one that can."""
        if tuple(wanted) in self._within:
            return tuple(wanted)
        return min(self._within, key=lambda known: (_distance(known, wanted, self._choices[2:]), known))

    def _chosen(self, point: Point) -> list[int]:
        """Mask rule, training rule and the architecture's arguments, as indices; checks the point."""
        values = np.asarray(point, dtype=np.float64)
        if values.shape != (self.dimensions,):
            raise InputError(f"point has shape {values.shape}; the search expects ({self.dimensions},)")
        outside = values[~((values >= 0) & (values <= 1))]
        if len(outside):
            raise InputError(f"point has an entry of {outside[0]}; expected entries in [0, 1]")
        coordinates = iter(values[self._density_dimensions :].tolist())
        parts = [min(int(next(coordinates) * size), size - 1) if size > 1 else 0 for size in self._choices]
        return [*parts[:2], *self._nearest(parts[2:])]

    def _middles(self, chosen: Sequence[int]) -> Point:
        """The coordinates of choices."""
        pairs = zip(chosen, self._choices, strict=True)
        return np.array([(part + 0.5) / size for part, size in pairs if size > 1], dtype=np.float64)


def _index(what: str, value: Any, choices: Sequence[Any]) -> int:
    if value not in choices:
        raise InputError(f"{what} {value!r} is not searched; choices: {', '.join(map(str, choices))}")
    return list(choices).index(value)


def _distance(known: Sequence[int], wanted: Sequence[int], sizes: Sequence[int]) -> float:
    return sum(abs(a - b) / size for a, b, size in zip(known, wanted, sizes, strict=True))
