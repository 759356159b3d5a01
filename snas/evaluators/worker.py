"""A process that trains candidates for the processes evaluator, an epoch when it is told to.

While it waits to be told, it trains the next epoch of a job that goes on in any case. That epoch stays in memory: its
checkpoint is written, and its report sent, when it is asked for, which says that the epoch before is filed. So what the
parent sees, and what a kill leaves on disk, does not depend on who waited.

It is started as `python -m snas.evaluators.worker CONNECTION EXAMPLES`, two file descriptors, and ends as soon as the
other end of the connection is closed, whatever it is doing: nobody would file what it finds.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch

from snas.errors import FailedError, InputError, RefusedError, SnasError, one_line
from snas.evaluators.base import Failure, Job
from snas.evaluators.parked import Parked
from snas.evaluators.sharing import Answer, Setup, add_plugins, map_examples, with_examples
from snas.search_spaces.base import SearchSpace
from snas.training.checkpoints import Checkpoints
from snas.training.session import Epoch
from snas.training.task import Task, Training
from snas.trials import Status

log = logging.getLogger("snas")


class Worker:
    """Trains one job at a time, and keeps those that pause."""

    def __init__(self, task: Task, checkpoints: Checkpoints, *, parked_bytes: int) -> None:
        """Begin without a job.

        Args:
            task: what the study shares, with its examples.
            checkpoints: where they are; other processes have theirs in the same folder.
            parked_bytes: that paused trainings may take.
        """
        self._task = task
        self._checkpoints = checkpoints
        self._parked = Parked(task, checkpoints, most_bytes=parked_bytes)
        self._spaces: dict[int, SearchSpace] = {}
        self._present: _Taken | None = None
        self._before: _Taken | None = None

    def know(self, number: int, space: SearchSpace) -> None:
        """Learn an architecture, which jobs name by its number."""
        self._spaces[number] = space

    def knows(self, number: int) -> bool:
        """Whether it has learnt an architecture."""
        return number in self._spaces

    def take(self, space: int, fields: Mapping[str, Any]) -> None:
        """Take a job, given by the number of its architecture and its other fields. The one before is kept if it may
        pause yet, else forgotten."""
        before = self._present
        pauses = before is not None and before.training is not None and before.job.until < self._task.rule.epochs
        self._before = before if pauses else None
        self._present = _Taken(Job(space=self._spaces[space], **fields))

    def train(self) -> Answer:
        """Train the job's next epoch that was not reported before, unless it was trained ahead, and write its
        checkpoint. What was reported is filed now: older checkpoints than its own are dropped first."""
        present = self._present
        if present is None:
            raise RuntimeError("no job was taken")
        job = present.job
        try:
            if present.training is None:
                self._checkpoints.look_again(job.key)
                present.training = self._parked.open(job)
                present.training.restore(job.start)
            else:
                present.training.forget()
            epoch = present.next_epoch()
            present.training.save()
            return Answer(present.training.report(epoch, job.trial))
        except SnasError as error:
            present.training = None
            if isinstance(error, (RefusedError, FailedError)):
                status = Status.REFUSED if isinstance(error, RefusedError) else Status.FAILED
                return Answer(Failure(job.trial, status, str(error)))
            return Answer(error=error)

    def run_ahead(self) -> None:
        """Train the job's next epoch before it is asked for, in memory alone, where it has begun and does not pause
        before; once. What goes wrong is told when the epoch is asked for."""
        if self._present is not None:
            self._present.run_ahead()

    def park(self, key: str | None = None) -> None:
        """The job that has this key (the present one, as without a key, or that before) has paused, and its last
        epoch is filed."""
        paused = self._present
        if paused is not None and key in (None, paused.job.key):
            self._present = None
        else:
            paused, self._before = self._before, None
            if paused is not None and paused.job.key != key:
                raise RuntimeError(f"{key} is to pause, but {paused.job.key} was trained")
        if paused is not None and paused.training is not None:
            paused.training.forget()
            self._parked.park(paused.job, paused.training)


@dataclass(slots=True)
class _Taken:
    """A job, its training once it has begun, and the epoch that was trained ahead, or why there is none."""

    job: Job
    training: Training | None = None
    ahead: Epoch | BaseException | None = None

    def next_epoch(self) -> Epoch:
        """The job's next epoch, trained now unless it was ahead."""
        if self.ahead is None:
            self.run_ahead()
        found, self.ahead = self.ahead, None
        if isinstance(found, BaseException):
            raise found
        if found is None:
            raise RuntimeError(f"{self.job.key} has its {self.job.until} epochs")
        return found

    def run_ahead(self) -> None:
        """Train the next epoch in memory, if there is one; once."""
        if self.training is None or self.ahead is not None:
            return
        try:
            self.ahead = self.training.advance(start=self.job.start, until=self.job.until)
        except BaseException as error:
            self.ahead = error


class Collector(logging.Handler):
    """Keeps messages until they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self._kept.append((record.levelno, record.getMessage()))

    def collect(self) -> tuple[tuple[int, str], ...]:
        """What was logged since the last call."""
        kept, self._kept = tuple(self._kept), []
        return kept


def main(connection: Connection, examples: int, setup: Setup | None = None) -> None:
    """Do what the parent says until it closes the connection. A copy of the parent has the setup, which comes in the
    first message otherwise."""
    messages: SimpleQueue[bytes | tuple[str, Setup]] = SimpleQueue()
    if setup is not None:
        messages.put(("begin", setup))
    Thread(target=_listen, args=(connection, messages), daemon=True).start()
    collector = Collector()
    log.addHandler(collector)
    log.propagate = False
    worker: Worker | None = None
    found: Answer | None
    while True:
        if worker is not None and messages.empty():
            worker.run_ahead()  # others are at work, or the parent files what they found
        try:
            message = messages.get()
            what, *arguments = unpack(message) if isinstance(message, bytes) else message
            if what == "begin":
                setup = arguments[0]
                task = with_examples(setup.task, map_examples(examples, setup.places))
                worker = begin(setup, task, Checkpoints(setup.folder))
                worker.know(0, task.space)
                found = Answer()
            else:
                found = getattr(worker, what)(*arguments)
        except SnasError as error:
            found = Answer(error=error)
        except BaseException as error:
            found = Answer(error=defect(error))
        if isinstance(found, Answer):
            try:
                connection.send(replace(found, logged=collector.collect()))
            except OSError:  # nobody listens
                os._exit(0)


def unpack(message: bytes) -> Any:
    """Read what the parent packed.

    Raises:
        InputError: if a user's code does not work here.
    """
    try:
        return pickle.loads(message)
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"the space cannot be opened in another process ({type(error).__name__}: {one_line(error)}); "
            "use --evaluator serial"
        ) from error


def begin(setup: Setup, task: Task, checkpoints: Checkpoints) -> Worker:
    """Make this process what the parent is, as far as training goes; `task` is the setup's with its examples."""
    torch.set_num_threads(setup.threads)
    torch.set_default_dtype(setup.dtype)
    log.setLevel(setup.level)
    add_plugins(setup.plugins)
    return Worker(task, checkpoints, parked_bytes=setup.parked_bytes)


def defect(error: BaseException) -> SnasError:
    """What cannot be told as the end of one candidate."""
    traceback.print_exception(error)
    return SnasError(
        f"a process that trains candidates met {type(error).__name__}: {one_line(error)}; use --evaluator serial"
    )


def _listen(connection: Connection, messages: SimpleQueue[Any]) -> None:
    """Pass on what comes, and end the process when nothing more can come."""
    try:
        while True:
            messages.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output is for results
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
