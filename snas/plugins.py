"""Named families of plug-ins: strategies, search spaces, scores, evaluators, datasets.

A plug-in registers with a decorator. Other packages add theirs through entry points of the family's group, for example

    [project.entry-points."snas.strategies"]
    mine = "my_package.my_module"

whose module registers itself when imported.
"""

from __future__ import annotations

import difflib
import inspect
import numbers
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from snas.errors import InputError

T = TypeVar("T")
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_PARTS = re.compile(r"(\D*)(\d*)")


class Family(Generic[T]):
    """The plug-ins of one kind, by name.

    Example:
        >>> greetings: Family[str] = Family("greeting")
        >>> _ = greetings.register("hello")("Hello!")
        >>> greetings.get("hello")
        'Hello!'
        >>> greetings.get("helo")
        Traceback (most recent call last):
        ...
        snas.errors.InputError: unknown greeting 'helo'; did you mean 'hello'? choices: hello
    """

    def __init__(self, kind: str, *, group: str = "", modules: tuple[str, ...] = ()) -> None:
        """Make a family called `kind`, whose built-in members live in `modules`, imported at the first look-up."""
        self.kind = kind
        self._group = group
        self._modules = modules
        self._members: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds its argument as `name`. A name can be taken once."""

        def add(member: T) -> T:
            if name in self._members:
                raise InputError(f"{self.kind} {name!r} is registered already; choose another name")
            self._members[name] = member
            return member

        return add

    def names(self) -> list[str]:
        """All names, sorted, numbers in them by size."""
        self._load()
        return sorted(
            self._members, key=lambda name: [(text, int(number or 0)) for text, number in _PARTS.findall(name)]
        )

    def get(self, name: str) -> T:
        """The member called `name`; raises InputError listing the choices where there is none."""
        self._load()
        if name not in self._members:
            near = difflib.get_close_matches(name, self._members, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise InputError(f"unknown {self.kind} {name!r};{hint} choices: {', '.join(self.names())}")
        return self._members[name]

    def summary(self, name: str) -> str:
        """First line of the member's docstring."""
        return (inspect.getdoc(self.get(name)) or "").partition("\n")[0]

    def _load(self) -> None:
        if self._loaded:
            return
        for module in self._modules:
            import_module(module)
        if self._group:
            for entry in _installed().select(group=self._group):
                entry.load()
        self._loaded = True


@cache
def _installed() -> Any:
    """The entry points of all packages, to `select` from, read once: each reading opens a file of every package."""
    return entry_points()


def bind_arguments(function: Callable[..., Any], given: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """Convert `given` to the types of the function's keyword-only parameters.

    Args:
        function: its keyword-only parameters, with their annotations, say what can be given.
        given: name -> value; text (as a command line has it) is converted to int, float, bool, None or a literal.
        what: named in errors, for example "space 'mlp'".

    Returns:
        Converted arguments; those not given are left out.

    Raises:
        InputError: for an unknown name or a value that cannot be converted.
    """
    hints = typing.get_type_hints(function)
    parameters = {
        name: hints.get(name, str)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    bound = {}
    for name, value in given.items():
        key = name.replace("-", "_")
        if key not in parameters:
            raise InputError(f"{what} has no argument {name!r}; choices: {', '.join(parameters) or 'none'}")
        bound[key] = _convert(value, parameters[key], f"argument {name!r} of {what}")
    return bound


def _convert(value: Any, hint: Any, what: str) -> Any:
    """Convert text to the annotated type; other values are checked for choices and passed on."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = typing.get_args(hint)
        if types.NoneType in choices and (value is None or (isinstance(value, str) and value.lower() == "none")):
            return None
        hint = next(choice for choice in choices if choice is not types.NoneType)
    if typing.get_origin(hint) is typing.Literal:
        allowed = typing.get_args(hint)
        chosen = next((choice for choice in allowed if str(choice) == str(value)), None)
        if chosen is None:
            raise InputError(f"{what} is {value!r}; choices: {', '.join(map(str, allowed))}")
        return chosen
    name = getattr(hint, "__name__", str(hint))
    if hint is Any:
        return value
    if not isinstance(value, str) or hint is str:
        fits = {float: numbers.Real, int: numbers.Integral}.get(hint, hint)
        truth = isinstance(value, bool) and hint is not bool
        if isinstance(fits, type) and (truth or not isinstance(value, fits)):
            raise InputError(f"{what} is {value!r}; expected a value of type {name}")
        return value
    try:
        if hint is bool:
            return _TRUTH[value.lower()]
        return hint(value)
    except (KeyError, ValueError, TypeError):
        raise InputError(f"{what} is {value!r}; expected a value of type {name}") from None
