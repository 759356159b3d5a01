"""Shapes that a search may choose from: values for the arguments of a space, as a user writes them.

Searched over its blocks and its widening at a fixed number of weights, a residual network becomes the "architecture
sculpting" of [Lee2020b] section 4.5.3 and table 4.6: networks larger than the base, pruned to the base's size.

[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

import inspect
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from snas.errors import InputError
from snas.search_spaces.base import spaces

RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_VALUES = 64
WORDS = {"true": True, "false": False, "none": None}


def read_shapes(given: Mapping[str, Any], *, fixed: Iterable[str] = ()) -> dict[str, tuple[Any, ...]]:
    """The values of each searched argument: "1,2,4", "1..6", or a sequence; numbers in ascending order.

    Args:
        given: argument -> values.
        fixed: arguments that are set already, and so cannot be searched.

    Raises:
        InputError: for values that are none, too many, or there twice; for an argument that is there twice, or fixed.

    Example:
        >>> read_shapes({"hidden-layers": "1..3", "width": "128,64"})
        {'hidden_layers': (1, 2, 3), 'width': (64, 128)}
    """
    names = [name.replace("-", "_") for name in given]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"shape {name} is given twice; give each argument once")
        if name in {other.replace("-", "_") for other in fixed}:
            raise InputError(f"argument {name!r} is fixed with --space-arg and searched with --shape; leave one out")
    values = {name: _values(name, value) for name, value in zip(names, given.values(), strict=True)}
    return dict(sorted(values.items()))  # the order of flags is not to change what a coordinate means


def usual_shape(space: str, shapes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Of each searched argument the value nearest to the space's own; the middle one where it has none to compare.

    Args:
        space: name, or the place of a user's code, whose own values are not known.
        shapes: argument -> values, numbers in ascending order.

    Example:
        >>> usual_shape("resnet20", {"blocks": (1, 2, 4, 5), "widening": (1, 2), "stem": (8, 16, 32)})
        {'blocks': 2, 'widening': 1, 'stem': 16}
    """
    factory = None if ":" in space else spaces.get(space)
    known = inspect.signature(factory).parameters if factory else {}
    return {name: _nearest(known[name].default if name in known else None, values) for name, values in shapes.items()}


def _nearest(own: Any, values: Sequence[Any]) -> Any:
    if own in values:
        return own
    if _is_number(own) and all(map(_is_number, values)):
        return min(values, key=lambda value: abs(value - own))
    return values[len(values) // 2]


def _values(name: str, given: Any) -> tuple[Any, ...]:
    wrong = InputError(
        f"shape {name} is {given!r}; expected up to {MOST_VALUES} different values, such as 1,2,4 or 1..6"
    )
    if isinstance(given, str):
        span = RANGE.fullmatch(given.strip())
        if span is None:
            items = [_read(text.strip()) for text in given.split(",")]
        else:
            first, last = int(span[1]), int(span[2])
            items = list(range(first, min(last, first + MOST_VALUES) + 1))
    else:
        items = [_plain(item) for item in given] if isinstance(given, Iterable) else [_plain(given)]
    if not items or "" in items or len(items) > MOST_VALUES:
        raise wrong
    if not all(item is None or isinstance(item, (str, int, float)) for item in items) or len(set(items)) < len(items):
        raise wrong
    return tuple(sorted(items) if all(map(_is_number, items)) else items)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A number of any kind (NumPy's too) as int or float, so that it can be filed; other values as they are."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _read(text: str) -> Any:
    """A number or a word for a truth where the text is one."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
