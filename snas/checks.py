"""Checks of what users set: one clear line says what was wrong and what to do."""

from __future__ import annotations

import numbers
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from snas.densities import check_density
from snas.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)  # no names of files on Windows


def split_list(what: str, text: str, *, example: str) -> list[str]:
    """The items of a list with commas between.

    Raises:
        InputError: if there is none, or one is empty.

    Example:
        >>> split_list("methods", "snip, erk", example="dense,snip")
        ['snip', 'erk']
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        wrong = "is empty" if len(items) == 1 else f"is {text!r}, whose item {items.index('') + 1} is empty"
        raise InputError(f"{what} {wrong}; expected items with commas between, as in {example}")
    return items


def listed(values: Any) -> str:
    """Methods or densities as the text that `split_list` takes apart; numbers keep all their digits.

    Example:
        >>> listed(["snip", "erk"]), listed([0.1, 0.05]), listed(0.1), listed("snip,erk")
        ('snip,erk', '0.1,0.05', '0.1', 'snip,erk')
    """
    if isinstance(values, str):
        return values
    items = values if isinstance(values, Iterable) else [values]
    return ",".join(repr(float(item)) if isinstance(item, numbers.Real) else str(item) for item in items)


def read_rules(what: str, text: str, auto: Sequence[str]) -> tuple[str, ...]:
    """The rules that a text names: one, several with commas between, or "auto".

    Raises:
        InputError: if one is named twice, or none.

    Example:
        >>> read_rules("mask", "snip, random", ()), read_rules("train", "auto", ("static", "set", "rigl"))
        (('snip', 'random'), ('static', 'set', 'rigl'))
    """
    if text == "auto":
        return tuple(auto)
    items = [item.strip() for item in text.split(",")]
    if not all(items) or len(set(items)) < len(items):
        raise InputError(f"{what} is {text!r}; expected different rules with commas between, or auto")
    return tuple(items)


def read_density(text: str, what: str = "density") -> float:
    """The density that `text` says; raises InputError, naming `what`, where it says none."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{what} is {text!r}; expected 0 < density <= 1") from None
    return check_density(value, what)


def require_different(what: str, items: Sequence[str]) -> None:
    """Raise InputError if an item is there twice."""
    twice = next((item for item in items if items.count(item) > 1), None)
    if twice is not None:
        raise InputError(f"{what} {twice!r} is given twice; give each once")


def flattened(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Nested tables as one, names joined by dots: TOML reads the unquoted name of a layer in a block as such tables.

    Example:
        >>> flattened({"stage1": {"0": {"conv1": 0.2}}, "stem": 1})
        {'stage1.0.conv1': 0.2, 'stem': 1}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": item for inner, item in flattened(value).items()}
        else:
            flat[str(name)] = value
    return flat


def plain_type(hint: Any) -> Any:
    """The type that a field's values have: str, int, float, bool, or dict for key=value pairs."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return plain_type(next(choice for choice in typing.get_args(hint) if choice is not types.NoneType))
    if origin is typing.Literal:
        return str
    return hint if origin is None else dict


def check_types(settings: Any) -> None:
    """Bring numbers of any kind (NumPy's too) to int and float, in place; raise InputError for other types."""
    hints = typing.get_type_hints(type(settings))
    for item in fields(settings):
        value, hint = getattr(settings, item.name), hints[item.name]
        if value is None and types.NoneType in typing.get_args(hint):
            continue
        kind = plain_type(hint)
        if kind is str and isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
            value = ",".join(value)
        fits: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real, dict: Mapping, str: (str, os.PathLike)}
        if not isinstance(value, fits.get(kind, kind)) or (isinstance(value, bool) and kind is not bool):
            shown = item.name.replace("_", "-")
            told = repr(value) if len(repr(value)) <= 60 else f"a {type(value).__name__}"
            raise InputError(f"{shown} is {told}; expected {'key=value pairs' if kind is dict else kind.__name__}")
        object.__setattr__(settings, item.name, kind(value))


def require_integer(what: str, value: Any, low: int, high: int) -> None:
    """Raise InputError unless `value` is an integer in [low, high]."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        small = not isinstance(value, int) or value < low
        bound = f"an integer of at least {low}" if high >= 10**6 and small else f"an integer from {low} to {high}"
        raise InputError(f"{what} is {value}; expected {bound}")


def require_choice(what: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{what} is {value!r}; choices: {', '.join(choices)}")


def require_name(name: str) -> None:
    """Raise InputError unless `name` can name a study: safe in files, tables and shells."""
    if not NAME.fullmatch(name):
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise InputError(
            f"name is {shown!r}; expected 1 to 100 letters, digits, '.', '_', '+' or '-', first a letter or digit"
        )
    if RESERVED.fullmatch(name):
        raise InputError(f"name is {name!r}, which Windows keeps for itself or cannot write; choose another name")
