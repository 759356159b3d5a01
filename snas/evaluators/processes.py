"""Several candidates at a time, each in a process of its own.

A network of small layers gains little from the second thread of an operation, and nothing from the sixteenth; as many
networks as there are cores, a thread each, keep all of them busy.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO, cast

import torch

from snas.errors import InputError, SnasError
from snas.evaluators import worker
from snas.evaluators.base import Failure, Feed, Job, evaluators
from snas.evaluators.forks import Copy, safe
from snas.evaluators.parked import MOST_BYTES
from snas.evaluators.rounds import Rounds, Running
from snas.evaluators.sharing import Answer, Setup, own_plugins, pack, without_examples, write_examples
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status

log = logging.getLogger("snas")

TRIES = 3  # of a job whose process dies
PATIENCE = 5.0  # seconds that a process has to end by itself
TRAIN = pickle.dumps(("train",))
THREADS = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"


class Process:
    """A process that trains candidates (see `worker.py`), and what it has been told.

    Attributes:
        spaces: numbers of the architectures that it knows.
    """

    def __init__(self, setup: Setup, packed: bytes, examples: IO[bytes], *, threads: int) -> None:
        """Start it.

        Args:
            setup: what it is told first. A copy of this process has it at once.
            packed: the same as a message, for a process that is started anew.
            examples: file that it inherits.
            threads: of one operation.

        Raises:
            SnasError: if the system has no room for it.
        """
        self.connection, theirs = Pipe()
        descriptors = theirs.fileno(), examples.fileno()
        self._process: Copy | subprocess.Popen[bytes]
        with theirs, _no_interrupt(), _room():
            if safe(threads):
                self._process = Copy(partial(worker.main, theirs, examples.fileno(), setup), keep=descriptors)
            else:
                self._process = _started(descriptors, threads)
        self._first = None if isinstance(self._process, Copy) else packed
        self.spaces = {0}  # the setup's
        self._begun = False

    @property
    def listens(self) -> bool:
        """Whether it reads what it is sent at once. One that is started anew has much to import first, and who sends
        more than the system keeps for it waits until then."""
        return self._begun or isinstance(self._process, Copy)

    def send(self, *messages: bytes) -> None:
        """Send packed messages. To one that has died nothing is sent: its answer will tell."""
        first, self._first = self._first, None
        with suppress(OSError):
            for message in (*([first] if first else []), *messages):
                self.connection.send_bytes(message)

    def answer(self) -> Answer | None:
        """Its answer; None where it has died."""
        try:
            answer = cast(Answer, self.connection.recv())
        except (EOFError, OSError):
            return None
        self._begun = True
        return answer

    def end(self) -> str:
        """Wait for its end, which closing the connection is the reason for, and say how it came.

        Raises:
            SnasError: if it came to its end by itself before it gave any answer.
        """
        self.connection.close()
        try:
            code = self._process.wait(PATIENCE)
        except (subprocess.TimeoutExpired, TimeoutError):
            self._process.kill()
            code = self._process.wait()
        if code > 0 and not self._begun:
            raise SnasError(f"a process that trains candidates ended with exit code {code} before it could begin")
        if code >= 0:
            return f"its process ended with exit code {code}"
        return f"its process was ended by signal {-code}" + (
            ", perhaps for lack of memory" if code == -signal.SIGKILL else ""
        )

    @property
    def pid(self) -> int:
        """The number by which the system knows it."""
        return self._process.pid


@dataclass(slots=True)
class _Training:
    """A job as it would be begun anew, who trains it, and whether that process has it already, and is at work on it."""

    job: Job
    place: int
    sent: bool = False
    begun: bool = False
    deaths: int = 0


@evaluators.register("processes")
class ProcessesEvaluator(Rounds[_Training]):
    """Several candidates at a time, each in a process of its own; on a CPU.

    All processes train an epoch, their reports are filed together, and those that are free get the next jobs. One that
    waits trains the next epoch of its job in memory (see `worker.py`), which nothing here depends on. A process
    that has trained its job's last epoch while others are still at work begins with the candidate that was chosen for
    the next free slot, which is the same whoever else is free by then. A candidate's results are those of the serial
    evaluator with as many threads, to the bit. One whose process dies is trained again from its last checkpoint in
    another one, twice at most.
    """

    def __init__(self, task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> None:
        if task.device.type != "cpu":
            raise InputError(
                f"evaluator 'processes' trains on the cpu, not on {task.device.type}; use --evaluator auto"
            )
        if sys.platform == "win32":
            raise InputError("evaluator 'processes' does not work on Windows; use --evaluator serial")
        slots = slots or max(1, cores() // (task.threads or 1))
        super().__init__(task, checkpoints, slots)
        self._threads = task.threads or max(1, cores() // slots)
        self.environment = {"evaluator": "processes", "threads": self._threads}
        self._spaces = {id(task.space): (task.space, 0)}  # by identity: the architecture and its number
        self._packed: dict[int, bytes] = {}  # by number
        self._processes: dict[int, Process] = {}
        self._parked: dict[str, int] = {}
        self._early: _Training | None = None  # begun before its slot was free
        file, places = write_examples(task.data)
        self._examples = file
        weakref.finalize(self, _end, self._processes, file)
        self._setup = Setup(
            without_examples(task),
            places,
            checkpoints.folder.absolute(),
            MOST_BYTES // slots,
            self._threads,
            torch.get_default_dtype(),
            own_plugins(),
            log.getEffectiveLevel(),
        )
        self._begin_message = pack(("begin", self._setup), task.space.name)

    def run(self, feed: Feed) -> Iterator[Sequence[Report | Failure]]:
        """Train jobs round by round until the feed is dry."""
        dry = False
        try:
            yield from super().run(feed)
            dry = True
        finally:
            if not dry:  # nobody will file what they find
                _end(self._processes)
                self._running, self._parked, self._early = [], {}, None

    def _open(self, job: Job) -> _Training:
        """Choose a free process: the one that has begun already, else the one that has the job in memory, else one that
        is there, else a new one."""
        early, self._early = self._early, None
        if early is not None:  # the first that is opened after it began, for it was the first that waited
            return early
        busy = {running.training.place for running in self._running}
        parked = self._parked.pop(job.key, None)
        free = [place for place in sorted(self._processes) if place not in busy]
        if parked in free:
            place = parked
        elif free:
            place = free[0]
        else:
            place = next(place for place in range(len(busy) + 1) if place not in busy)
            self._start(place)
        training = _Training(job, place)
        if self._processes[place].listens:  # else when the others have been started too
            self._begin_now(training)
        return training

    def _go_on(self, running: Running[_Training]) -> None:
        self._begin_now(running.training)

    def _round(self) -> list[Report | Failure]:
        awaited: dict[Connection, Running[_Training]] = {}
        for running in self._running:
            awaited[self._begin(running.training)] = running
        self._look_ahead()
        reports: dict[int, Report | Failure] = {}
        while awaited:
            for end in cast(list[Connection], wait(list(awaited))):
                running = awaited.pop(end)
                answer = self._processes[running.training.place].answer()
                report = self._bury(running.training) if answer is None else self._take(running.training, answer)
                if report is None:
                    awaited[end if answer else self._begin(running.training)] = running
                    continue
                reports[running.job.trial] = report
                if awaited and (isinstance(report, Failure) or report.epoch >= running.job.until):
                    self._begin_early(running.training.place)
        return [reports[running.job.trial] for running in self._running]

    def _begin_early(self, place: int) -> None:
        """Have a process whose job has ended begin with the candidate that waits for a slot, if one does."""
        if self._early is not None or not self._waiting or place not in self._processes:
            return
        early = _Training(self._waiting[0], place)
        with suppress(SnasError):  # code that cannot be sent; that is said when what has been found is filed
            self._begin_now(early)
            self._early = early

    def _epochs(self, training: _Training) -> int:
        return training.job.start

    def _park(self, running: Running[_Training]) -> None:
        place = running.training.place
        self._processes[place].send(pickle.dumps(("park", running.job.key)))
        self._parked[running.job.key] = place

    def _start(self, place: int) -> None:
        self._processes[place] = Process(self._setup, self._begin_message, self._examples, threads=self._threads)

    def _begin_now(self, training: _Training) -> None:
        """Have an epoch trained, of which the next round takes the answer."""
        self._begin(training)
        training.begun = True

    def _begin(self, training: _Training) -> Connection:
        """Have an epoch trained, unless that was begun before; returns where the answer will come."""
        process, job = self._processes[training.place], training.job
        if training.begun:
            training.begun = False
            return process.connection
        messages = []
        if not training.sent:
            _, number = self._spaces.setdefault(id(job.space), (job.space, len(self._spaces)))
            if number not in process.spaces:
                if number not in self._packed:
                    self._packed[number] = pack(("know", number, job.space), job.space.name)
                messages.append(self._packed[number])
                process.spaces.add(number)
            rest = {field.name: getattr(job, field.name) for field in fields(job) if field.name != "space"}
            messages.append(pickle.dumps(("take", number, rest)))
            training.sent = True
        process.send(*messages, TRAIN)
        return process.connection

    def _take(self, training: _Training, answer: Answer) -> Report | Failure | None:
        """What a process says of its epoch; None where that is still to come."""
        for level, text in answer.logged:
            log.log(level, "%s", text)
        if answer.error is not None:
            raise answer.error
        report = answer.report
        if isinstance(report, Report):
            training.job = replace(training.job, start=report.epoch, mask_checksum=report.mask_checksum)
        elif isinstance(report, Failure) and report.status is Status.FAILED:
            self._checkpoints.drop(training.job.key)
        return report

    def _bury(self, training: _Training) -> Failure | None:
        """Go on after the death of a training's process: with a new one, or with the job's failure."""
        process = self._processes.pop(training.place)
        reason = process.end()
        self._parked = {key: place for key, place in self._parked.items() if place != training.place}
        training.sent = training.begun = False
        training.deaths += 1
        job = training.job
        if training.deaths >= TRIES:
            self._checkpoints.drop(job.key)
            return Failure(job.trial, Status.FAILED, f"{reason} ({TRIES} tries)")
        log.warning("%s goes on from epoch %d in another process: %s", job.key, job.start, reason)
        self._start(training.place)
        return None


def _started(descriptors: tuple[int, int], threads: int) -> subprocess.Popen[bytes]:
    """A worker that is started anew, with these file descriptors."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "snas.evaluators.worker", *map(str, descriptors)],
        pass_fds=descriptors,
        env={
            **os.environ,
            **dict.fromkeys(THREADS, str(threads)),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        },
        stdin=subprocess.DEVNULL,
    )


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _end(processes: dict[int, Process], file: IO[bytes] | None = None) -> None:
    """End the processes, all at once, and close the file that they have in common."""
    for process in processes.values():
        process.connection.close()
    for process in processes.values():
        with suppress(SnasError):
            process.end()
    processes.clear()
    if file is not None:
        file.close()


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Processes started herein never see Ctrl-C, which a terminal sends to all: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _room() -> Iterator[None]:
    """Say what to do where the system does not start a process."""
    try:
        yield
    except OSError as error:
        raise SnasError(f"cannot start a process that trains candidates: {error}; try fewer --slots") from error
