"""What processes that train the candidates of one search share: the task by value, and the examples in one file.

Nothing pickled is ever read from a file: the task goes through the connection between parent and worker.
"""

from __future__ import annotations

import mmap
import pickle
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

import snas
from snas.data.split import Arrays, SearchData
from snas.errors import InputError, SnasError, one_line
from snas.evaluators.base import Failure
from snas.plugins import Family
from snas.pruning.allocations import allocations
from snas.pruning.dynamic.base import movements
from snas.pruning.scores import scores
from snas.training.task import Task
from snas.trials import Report

FAMILIES: dict[str, Family[Any]] = {"scores": scores, "allocations": allocations, "movements": movements}
PARTS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies in a file: the offset in bytes, its shape, and its type as NumPy writes it."""

    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told first.

    Attributes:
        task: without examples.
        places: "train.x" and so on -> where the examples lie in the shared file.
        folder: of the checkpoints.
        parked_bytes: that paused trainings may take in its memory.
        threads: of one operation.
        dtype: of floating-point tensors, where code names none.
        plugins: family and name of scores, allocations and movements that are not ours -> what is called so.
        level: of log messages that are wanted.
    """

    task: Task
    places: Mapping[str, Place]
    folder: Path
    parked_bytes: int
    threads: int
    dtype: torch.dtype
    plugins: Mapping[tuple[str, str], Any]
    level: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says when it has begun, and after each epoch.

    Attributes:
        report: of the epoch, or why the training has ended; None where there is nothing to report.
        error: that ends the search.
        logged: messages for the log, with their levels.
    """

    report: Report | Failure | None = None
    error: SnasError | None = None
    logged: tuple[tuple[int, str], ...] = ()


def versions() -> dict[str, str]:
    """What must be the same on all machines for a result not to depend on where it is trained."""
    return {"snas": snas.__version__, "torch": torch.__version__, "python": platform.python_version()}


def pack(what: Any, name: str) -> bytes:
    """Pickle what has a user's code in it, with the code of modules that another process could not import.

    Raises:
        InputError: if something in it cannot be pickled; `name` is the space's, whose code alone may be at fault.
    """
    import cloudpickle

    try:
        with _by_value(cloudpickle, foreign_modules()):
            return cast(bytes, cloudpickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL))
    except Exception as error:  # whatever the __reduce__ of somebody's object raises
        raise InputError(
            f"space {name!r} cannot be sent to other processes ({type(error).__name__}: {one_line(error)}); "
            "use --evaluator serial"
        ) from error


def foreign_modules() -> list[ModuleType]:
    """Loaded modules that another process with the same path would not find, or would find others in their place: files
    of the user's that were loaded from where they lie, and what these imported from their folder."""
    known: dict[str, bool] = {}
    found = []
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if known.get(top):
            continue
        source = (getattr(module, "__file__", None) or "").endswith(".py")
        if not source or name == "__main__" or module.__name__ != name:  # what is defined in __main__ goes by value
            continue
        if top not in known:
            known[top] = top in sys.stdlib_module_names or _findable(top)
        if not known[top]:
            found.append(module)
    return found


def own_plugins() -> dict[tuple[str, str], Any]:
    """Scores, allocations and movements that somebody registered in this process, by family and name."""
    return {
        (kind, name): member
        for kind, family in FAMILIES.items()
        for name in family.names()
        if not (getattr(member := family.get(name), "__module__", None) or "").startswith("snas.")
    }


def add_plugins(plugins: Mapping[tuple[str, str], Any]) -> None:
    """Register what this process lacks."""
    for (kind, name), member in plugins.items():
        if name not in FAMILIES[kind].names():
            FAMILIES[kind].register(name)(member)


def without_examples(task: Task) -> Task:
    """The task with empty arrays in place of its examples."""
    data = task.data
    return replace(task, data=replace(data, train=_empty(data.train), validation=_empty(data.validation)))


def with_examples(task: Task, arrays: Mapping[str, Tensor]) -> Task:
    """The task with these examples: "train.x" and so on -> the tensor."""
    train, validation = (Arrays(arrays[f"{part}.x"], arrays[f"{part}.y"]) for part in PARTS)
    return replace(task, data=replace(task.data, train=train, validation=validation))


def write_examples(data: SearchData) -> tuple[IO[bytes], dict[str, Place]]:
    """Write the examples into a temporary file without a name, which is gone when the last process closes it.

    Returns:
        The file, and where the arrays lie in it, each at the beginning of a page.

    Raises:
        SnasError: if there is no room for it.
    """
    arrays = {f"{part}.{key}": getattr(getattr(data, part), key).numpy() for part in PARTS for key in ("x", "y")}
    places: dict[str, Place] = {}
    file: IO[bytes] | None = None
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - workers read it as long as there are any
        for name, array in arrays.items():
            offset = -(-file.tell() // mmap.PAGESIZE) * mmap.PAGESIZE
            file.seek(offset)
            file.write(np.ascontiguousarray(array).data)
            places[name] = Place(offset, array.shape, array.dtype.str)
        file.flush()
    except OSError as error:
        if file is not None:
            with suppress(OSError):
                file.close()
        megabytes = sum(array.nbytes for array in arrays.values()) >> 20
        raise SnasError(
            f"cannot write {megabytes} MB of examples for other processes to {tempfile.gettempdir()}: {error}; make "
            "room, name another folder in the environment variable TMPDIR, or use --evaluator serial"
        ) from error
    return file, places


def map_examples(descriptor: int, places: Mapping[str, Place]) -> dict[str, Tensor]:
    """The arrays of a file; processes have its pages in common as long as they do not write to them."""
    whole = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    return {
        name: torch.from_numpy(
            np.frombuffer(
                whole, np.dtype(place.dtype), count=int(np.prod(place.shape, dtype=np.int64)), offset=place.offset
            ).reshape(place.shape)
        )
        for name, place in places.items()
    }


def _empty(arrays: Arrays) -> Arrays:
    return Arrays(*(tensor.new_empty((0, *tensor.shape[1:]), device="cpu") for tensor in (arrays.x, arrays.y)))


def _findable(name: str) -> bool:
    """Whether a process with the same path finds the top-level module that is loaded here under this name."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    for finder in sys.meta_path:
        with suppress(Exception):  # finders are anybody's
            spec = finder.find_spec(name, None)
            if spec is not None:
                return file is None or not spec.has_location or spec.origin == file
    return False


@contextmanager
def _by_value(cloudpickle: Any, modules: list[ModuleType]) -> Iterator[None]:
    """Pickle what these modules define by value as long as the context lasts."""
    mine = [module for module in modules if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in mine:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in mine:
            cloudpickle.unregister_pickle_by_value(module)
