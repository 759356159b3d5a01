"""Several processes that train one sweep. They share the work through the registry's locks, as two terminals do.

Each worker opens the data, the space and the registry itself and walks through the same places. Events come back
through a pipe for each worker, so that one that is killed in the middle of a word leaves the others' whole.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from os import cpu_count
from typing import Any

from snas.bench import open_bench
from snas.errors import InputError, SnasError
from snas.listener import Listener
from snas.registry import Entry, Registry
from snas.settings import SweepSettings, registry_path
from snas.sweeps.plan import Place
from snas.sweeps.run import train_places
from snas.trials import Report

LAST_WORDS = "error"


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
    if sys.platform == "win32":
        raise InputError("jobs needs file locks, which Windows does not have; leave it out")


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
    context = get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(settings.jobs):
            reader, writer = context.Pipe(duplex=False)
            arguments = (settings, tuple(places), writer)
            worker = context.Process(target=_work, args=arguments, name=f"snas-sweep-{number}", daemon=True)
            with _no_interrupt():
                worker.start()
            writer.close()
            workers[reader] = worker
        _listen(workers, listener)
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.join()


def _listen(workers: dict[Connection, SpawnProcess], listener: Listener) -> None:
    """Hand on what the workers tell until all have ended."""
    talking = dict(workers)
    while talking:
        ready = wait(list(talking))
        for end in [end for end in talking if end in ready]:
            try:
                name, arguments, named = end.recv()
            except (EOFError, OSError):  # it has ended, perhaps in the middle of a word
                _require_well(talking.pop(end), len(workers))
                continue
            if name == LAST_WORDS:
                wrong_use, text = arguments
                raise (InputError if wrong_use else SnasError)(text)
            getattr(listener, name)(*arguments, **named)


def _require_well(worker: SpawnProcess, jobs: int) -> None:
    """Raise SnasError unless the worker came to its end as it should."""
    worker.join()
    code = worker.exitcode or 0
    if code:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise SnasError(
            f"one of {jobs} workers {how}; what was recorded is kept, and the same command goes on "
            "(with fewer --jobs, if memory was short)"
        )


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Processes started herein never see Ctrl-C, which a terminal sends to all: their parent ends them."""
    resource_tracker.ensure_running()  # otherwise starting a process starts it, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Relay(Listener):
    """Sends what it hears to the parent process."""

    def __init__(self, writer: Connection) -> None:
        self._writer = writer

    def on_message(self, text: str) -> None:
        """Hand on."""
        self._send("on_message", text)

    def on_entry(self, entry: Entry, *, seeds: int, done: int) -> None:
        """Hand on."""
        self._send("on_entry", entry, seeds=seeds, done=done)

    def on_run_epoch(self, entry: Entry, seed: int, report: Report) -> None:
        """Hand on."""
        self._send("on_run_epoch", entry, seed, report)

    def on_run_end(self, entry: Entry, seed: int, *, test_accuracy: float | None, reason: str | None) -> None:
        """Hand on."""
        self._send("on_run_end", entry, seed, test_accuracy=test_accuracy, reason=reason)

    def _send(self, name: str, *arguments: Any, **named: Any) -> None:
        self._writer.send((name, arguments, named))


def _work(settings: SweepSettings, places: Sequence[Place], writer: Connection) -> None:
    """What a worker does from its start to its end."""
    sys.stdout = sys.stderr  # standard output is the parent's, for results
    try:
        try:
            bench = open_bench(settings)
            with Registry(registry_path(settings.registry)) as registry:
                registry.use_environment(bench.environment)
                train_places(registry, bench, places, seeds=settings.seeds, listener=_Relay(writer), patient=True)
        except SnasError as error:
            writer.send((LAST_WORDS, (isinstance(error, InputError), str(error)), {}))
    except BrokenPipeError:
        sys.exit(1)  # the parent is gone, and nobody waits for the rest
