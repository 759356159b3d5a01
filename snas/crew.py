"""Several processes that work on one command. They share the work through the registry's locks, as two terminals do.

Each process opens what it needs itself and walks through the same list. Events come back through a pipe for each, so
that one that is killed in the middle of a word leaves the others' whole.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from snas.errors import InputError, SnasError
from snas.listener import Listener

LAST_WORDS = "error"


def require_locks(flag: str) -> None:
    """Raise InputError where processes cannot share the work."""
    if sys.platform == "win32":
        raise InputError(f"{flag} needs file locks, which Windows does not have; leave it out")


def work_together(
    number: int, work: Callable[..., None], arguments: tuple[Any, ...], *, listener: Listener, name: str, flag: str
) -> None:
    """Have processes do the work until all have come to their end.

    Args:
        number: of processes.
        work: called in each with `arguments` and the end of a pipe to tell through (see `telling`); importable.
        arguments: that can be pickled.
        listener: hears of what all of them do.
        name: of the processes.
        flag: with which the user chose `number`.

    Raises:
        InputError: what one of them met that is the user's mistake.
        SnasError: what one of them met, or that one died. The others are ended then; what was recorded is kept.
    """
    context = get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for place in range(number):
            reader, writer = context.Pipe(duplex=False)
            worker = context.Process(target=work, args=(*arguments, writer), name=f"{name}-{place}", daemon=True)
            with _no_interrupt():
                worker.start()
            writer.close()
            workers[reader] = worker
        listen(workers, listener, flag=flag)
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.join()


def listen(workers: Mapping[Connection, SpawnProcess], listener: Listener, *, flag: str = "--jobs") -> None:
    """Hand on what the workers tell until all have ended."""
    talking = dict(workers)
    while talking:
        ready = wait(list(talking))
        for end in [end for end in talking if end in ready]:
            try:
                name, arguments, named = end.recv()
            except (EOFError, OSError):  # it has ended, perhaps in the middle of a word
                _require_well(talking.pop(end), len(workers), flag)
                continue
            if name == LAST_WORDS:
                wrong_use, text = arguments
                raise (InputError if wrong_use else SnasError)(text)
            getattr(listener, name)(*arguments, **named)


def _require_well(worker: SpawnProcess, number: int, flag: str) -> None:
    """Raise SnasError unless the worker came to its end as it should."""
    worker.join()
    code = worker.exitcode or 0
    if code:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise SnasError(
            f"one of {number} workers {how}; what was recorded is kept, and the same command goes on "
            f"(with fewer {flag}, if memory was short)"
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


@contextmanager
def telling(writer: Connection) -> Iterator[None]:
    """What a worker does from its start to its end happens in here: its errors are told to the parent."""
    sys.stdout = sys.stderr  # standard output is the parent's, for results
    try:
        try:
            yield
        except SnasError as error:
            writer.send((LAST_WORDS, (isinstance(error, InputError), str(error)), {}))
    except BrokenPipeError:
        sys.exit(1)  # the parent is gone, and nobody waits for the rest


class Relay(Listener):
    """Sends what it hears to the parent process: whatever is a method of `Listener`."""

    def __init__(self, writer: Connection) -> None:
        """Send through this end of the pipe."""
        self._writer = writer

    def __getattribute__(self, name: str) -> Any:
        """Sending, in place of the method that does nothing."""
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def send(*arguments: Any, **named: Any) -> None:
            self._writer.send((name, arguments, named))

        return send
