"""Where a search begins: points that are tried before the strategy is asked, or between its own.

Known rules come first, because a search inside a budget that cannot beat them has found nothing; densities of an
earlier search come before them. The first few are tried at once; further ones take turns with the strategy's proposals,
so that at most half of a longer search goes into them, however many there are and however far it grows later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snas.baselines import is_row, read_file, read_row, read_values, rule_of
from snas.budget import Budget, Limits
from snas.carry_over import carry_over
from snas.densities import Densities
from snas.encoding import Candidate, Encoding
from snas.errors import InputError
from snas.pruning.allocations import allocations
from snas.pruning.methods import JOINED, join_rules
from snas.ranking import layers_of
from snas.registry import Registry
from snas.search_spaces.base import SearchSpace
from snas.trials import Point

Start = tuple[str, Point]
Shape = Mapping[str, Any]
RULES = ("erk", "smart", "uniform")  # the better first: at low densities uniform ones are far behind
AT_ONCE = 3  # starts before the strategy is asked for the first time
SIZES = 5  # totals at which the rules are tried where the budget leaves the total open


@dataclass(frozen=True)
class Source:
    """Densities that a search starts from.

    Attributes:
        name: what they are called in the study's records: "row 3", or the file's name.
        densities: of the layers that they are known for; None where a file names layers and not their shapes.
        values: what such a file holds.
        rule: of mask and training that they were found with, where that is known.
        arguments: of the space that they were found in.
    """

    name: str
    densities: Densities | None = None
    values: Any = None
    rule: str = ""
    arguments: Shape = field(default_factory=dict)

    def known(self, space: SearchSpace) -> Densities:
        """The densities: of their own layers where those are known, else of this space's.

        Raises:
            InputError: where a file does not have one density for each layer of the space.
        """
        return read_values(self.values, space, self.name) if self.densities is None else self.densities


def open_source(text: str | None, registry: str) -> Source | None:
    """Read the densities of the row or file that a warm start names; None where it names neither. Nothing is written.

    Args:
        text: as for `open_starts`.
        registry: path of the file where rows are.

    Raises:
        InputError: for an unknown row, one without densities, or a file that cannot be read.
    """
    if text in (None, "none", "rules"):
        return None
    if is_row(str(text)):
        with Registry(registry, create=False) as opened:
            entry, densities = read_row(str(text), opened)
        return Source(f"row {text}", densities, rule=join_rules(*rule_of(entry)), arguments=entry.space["arguments"])
    path = Path(str(text))
    values = read_file(path, what="warm-start", choices="none, rules, methods, ")
    space = values.get("space") if isinstance(values, Mapping) else None
    if not isinstance(space, Mapping) or "layers" not in space:
        return Source(path.name, values=values)
    try:  # written by snas show, which tells the layers
        layers = layers_of(space)
        counts = {name: layer["kept"] for name, layer in values["layers"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not as snas show --format json writes it: {type(error).__name__} {error}"
        ) from None
    rule = str(values.get("mask_rule", ""))
    return Source(path.name, Densities.from_counts(layers, counts), rule=rule, arguments=space.get("arguments") or {})


def open_starts(text: str, encoding: Encoding, sources: Sequence[Source] = ()) -> list[Start]:
    """The points that a search tries first, the most promising first, each candidate once.

    Args:
        text: "none"; "rules" (the densities of ERK, uniform and smart ratios); or what `sources` were opened from:
            their densities are carried over to this network and budget, and go before the rules.
        encoding: of the search.
        sources: from `open_source`, or `snas.own_densities`; the first one's rule of mask and training is tried first.

    Raises:
        InputError: for rules without a budget, or a file whose layers are not those of the space.
    """
    if text == "none":
        return []
    first = sources[0] if sources else None
    shapes, variants = _shapes(encoding, first), _variants(encoding, first)
    bounded = encoding.space_of(shapes[0]).scale is not None
    if first is None and not bounded:
        raise InputError("warm-start rules needs a budget, such as --density 0.05")
    rules = [_carried(source.name, source.known(encoding.space_of(shapes[0]))) for source in sources]
    rules += [_ruled(name) for name in RULES] if bounded else []
    found: dict[str, Start] = {}
    for rule, size, variant, shape in _order(len(rules), len(variants), len(shapes)):
        space = encoding.space_of(shapes[shape])
        totals = rules[rule].totals(space)
        densities = rules[rule].densities(space, totals[size]) if size < len(totals) else None
        if densities is None:
            continue
        mask, train = variants[variant]
        point = encoding.canonical(encoding.encode(densities, mask=mask, train=train, shape=shapes[shape]))
        candidate = encoding.decode(point)
        words = [rules[rule].name]
        words += [mask] if len(encoding.masks) > 1 else []
        words += [train] if len(encoding.trains) > 1 else []
        words += [str(candidate.densities.kept_weights)] if len(totals) > 1 else []
        words += [f"{name}={candidate.space.arguments.get(name)}" for name in encoding.shapes]
        found.setdefault(_identity(candidate), (" ".join(words), point))
    return list(found.values())


def turn_of(number: int) -> int | None:
    """Which start candidate `number` is; None where the strategy is asked.

    It does not depend on how many candidates a search is to try, so that one that grows goes on as if it had been
    longer from the beginning.

    Example:
        >>> [turn_of(number) for number in range(11)]
        [0, 1, 2, None, None, None, None, 3, None, 4, None]
    """
    if number < AT_ONCE:
        return number
    later, between = divmod(number - (2 * AT_ONCE + 1), 2)
    return AT_ONCE + later if later >= 0 and not between else None


@dataclass(frozen=True)
class _Rule:
    """Something that says how a total is shared: its name, the totals to try it at, and the counts, or None."""

    name: str
    totals: Callable[[SearchSpace], Sequence[int | None]]
    densities: Callable[[SearchSpace, int | None], Densities | None]


def _ruled(name: str) -> _Rule:
    """The allocation of this name, brought within the budget."""

    def densities(space: SearchSpace, total: int | None) -> Densities | None:
        limits = _limits(space)
        aim = limits.most if total is None else total
        try:
            wish = allocations.get(name)(space.layers, aim, pinned=space.pinned).kept
        except InputError:  # smart ratios fix the classifier, which alone may be more than the total
            return None
        return limits.project(wish, aim)

    return _Rule(name, _sizes, densities)


def _carried(name: str, known: Densities) -> _Rule:
    """Densities carried over: with the fraction that they keep, then at the totals of the other rules."""

    def totals(space: SearchSpace) -> Sequence[int | None]:
        scale = space.scale
        return [None, *_sizes(space)] if scale is not None and scale.open_total else [None]

    return _Rule(name, totals, lambda space, total: carry_over(known, _limits(space), total=total))


def _identity(candidate: Candidate) -> str:
    """Equal for equal candidates."""
    return json.dumps([dict(candidate.space.arguments), candidate.densities.kept, candidate.rule], default=str)


def _limits(space: SearchSpace) -> Limits:
    return space.limits or Budget().limits(space.layers, space.pinned)


def _sizes(space: SearchSpace) -> list[int | None]:
    """Totals to try: the only one; of a range the largest, the smallest, and evenly between in ratio."""
    scale = space.scale
    if scale is None or not scale.open_total:
        return [_limits(space).most]
    most = scale.limits.most
    ratio = scale.limits.smallest / most
    sizes = [round(most * ratio ** (k / (SIZES - 1))) for k in range(SIZES)]
    return [sizes[0], sizes[-1], *sizes[1:-1]]


def _order(rules: int, variants: int, shapes: int) -> list[tuple[int, int, int, int]]:
    """Which (rule, total, variant, shape) to try, the most promising first: the first of each, then what differs from
    that in few steps. Other variants and shapes are tried with the first rule at its first total."""
    tries = [(rule, size, 0, 0) for rule in range(rules) for size in range(SIZES + 1)]
    tries += [(0, 0, variant, 0) for variant in range(1, variants)]
    tries += [(0, 0, 0, shape) for shape in range(1, shapes)]
    return sorted(tries, key=lambda one: (sum(one), one))


def _variants(encoding: Encoding, source: Source | None) -> list[tuple[str, str]]:
    """Mask and training rules: the source's own or the first ones, then others of training, then others of masks."""
    own = ("", "") if source is None else (source.rule.partition(JOINED)[0], source.rule.partition(JOINED)[2])
    mask = own[0] if own[0] in encoding.masks else encoding.masks[0]
    train = (own[1] or "static") if source is not None else ""
    train = train if train in encoding.trains else encoding.trains[0]
    others = [(mask, other) for other in encoding.trains if other != train]
    return [(mask, train), *others, *((other, train) for other in encoding.masks if other != mask)]


def _shapes(encoding: Encoding, source: Source | None) -> list[Shape]:
    """Shapes to try: the source's own, else the usual one; then the smallest and the largest."""
    if not encoding.shapes:
        return [{}]
    known = {} if source is None else source.arguments
    own = {name: known[name] for name, values in encoding.shapes.items() if known.get(name) in values}
    return [own, *({name: values[place] for name, values in encoding.shapes.items()} for place in (0, -1))]
