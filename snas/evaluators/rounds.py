"""Rounds: every slot trains an epoch, the reports are filed together, and free slots are filled.

What happens depends on the feed alone, not on time, so that a search gives the same again, also after it was
interrupted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from snas.errors import FailedError, RefusedError
from snas.evaluators.base import Failure, Feed, Job
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Running(Generic[T]):
    """A job in a slot, and what the evaluator has of its training."""

    job: Job
    training: T


class Rounds(ABC, Generic[T]):
    """An evaluator that works in rounds; T is what it has of a training."""

    def __init__(self, task: Task, checkpoints: Checkpoints, slots: int | None) -> None:
        """Begin without jobs. Where `slots` is None, opening the first job is to set how many there are."""
        self._task = task
        self._checkpoints = checkpoints
        self._slots = slots
        self._feed: Feed
        self._waiting: list[Job] = []
        self._running: list[Running[T]] = []

    def run(self, feed: Feed) -> Iterator[Sequence[Report | Failure]]:
        """Train jobs round by round until the feed is dry."""
        self._feed = feed
        while True:
            yield from self._fill(feed)
            if not self._running:
                return
            reports = self._round()
            if reports:
                yield reports
            self._settle(reports)

    @abstractmethod
    def _open(self, job: Job) -> T:
        """Take a job into a slot; raises RefusedError or FailedError where that is its end."""

    @abstractmethod
    def _round(self) -> list[Report | Failure]:
        """Train an epoch of every running job, by trial. An epoch that was reported before gives no report."""

    @abstractmethod
    def _epochs(self, training: T) -> int:
        """How many epochs it has."""

    def _look_ahead(self) -> None:
        """Have a candidate chosen for the slot that is free next, if all are busy; for evaluators that wait now."""
        if not self._waiting and len(self._running) == self._slots and (job := self._feed.ahead()) is not None:
            self._waiting.append(job)

    def _go_on(self, running: Running[T]) -> None:
        """Its report is filed, and it trains another epoch."""

    def _park(self, running: Running[T]) -> None:
        """Its report is filed, and it pauses."""

    def _fill(self, feed: Feed) -> Iterator[Sequence[Failure]]:
        """Take jobs into free slots."""
        while self._slots is None or len(self._running) < self._slots:
            job = self._waiting.pop(0) if self._waiting else feed.next()
            if job is None:
                break
            try:
                training = self._open(job)
            except (RefusedError, FailedError) as error:
                yield (self._failure(job, error),)
                continue
            self._running.append(Running(job, training))
        self._running.sort(key=lambda running: running.job.trial)

    def _settle(self, reports: Sequence[Report | Failure]) -> None:
        """Free the slots of jobs that have ended, now that the reports are filed."""
        ended = {report.trial for report in reports if isinstance(report, Failure)}
        going = []
        for running in self._running:
            job = running.job
            if job.trial in ended:
                continue
            if self._epochs(running.training) < job.until:
                self._go_on(running)
                going.append(running)
            elif job.until >= self._task.rule.epochs:
                self._checkpoints.drop(job.key)
            else:
                self._park(running)
        self._running = going

    def _failure(self, job: Job, error: RefusedError | FailedError) -> Failure:
        """The end of a job."""
        if isinstance(error, RefusedError):
            return Failure(job.trial, Status.REFUSED, str(error))
        self._checkpoints.drop(job.key)
        return Failure(job.trial, Status.FAILED, str(error))
