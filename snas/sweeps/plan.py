"""What a sweep is to train: every method at every density, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snas.baselines import target_of
from snas.checks import require_different
from snas.densities import Densities
from snas.errors import InputError
from snas.pruning.allocations import allocations, kept_from_density
from snas.pruning.methods import Method, open_method
from snas.search_spaces.base import SearchSpace
from snas.settings import SweepSettings


@dataclass(frozen=True)
class Place:
    """One network of the sweep, to be trained on every seed.

    Attributes:
        method: as results are filed.
        density: column that it stands in; None for a dense method, which is trained once and stands in all.
        target: densities, or number of weights to keep; None where the method cannot arrive there.
        reason: why it cannot.
    """

    method: str
    density: float | None
    target: Densities | int | None
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """A table's rows and columns.

    Attributes:
        methods: names, in the order in which they were given.
        densities: of the columns; that of the given densities where each layer has its own.
        given: whether each layer has its own.
        reference: method that the others are compared with; None: the best of each density.
        places: in the order in which they are trained: dense first, then density by density.
    """

    methods: tuple[str, ...]
    densities: tuple[float, ...]
    given: bool
    reference: str | None
    places: tuple[Place, ...]


def open_methods(settings: SweepSettings, *, given: bool) -> list[Method]:
    """The methods of a sweep.

    Args:
        settings: that name them.
        given: whether densities of each layer are given.

    Raises:
        InputError: for an unknown method, one that is there twice, a reference that is not among them, and densities
            that are missing.
    """
    methods = [open_method(text) for text in settings.method_texts()]
    names = [method.name for method in methods]
    require_different("method", names)
    if settings.reference is not None and open_method(settings.reference).name not in names:
        raise InputError(f"reference is {settings.reference!r}; choose one of the methods: {', '.join(names)}")
    sparse = [method.name for method in methods if method.allocation != "dense"]
    if sparse and settings.densities is None and not given:
        raise InputError(f"method {sparse[0]!r} needs densities; give --densities F,F... with 0 < F <= 1")
    return methods


def make_plan(settings: SweepSettings, methods: Sequence[Method], space: SearchSpace, given: Densities | None) -> Plan:
    """Lay out the table.

    Args:
        settings: with densities, unless they are given or all methods are dense.
        methods: from `open_methods`.
        space: of the networks.
        given: densities of each layer, in place of those of the settings.

    Raises:
        InputError: for a density below one weight for each layer, two that keep as many weights, and given densities
            that contradict the space. A density that only some methods cannot reach is these places' reason.
    """
    densities: list[float] = [given.density] if given else settings.density_values()
    if given is None:
        _require_possible(densities, space)
    dense = [method for method in methods if method.allocation == "dense"]
    sparse = [method for method in methods if method.allocation != "dense"]
    places = [Place(method.name, None, target_of(method, None, space, None)) for method in dense]
    for density in densities:
        places += [_place(method, density, space, given) for method in sparse]
    return Plan(
        methods=tuple(method.name for method in methods),
        densities=tuple(densities) or (1.0,),
        given=given is not None,
        reference=None if settings.reference is None else open_method(settings.reference).name,
        places=tuple(places),
    )


def _require_possible(densities: Sequence[float], space: SearchSpace) -> None:
    """Raise InputError for a density that no method can reach, and for two that are one."""
    counts: dict[int, float] = {}
    for density in densities:
        kept = kept_from_density(density, space.total_weights)
        try:
            allocations.get("uniform")(space.layers, kept, pinned=space.pinned)
        except InputError as error:
            raise InputError(f"density {density:g}: {error}") from None
        if kept in counts:
            raise InputError(f"densities {counts[kept]} and {density} both keep {kept} weights; give one of them")
        counts[kept] = density


def _place(method: Method, density: float, space: SearchSpace, given: Densities | None) -> Place:
    if given is not None:
        return Place(method.name, density, target_of(method, None, space, given))
    try:
        return Place(method.name, density, target_of(method, density, space, None))
    except InputError as error:
        return Place(method.name, density, None, str(error))
