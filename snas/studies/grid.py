"""A study's grid as the user wants it: factors with other values than the scale's."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from snas.checks import require_different, require_integer
from snas.errors import InputError
from snas.studies.base import Grid

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def adjusted(grid: Grid, given: Mapping[str, Any], *, study: str) -> dict[str, tuple[Any, ...]]:
    """The grid with other values of some factors.

    Args:
        grid: of the scale.
        given: factor -> values: a value, several in a sequence, or text with commas between. "seeds" is how many seeds
            there are: 0, 1 ... Text is converted to the type of the factor's values in `grid`.
        study: named in errors.

    Raises:
        InputError: for an unknown factor, no value, a value twice, or one of another type.

    Example:
        >>> adjusted({"width": (8, 16), "seed": (0,)}, {"width": "4,8", "seeds": 2}, study="mine")
        {'width': (4, 8), 'seed': (0, 1)}
    """
    found = {name: tuple(values) for name, values in grid.items()}
    for name, values in given.items():
        key = name.replace("-", "_")
        if key == "seeds" and "seed" in found:
            if "seed" in given:
                raise InputError("seed and seeds contradict each other; give one of them")
            require_integer("seeds", values, 1, 1000)
            found["seed"] = tuple(range(values))
            continue
        if key not in found:
            raise InputError(f"study {study!r} has no factor {name!r}; factors: {', '.join(found)}")
        listed = _listed(values)
        if not listed:
            raise InputError(
                f"factor {name!r} has no value; give some with commas between, as in {_example(found, key)}"
            )
        kept = tuple(_convert(value, found[key], name) for value in listed)
        require_different(f"value of factor {name!r}:", [str(value) for value in kept])
        found[key] = kept
    return found


def _listed(values: Any) -> list[Any]:
    if isinstance(values, str):
        return [part.strip() for part in values.split(",") if part.strip()]
    return list(values) if isinstance(values, (list, tuple, range)) else [values]


def _example(grid: Grid, name: str) -> str:
    return f"{name}={','.join(str(value) for value in grid[name][:2])}"


def _convert(value: Any, like: tuple[Any, ...], name: str) -> Any:
    """The value in the type of the others. What is no plain value is refused: as text it might name something else."""
    plain = value is None or isinstance(value, (str, Real))
    if not plain:
        raise InputError(f"factor {name!r} has a {type(value).__name__} as a value; expected text or a number")
    kinds = {type(other) for other in like if other is not None} or {str}
    kind = float if kinds == {int, float} else next(iter(kinds))
    if value is None or (isinstance(value, str) and value.lower() == "none" and kind is not str):
        if None in like:
            return None
        raise InputError(f"factor {name!r} is {value!r}; expected a value of type {kind.__name__}")
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _TRUTH[str(value).lower()]
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and value != int(value)):
            raise ValueError
        return kind(value)
    except (KeyError, ValueError, TypeError, OverflowError):
        raise InputError(f"factor {name!r} is {value!r}; expected a value of type {kind.__name__}") from None
