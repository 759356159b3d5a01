"""Turn the fields of a settings class into command-line flags: name, type, help and default are said once, there."""

from __future__ import annotations

import inspect
import json
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from snas.checks import plain_type
from snas.errors import InputError
from snas.settings import PANELS, STUDY_FACTORS

Config = Annotated[
    str | None, typer.Option("--config", help="TOML or JSON file with any setting of the panels; flags win.")
]
Format = Annotated[str, typer.Option("--format", help="table or json; json prints exactly one object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]


def flags_of(
    settings: type[Any], *, leave_out: Sequence[str] = (), shown: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Any]:
    """Return a decorator that gives a command a flag per field of `settings`.

    Args:
        settings: the class.
        leave_out: fields without a flag.
        shown: field -> how its default is told, where it is another one in this command.

    The command is called with `given`, the flags that were set on the command line, by field name, and with its own
    keyword arguments.
    """
    chosen = sorted(
        (item for item in fields(settings) if item.name not in leave_out),
        key=lambda item: PANELS.index(item.metadata["panel"]),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "given"
        ]
        hints = typing.get_type_hints(settings)

        def run(**values: Any) -> None:
            mine = {parameter.name: values.pop(parameter.name) for parameter in own}
            given = {
                item.name: _read(item, hints[item.name], values[item.name])
                for item in chosen
                if values[item.name] is not None and values[item.name] != []
            }
            command(given=given, **mine)

        parameters = [_parameter(item, hints[item.name], (shown or {}).get(item.name)) for item in chosen]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            sorted([*own, *parameters], key=lambda parameter: parameter.kind)
        )
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *parameters]}
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        return run

    return decorate


def with_config(given: Mapping[str, Any], config: str | None, settings: type[Any]) -> dict[str, Any]:
    """Join the flags with the settings of a TOML or JSON file; flags win, each factor of a study by itself.

    Files are handed from one to another, and what is in them is not to run: a space given as code has to be named on
    the command line, and so has a cluster, whose nodes run what they are sent and answer with what is run here.

    Raises:
        InputError: if the file cannot be read, is neither, has an unknown key, a space that is no text, or names code
            that the command line does not name.
    """
    if config is None:
        return dict(given)
    values = _read_config(config)
    known = {item.name for item in fields(settings)}
    read = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise InputError(f"config {config}: unknown setting {key!r}; choices: {', '.join(sorted(known))}")
        read[name] = value
    code = next((text for text in _spaces(read, config) if ":" in text), None)
    if code is not None and "space" not in _named(given):
        raise InputError(
            f"config {config} names code, space {code!r}, which runs only when the command line names it: "
            f"add --space {code}"
        )
    if "ray_address" in read and "ray_address" not in given:
        raise InputError(
            f"config {config} names a cluster, ray-address {read['ray_address']!r}, which is trusted only when the "
            f"command line names it: add --ray-address {read['ray_address']}"
        )
    return _joined(read, given)


def _joined(read: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Both, flags winning. A study's factor that a flag gives is not the file's, whichever way either says it."""
    factors, own = read.get("factor"), given.get("factor", {})
    told = {name.replace("-", "_") for name in (*own, *(name for name in given if name in STUDY_FACTORS))}
    kept = {name: value for name, value in read.items() if name not in STUDY_FACTORS or name not in told}
    if not isinstance(factors, Mapping):
        return {**kept, **given}
    others = {name: value for name, value in factors.items() if name.replace("-", "_") not in told}
    return {**kept, **given, "factor": {**others, **own}}


def _spaces(read: Mapping[str, Any], config: str) -> list[str]:
    """The spaces that a file's settings name, alone or in a flat list, also as a factor of a study.

    Raises:
        InputError: for anything else, which would become text, and might name code, only later.
    """
    factors = read.get("factor")
    told = [read.get("space"), factors.get("space") if isinstance(factors, Mapping) else None]
    listed = [one for value in told if value is not None for one in (value if isinstance(value, list) else [value])]
    if not all(isinstance(one, str) for one in listed):
        raise InputError(f"config {config}: space is not all text; expected a text, or a list of texts")
    return listed


def _named(given: Mapping[str, Any]) -> set[str]:
    """Settings that flags name, with a study's factors."""
    return {*given, *given.get("factor", ())}


def _read_config(config: str) -> dict[str, Any]:
    """What a .json file, or a TOML file of any other name, holds."""
    kind = "JSON" if config.endswith(".json") else "TOML"
    try:
        text = Path(config).read_text(encoding="utf-8")
        values = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise InputError(f"cannot read config {config}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # a name with a NUL, bytes that are no text, text that is no TOML
        raise InputError(f"config {config} is not valid {kind}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"config {config} holds a {type(values).__name__}; expected settings by name")
    return values


def _parameter(item: Field[Any], hint: Any, told: str | None) -> inspect.Parameter:
    """The flag of one field, its default as told. None means that it was not given."""
    kind = plain_type(hint)
    flag = "--" + item.name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    default = None if item.default is MISSING else item.default
    shown = told or item.metadata["shown"] or ("yes" if default is True else default)
    option = typer.Option(
        *names,
        help=f"{item.metadata['help']}{_choices(hint)} Default: {shown}.",
        show_default=False,
        rich_help_panel=item.metadata["panel"],
    )
    annotation: Any = Annotated[list[str] | None if kind is dict else kind | None, option]
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _choices(hint: Any) -> str:
    """The choices of a literal type, for a flag's help."""
    options = [hint, *typing.get_args(hint)]
    literal = next((option for option in options if typing.get_origin(option) is typing.Literal), None)
    return f" One of {', '.join(typing.get_args(literal))}." if literal else ""


def _read(item: Field[Any], hint: Any, value: Any) -> Any:
    """Read repeated key=value texts; other values are as typer read them."""
    if plain_type(hint) is not dict:
        return value
    pairs = {}
    for text in value:
        key, equals, rest = text.partition("=")
        if not equals or not key:
            raise InputError(f"--{item.name.replace('_', '-')} is {text!r}; expected key=value")
        if key in pairs:
            raise InputError(f"--{item.name.replace('_', '-')} gives {key!r} twice; give it once")
        pairs[key] = rest
    return pairs
