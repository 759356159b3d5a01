"""snas list"""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snas.cli.options import Format
from snas.cli.tables import check_format, print_json, results_console
from snas.errors import InputError
from snas.plugins import Family

WHAT = ("spaces", "strategies", "methods", "datasets", "masks", "allocations", "evaluators", "studies")


_METHOD_SETTINGS = (
    "Any method takes settings in its name, as in snip:target=uniform or rigl:every=50: the options above, and score, "
    "allocation, iterations, examples (0: the whole training set), target (labels, uniform, raw, softmax), control "
    "(shuffle, redraw, invert), initialization, isometry (frobenius, spectral), rescale (yes, no)."
)


def list_plugins(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(WHAT)}.")],
    *,
    format: Format = "table",
) -> None:
    """List what can be named: spaces, strategies, methods, datasets, masks, allocations, evaluators or studies."""
    check_format(format)
    family = _family(what)
    settable = what in ("spaces", "strategies", "methods")
    items = [(name, _summary(family, name), _options(family.get(name)) if settable else {}) for name in family.names()]
    if what == "masks":
        from snas.pruning.methods import methods, static_names

        items += [(name, methods.get(name).help, {}) for name in static_names() if name not in family.names()]
    if what == "allocations":
        items.append(("global", "No allocation beforehand: the best scores of all layers together.", {}))
    if format == "json":
        print_json({what: [{"name": name, "help": text, "options": options} for name, text, options in items]})
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("what it is")
    if settable:
        table.add_column("options (key=value)")
    for name, text, options in items:
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        table.add_row(*map(Text, (name, text, shown)[: len(table.columns)]))
    results_console().print(table)
    if what == "methods":
        results_console().print(Text(_METHOD_SETTINGS), soft_wrap=True)


def _family(what: str) -> Family[Any]:
    if what == "spaces":
        from snas.search_spaces.base import spaces

        return spaces
    if what == "strategies":
        from snas.strategies.base import strategies

        return strategies
    if what == "methods":
        from snas.pruning.methods import methods

        return methods
    if what == "datasets":
        from snas.data.base import datasets

        return datasets
    if what == "masks":
        from snas.pruning.scores import scores

        return scores
    if what == "allocations":
        from snas.pruning.allocations import allocations

        return allocations
    if what == "evaluators":
        from snas.evaluators.base import evaluators

        return evaluators
    if what == "studies":
        from snas.studies.base import studies

        return studies
    raise InputError(f"cannot list {what!r}; choices: {', '.join(WHAT)}")


def _summary(family: Family[Any], name: str) -> str:
    member = family.get(name)
    return str(getattr(member, "help", "")) or family.summary(name)


def _options(member: Any) -> dict[str, Any]:
    """Keyword options of a plug-in with their defaults; of a method those of what moves its mask."""
    if movement := getattr(member, "movement", ""):
        from snas.pruning.dynamic.base import movements

        return {**_options(movements.get(movement)), **member.options}
    if not callable(member):
        return {}
    parameters = inspect.signature(member).parameters.values()
    return {
        item.name: item.default
        for item in parameters
        if item.kind is inspect.Parameter.KEYWORD_ONLY and item.default is not inspect.Parameter.empty
    }
