"""How many weights a network may keep, and the way from any wish to counts that obey it, exact to the weight.

A `Budget` is what a user says; `limits` reads it for given layers and refuses what nobody can meet, naming what can be;
`snas.projection.Limits.project` brings any wish within it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

from snas.densities import Layer, check_density, count
from snas.errors import InputError
from snas.projection import Limits as Limits  # what a budget becomes is imported from here

HAIR = 1e-12  # a product's rounding error must not cost a weight


class OutOfReach(InputError):
    """No counts meet the budget.

    Attributes:
        gap: how far the budget is from the nearest one that can be met, in weights or operations.
    """

    def __init__(self, message: str, gap: int) -> None:
        super().__init__(message)
        self.gap = gap


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a network may keep. Everything may be left out; densities are fractions of all prunable weights.

    Attributes:
        density: keep exactly this fraction (rounded to whole weights).
        weights: keep exactly this many.
        min_density: keep at least this fraction.
        max_density: keep at most this fraction.
        max_weights: keep at most this many.
        max_flops: floating-point operations for one example, as `Densities.flops` counts them, at most.
        floors: layer name or pattern ("blocks.*") -> smallest density of each such layer.
        caps: layer name or pattern -> largest density of each such layer. Of a name and patterns that match, the name
            counts, then the longest pattern.
        whole: number of weights that densities of the network are fractions of; None: all that it has.

    Raises:
        InputError: for a value out of its range, or an exact number beside another one or a range.

    Example:
        >>> layers = (Layer("a", (10, 10)), Layer("b", (4, 5)))
        >>> limits = Budget(density=0.1, floors={"b": 0.25}).limits(layers)
        >>> limits.least, limits.most, limits.project([1.0, 1.0]).kept
        (12, 12, (6, 6))
    """

    density: float | None = None
    weights: int | None = None
    min_density: float | None = None
    max_density: float | None = None
    max_weights: int | None = None
    max_flops: int | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    whole: int | None = None

    def __post_init__(self) -> None:
        for name in ("density", "min_density", "max_density"):
            if getattr(self, name) is not None:
                check_density(getattr(self, name), _spelled(name))
        for name in ("weights", "max_weights", "max_flops"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
                raise InputError(f"{_spelled(name)} is {value}; expected an integer of at least 1")
            object.__setattr__(self, name, None if value is None else int(value))
        for what, bounds in (("floor", self.floors), ("cap", self.caps)):
            for pattern, value in bounds.items():
                check_density(value, f"{what} of layer {pattern!r}")
        if self.density is not None and self.weights is not None:
            raise InputError("density and weights both say exactly how much is kept; give one of them")
        if self.exact and (self.min_density, self.max_density, self.max_weights) != (None, None, None):
            given = next(name for name in ("min_density", "max_density", "max_weights") if getattr(self, name))
            exact = "density" if self.density is not None else "weights"
            raise InputError(
                f"{exact} says exactly how much is kept, {_spelled(given)} gives a range; give one of them"
            )

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.describe())

    @property
    def exact(self) -> bool:
        """Whether it fixes the number of weights."""
        return self.density is not None or self.weights is not None

    @property
    def bounded(self) -> bool:
        """Whether it says anything of the network as a whole."""
        return self.exact or any(
            value is not None for value in (self.min_density, self.max_density, self.max_weights, self.max_flops)
        )

    def describe(self) -> dict[str, Any]:
        """What it says, as recorded with a study."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items() if value}

    def limits(self, layers: Sequence[Layer], pinned: Mapping[str, float] | None = None) -> Limits:
        """What it means for these layers.

        Args:
            layers: all prunable layers; densities are fractions of their total, unless `whole` says of what.
            pinned: layer name -> fixed density; floors and caps must not contradict it.

        Raises:
            InputError: if no counts meet it; the message names the nearest budget that leaves something to choose, one
                weight from the last that can be met.
        """
        low, high = self._bounds(layers, pinned or {})
        whole = self.whole or sum(layer.total for layer in layers)
        least, most = self._range(whole)
        told = self.min_density is not None or self.exact
        limits = Limits(tuple(layers), low, high, least, most, self.max_flops, told)
        self._require_feasible(limits, whole, pinned or {})
        least, most = max(least, sum(low)), min(most, sum(high), limits.most_within_flops)
        return Limits(tuple(layers), low, high, least, most, self.max_flops, told)

    def _range(self, whole: int) -> tuple[int, int]:
        """Fewest and most weights of all layers together; 0 and very many where nothing is said."""
        if self.weights is not None:
            return self.weights, self.weights
        if self.density is not None:
            kept = count(self.density, whole)
            return kept, kept
        most = [2**62] if self.max_weights is None else [self.max_weights]
        if self.max_density is not None:
            most.append(_at_most(self.max_density, whole))
        return 0 if self.min_density is None else _at_least(self.min_density, whole), min(most)

    def _bounds(self, layers: Sequence[Layer], pinned: Mapping[str, float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Fewest (at least one) and most weights of every layer."""
        for what, bounds in (("floor", self.floors), ("cap", self.caps)):
            for pattern in bounds:
                if not any(fnmatchcase(layer.name, pattern) for layer in layers):
                    names = ", ".join(layer.name for layer in layers)
                    raise InputError(f"{what} {pattern!r} matches no layer; layers: {names}")
        low, high = [], []
        problems: list[str] = []
        needed: dict[str, tuple[float, str]] = {}
        for layer in layers:
            fewest, most = self._of_layer(layer, pinned.get(layer.name))
            if fewest > most:
                cap = key_of(layer.name, self.caps) or ""
                problems.append(
                    f"layer {layer.name!r} cannot keep at least {fewest} of its {layer.total} weights under "
                    f"cap {self.caps[cap]:g}, which leaves {most}"
                )
                least_cap = _spell(fewest, layer.total, _at_most)
                needed[cap] = max(needed.get(cap, (0.0, "")), (float(least_cap), least_cap))
            low.append(fewest)
            high.append(most)
        if problems:
            nearest = " and ".join(f"cap {pattern}={text}" for pattern, (_, text) in needed.items())
            raise InputError(f"{problems[0]}; the nearest budget is {nearest}")
        return tuple(low), tuple(high)

    def _of_layer(self, layer: Layer, pin: float | None) -> tuple[int, int]:
        """Fewest and most weights of a layer; contradictory ones are returned as they are."""
        floor_of, cap_of = key_of(layer.name, self.floors), key_of(layer.name, self.caps)
        floor = None if floor_of is None else self.floors[floor_of]
        cap = None if cap_of is None else self.caps[cap_of]
        if pin is not None:
            for what, bound, broken in (
                ("below its floor", floor, pin < (floor or 0.0)),
                ("above its cap", cap, pin > (cap or 1.0)),
            ):
                if broken:
                    raise InputError(
                        f"layer {layer.name!r} is pinned at density {pin:g}, {what} {bound:g}; "
                        f"the nearest budget pins it at {bound:g}"
                    )
            kept = max(1, count(pin, layer.total))
            return kept, kept
        fewest = 1 if floor is None else max(1, _at_least(floor, layer.total))
        return fewest, layer.total if cap is None else _at_most(cap, layer.total)

    def _require_feasible(self, limits: Limits, whole: int, pinned: Mapping[str, float]) -> None:
        """Raise InputError, naming the nearest budget that can be met, if no counts are within the limits."""
        fewest, most = sum(limits.low), sum(limits.high)
        choice = int(fewest < most)
        needs = f"one weight in each of {len(limits.layers)} layers"
        needs += "".join(f" and the {what}" for what, given in (("floors", self.floors), ("pins", pinned)) if given)
        if limits.most < fewest:
            tight = self._stated("max_density", "max_weights", when=lambda kept: kept < fewest, whole=whole)
            raise OutOfReach(
                f"{tight} cannot be met: {needs} take {fewest} weights; "
                f"the nearest budget is {self._nearest(limits, fewest + choice, whole)}",
                fewest - limits.most,
            )
        if limits.least > most:
            large = self._stated("min_density", when=lambda kept: kept > most, whole=whole)
            why = "the caps and pins of the layers leave" if self.caps or pinned else "the layers have"
            raise OutOfReach(
                f"{large} cannot be met: {why} {most} weights; "
                f"the nearest budget is {self._nearest(limits, min(limits.most, most - choice), whole)}",
                limits.least - most,
            )
        if limits.least > limits.most:
            above = self._stated("min_density", when=lambda kept: True, whole=whole)
            bound = self._stated("max_density", "max_weights", when=lambda kept: kept == limits.most, whole=whole)
            raise OutOfReach(
                f"{above} is above {bound}; "
                f"the nearest budget is {self._nearest(limits, min(limits.most, most - choice), whole)}",
                limits.least - limits.most,
            )
        if self.max_flops is None:
            return
        cheapest = limits.fewest_flops(max(limits.least, fewest))
        if self.max_flops < cheapest:
            nearest = f"max-flops {limits.fewest_flops(max(limits.least, fewest + choice))}"
            if self.max_flops >= limits.fewest_flops(fewest + choice):
                nearest += f", or {self._nearest(limits, limits.most_within_flops, whole)}"
            what = needs if limits.least <= fewest else f"{limits.least} weights, wherever they are,"
            raise OutOfReach(
                f"max-flops {self.max_flops} cannot be met: {what} take {cheapest} operations; "
                f"the nearest budget is {nearest}",
                cheapest - self.max_flops,
            )

    def _stated(self, *names: str, when: Callable[[int], bool], whole: int) -> str:
        """What the user said of the network as a whole, of that which is out of reach."""
        said = []
        for name in ("density", "weights", *names):
            value = getattr(self, name)
            if value is not None and when(kept := _READS[name](value, whole)):
                said.append(
                    f"{_spelled(name)} {value}" + (f" ({kept} of {whole} weights)" if "density" in name else "")
                )
        return " and ".join(said)

    def _nearest(self, limits: Limits, total: int, whole: int) -> str:
        """What to say in place of what stands in the way of this total, in the user's terms."""
        said = []
        for name, reads in _READS.items():
            value = getattr(self, name)
            if value is None or not _excludes(name, reads(value, whole), total):
                continue
            if "density" in name and total <= whole:
                said.append(f"{_spelled(name)} {_spell(total, whole, reads)} ({total} weights)")
            else:
                said.append(f"{_spelled(name).replace('density', 'weights')} {total}")
        cheapest = limits.fewest_flops(total)
        if self.max_flops is not None and self.max_flops < cheapest:
            said.append(f"max-flops {cheapest}")
        return " and ".join(said)


def _at_most(density: float, whole: int) -> int:
    return math.floor(density * whole * (1 + HAIR))


def _at_least(density: float, whole: int) -> int:
    return math.ceil(density * whole * (1 - HAIR))


def _as_it_is(weights: float, whole: int) -> int:
    return int(weights)


_READS: Mapping[str, Callable[[float, int], int]] = {
    "density": count,
    "weights": _as_it_is,
    "max_density": _at_most,
    "max_weights": _as_it_is,
    "min_density": _at_least,
}


def _excludes(name: str, bound: int, total: int) -> bool:
    """Whether a word of the budget, read as so many weights, rules a total out."""
    if name.startswith("max"):
        return bound < total
    return bound > total if name.startswith("min") else bound != total


def key_of(name: str, given: Iterable[str]) -> str | None:
    """Of names and patterns the one that counts for a layer: its name, else the longest pattern that matches it, in
    whatever order they are given; of equal lengths the first in the alphabet.

    Example:
        >>> key_of("fc1", ["fc[12]", "fc1"]), key_of("fc2", ["*2", "fc[12]", "fc1"]), key_of("fc3", ["fc1"])
        ('fc1', 'fc[12]', None)
    """
    matching = [pattern for pattern in given if pattern == name or fnmatchcase(name, pattern)]
    return min(matching, key=lambda pattern: (pattern != name, -len(pattern), pattern), default=None)


def _spelled(name: str) -> str:
    return name.replace("_", "-")


def _spell(kept: int, whole: int, reads: Callable[[float, int], int]) -> str:
    """The shortest density that is read as this number of weights."""
    for digits in range(1, 18):
        for rounding in (ROUND_HALF_EVEN, ROUND_CEILING, ROUND_FLOOR):
            value = float(Context(prec=digits, rounding=rounding).divide(Decimal(kept), Decimal(whole)))
            if value <= 1 and reads(value, whole) == kept:
                return f"{value:.{digits}g}"
    return repr(kept / whole)
