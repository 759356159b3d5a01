"""Search spaces made of a user's own code, named by its place.

    module:factory             a module that Python can import, from the current folder too
    path/to/file.py:factory    a file

`factory` may be a function or class that returns a `torch.nn.Module`, a function that returns a `SearchSpace`, a
`SearchSpace`, or a module that is built already (copied for each candidate). A function or class receives what it has
parameters for: `input_shape`, `classes` (or `num_classes`) and `in_channels` of the data, and the arguments of the
user's.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import inspect
import operator
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from snas.errors import InputError, one_line
from snas.plugins import bind_arguments
from snas.search_spaces.base import SearchSpace


def open_custom(name: str, *, input_shape: tuple[int, ...], classes: int, arguments: Mapping[str, Any]) -> SearchSpace:
    """Return the space that `name` leads to. It is filed as "module:factory", or "file:factory" without folders.

    Args:
        name: "module:factory" or "path/to/file.py:factory"; the factory may be an attribute of another ("Nets.small").
        input_shape: shape of one example of the data.
        classes: number of classes of the data.
        arguments: of the factory; text is converted to the parameters' types, by annotation or default.

    Raises:
        InputError: for code that is not found, raises, or gives no network; for an unknown argument.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise InputError(f"space {name!r} is incomplete; expected module:factory or path/to/file.py:factory")
    if place.endswith(".py") or "/" in place or os.sep in place:
        path = Path(place).expanduser().resolve()
        module, folder, label = _load_file(path, name), str(path.parent), f"{path.stem}:{attribute}"
    else:
        folder, label = os.getcwd(), name
        module = _load_module(place, folder, name)
    try:
        target = operator.attrgetter(attribute)(module)
    except AttributeError:
        usable = {key for key, value in vars(module).items() if callable(value) or isinstance(value, SearchSpace)}
        public = ", ".join(key for key in vars(module) if key in usable and not key.startswith("_"))
        raise InputError(f"space {name!r}: {place} has no {attribute!r}; it has: {public or 'nothing'}") from None
    return _make_space(target, name, label, folder, input_shape, classes, arguments)


def _make_space(
    target: Any,
    name: str,
    label: str,
    folder: str,
    input_shape: tuple[int, ...],
    classes: int,
    arguments: Mapping[str, Any],
) -> SearchSpace:
    made: Any
    if isinstance(target, SearchSpace | nn.Module):
        bound = bind_arguments(lambda: None, arguments, what=f"space {name!r}")
        made = target if isinstance(target, SearchSpace) else lambda: copy.deepcopy(target)
    elif callable(target):
        signature = _keyword_only(target)
        bound = bind_arguments(signature, arguments, what=f"space {name!r}")
        data = {"input_shape": input_shape, "classes": classes, "num_classes": classes, "in_channels": input_shape[0]}
        known = inspect.signature(signature).parameters
        given = {key: value for key, value in data.items() if key in known} | bound

        def made() -> Any:
            with _importable(folder):
                return target(**given)

        if not (inspect.isclass(target) and issubclass(target, nn.Module)):
            made = _probe(made, name)
    else:
        raise InputError(
            f"space {name!r} is a {type(target).__name__}; expected a function or class that returns a torch.nn.Module "
            "or a SearchSpace"
        )
    if isinstance(made, SearchSpace):
        return replace(made, name=label, arguments={**made.arguments, **bound})
    space = SearchSpace.from_model(made, input_shape=input_shape, name=name, arguments=bound)
    return replace(space, name=label)


def _probe(factory: Callable[[], Any], name: str) -> Any:
    """Call the factory once to see what it makes: return the space, or the factory itself where it makes a network."""
    with _guarded(name, "its factory raised"):
        made = factory()
    if isinstance(made, SearchSpace):
        return made
    if isinstance(made, nn.Module):
        return factory
    raise InputError(
        f"space {name!r}: its factory returned {type(made).__name__}; expected a torch.nn.Module or a SearchSpace"
    )


def _keyword_only(target: Callable[..., Any]) -> Callable[..., None]:
    """A stand-in for `target` whose parameters can all be bound by name, with a type by annotation or default."""
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # an annotation that only type checkers can see
        hints = {}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    def stand_in(**_: Any) -> None: ...

    stand_in.__annotations__ = {
        p.name: hints.get(p.name, type(p.default) if isinstance(p.default, bool | int | float) else Any) for p in named
    }
    keyword_only = [p.replace(kind=p.KEYWORD_ONLY) for p in named]
    stand_in.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    return stand_in


def _load_module(module: str, folder: str, name: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        with _importable(folder), _guarded(name, f"importing {module} raised"):
            return importlib.import_module(module)
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{module}.".startswith(f"{cause.name}."):
            raise InputError(
                f"space {name!r}: there is no module {cause.name!r}, neither installed nor in {folder}; "
                "for a file write path/to/file.py:factory"
            ) from None
        raise


def _load_file(path: Path, name: str) -> ModuleType:
    """Run the file as a module under a name of its own, with its folder importable as if it were run by itself."""
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"space {name!r}: there is no Python file {path}; expected path/to/file.py:factory")
    unique = f"snas_custom_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise InputError(f"space {name!r}: {path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # where dataclasses and type hints look for it
    try:
        with _importable(str(path.parent)), _guarded(name, f"loading {path.name} raised"):
            spec.loader.exec_module(module)
    except InputError:
        del sys.modules[unique]
        raise
    return module


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Let `folder` be searched for modules first, for as long as the context lasts."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(folder)


@contextmanager
def _guarded(name: str, what: str) -> Iterator[None]:
    """Run the user's code on random numbers of its own, and turn whatever it raises into one line."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            yield
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"space {name!r}: {what} {type(error).__name__}: {one_line(error)}") from error
