"""Several processes that train one sweep (see `snas.crew`).

Each worker opens the data, the space and the registry itself and walks through the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from os import cpu_count
from typing import Any

from snas.bench import open_bench
from snas.crew import Relay, require_locks, telling, work_together
from snas.errors import InputError
from snas.listener import Listener
from snas.registry import Registry
from snas.settings import SweepSettings, registry_path
from snas.sweeps.plan import Place
from snas.sweeps.run import train_places


def with_threads(settings: SweepSettings) -> SweepSettings:
    """The settings with a number of threads for each job, where several jobs share the machine.

    Example:
        >>> with_threads(SweepSettings(methods="dense", jobs=10_000 // 100)).threads
        1
    """
    if settings.jobs == 1 or settings.threads is not None:
        return settings
    return replace(settings, threads=max(1, (cpu_count() or 1) // settings.jobs))


def require_names(space: Any, dataset: Any) -> None:
    """Raise InputError unless other processes can open the space and the data by their names, and share locks."""
    for what, value in (("space", space), ("dataset", dataset)):
        if not isinstance(value, str):
            raise InputError(
                f"{what} is {type(value).__name__}, which other processes cannot open; name it, or leave out jobs"
            )
    require_locks("jobs")


def train_in_workers(settings: SweepSettings, places: Sequence[Place], *, listener: Listener) -> None:
    """Train the places in `settings.jobs` processes until all are done.

    Args:
        settings: with space and data by name.
        places: what to train.
        listener: hears of what all workers do.

    Raises:
        InputError: what a worker met that is the user's mistake.
        SnasError: what a worker met, or that one of them died. The others are ended then; what was recorded is kept.
    """
    arguments = (settings, tuple(places))
    work_together(settings.jobs, _work, arguments, listener=listener, name="snas-sweep", flag="--jobs")


def _work(settings: SweepSettings, places: Sequence[Place], writer: Connection) -> None:
    """What a worker does from its start to its end."""
    with telling(writer):
        bench = open_bench(settings)
        with Registry(registry_path(settings.registry)) as registry:
            registry.use_environment(bench.environment)
            train_places(registry, bench, places, seeds=settings.seeds, listener=Relay(writer), patient=True)
