"""What the commands have in common: settings made of their arguments, and the bench that these stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from snas.errors import InputError
from snas.listener import Listener
from snas.records import require_whole
from snas.registry import Entry
from snas.settings import Settings

if TYPE_CHECKING:
    from snas.bench import Bench

P = ParamSpec("P")
T = TypeVar("T")


def own_threads(command: Callable[P, T]) -> Callable[P, T]:
    """The command, after which PyTorch has as many threads as before it."""

    @wraps(command)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        import torch

        from snas.training.devices import intraop_threads

        with intraop_threads(torch.get_num_threads()):
            return command(*arguments, **named)

    return run


def make_settings(kind: type[Any], given: Mapping[str, Any], **named: Any) -> Any:
    """The settings of a command.

    Args:
        kind: their class.
        given: fields by name, as the user wrote them.
        named: the command's own arguments; a space, data set or strategy may be an object, and is then left out.

    Raises:
        InputError: for an unknown field, a value out of range, or an object that is none of these.
    """
    known = kind.__dataclass_fields__
    for name in given:
        if name not in known:
            raise InputError(f"unknown setting {name!r}; choices: {', '.join(known)}")
    objects = {"space": _is_space, "dataset": _is_dataset, "strategy": _is_strategy}
    plain = {}
    for name, value in named.items():
        if isinstance(value, str) or name not in objects:
            plain[name] = value
        elif advice := objects[name](value):
            raise InputError(f"{name} is {type(value).__name__}; {advice}")
    return kind(**plain, **given)


def settings_of(entry: Entry, registry: str, *, epochs: int | None, **values: Any) -> Settings:
    """The settings that a recorded entry was made with."""
    rule = dict(require_whole(entry).rule)
    fields = Settings.__dataclass_fields__
    known = {name: rule[name] for name in fields if name in rule}
    return Settings(
        **{**known, "epochs": rule["epochs"] if epochs is None else epochs},
        space=entry.space["name"],
        space_arg=entry.space["arguments"],
        dataset=entry.dataset["name"],
        init=rule["initialization"],
        seed=entry.seed,
        registry=registry,
        **values,
    )


def bench_of(
    settings: Settings, space: Any, dataset: Any, listener: Listener, *, representation: str | None = None
) -> Bench:
    """The bench that the settings stand for; a space and data that are no names come in their place."""
    from snas.bench import open_bench

    return open_bench(
        settings,
        space=None if isinstance(space, str) else space,
        dataset=None if isinstance(dataset, str) else dataset,
        representation=representation,
        progress=listener.on_message,
    )


def require_known(entry: Entry, *, space: Any, dataset: Any) -> None:
    """Raise InputError if the entry's space or data are the user's own, and are not given now."""
    from snas.data.base import datasets
    from snas.search_spaces.base import spaces

    if space is None and entry.space["name"] not in spaces.names():
        raise InputError(
            f"row {entry.id} is of the custom space {entry.space['name']!r}, whose code the registry does not have; "
            "name it with --space file.py:factory (in Python: space=)"
        )
    if dataset is None and entry.dataset["name"] not in datasets.names():
        raise InputError(
            f"row {entry.id} is of data of your own, {entry.dataset['name']!r}; "
            "name the file with --dataset (in Python: dataset=)"
        )


def _is_space(value: Any) -> str:
    from snas.search_spaces.base import SearchSpace

    return "" if isinstance(value, SearchSpace) else "expected a name, or what SearchSpace.from_model returns"


def _is_dataset(value: Any) -> str:
    from snas.data.base import Dataset

    return "" if isinstance(value, Dataset) else "expected a name, or what snas.from_arrays(x, y) returns"


def _is_strategy(value: Any) -> str:
    return "" if callable(getattr(value, "ask", None)) else "expected a name, or an object with ask()"
