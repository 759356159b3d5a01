"""Candidates side by side in one computation, an epoch of all at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from snas.errors import FailedError, RefusedError, SnasError
from snas.evaluators.base import Failure, Feed, Job, evaluators
from snas.evaluators.parked import Parked
from snas.stacked import Stack, Structure, Unstackable, make_own, structure, train_epoch
from snas.stacked.memory import choose_slots
from snas.training.checkpoints import Checkpoints
from snas.training.session import Epoch
from snas.training.task import Task, Training, network_at_fault
from snas.trials import Report, Status

log = logging.getLogger("snas")


@dataclass(frozen=True, slots=True)
class _Running:
    """A job in a slot."""

    job: Job
    training: Training


@evaluators.register("stacked")
class StackedEvaluator:
    """Several candidates side by side in one computation, as far as they have one architecture.

    All slots train an epoch, their reports are filed together, and free slots are filled: what happens depends on the
    feed alone, not on time, so that a search gives the same again, also after it was interrupted. A network that cannot
    stand beside others is trained by itself.
    """

    def __init__(self, task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> None:
        self._task = replace(task, kernel="dense")  # what stands side by side is multiplied as a batch
        self._checkpoints = checkpoints
        self._parked = Parked(self._task, checkpoints)
        self._slots = slots
        self._stacks: list[Stack] = []
        self._alone: set[Structure] = set()
        self._waiting: list[Job] = []
        self._running: list[_Running] = []

    def run(self, feed: Feed) -> Iterator[Sequence[Report | Failure]]:
        """Train jobs side by side until the feed is dry."""
        while True:
            yield from self._fill(feed)
            if not self._running:
                return
            try:
                reports = self._round()
            except SnasError:
                raise
            except Exception as error:
                self._disband(error)
                continue
            if reports:
                yield reports
            self._settle(reports)

    def _fill(self, feed: Feed) -> Iterator[Sequence[Failure]]:
        """Take jobs into free slots. The first one decides how many there are, where nobody has said."""
        while self._slots is None or len(self._running) < self._slots:
            job = self._waiting.pop(0) if self._waiting else feed.next()
            if job is None:
                break
            try:
                training = self._parked.open(job)
                training.restore(job.start)
                if self._slots is None:
                    with network_at_fault():
                        self._slots = choose_slots(self._task, training)
            except (RefusedError, FailedError) as error:
                yield (self._failure(job, error),)
                continue
            self._running.append(_Running(job, training))
        self._running.sort(key=lambda running: running.job.trial)

    def _round(self) -> list[Report | Failure]:
        """Train an epoch of every running job."""
        outcomes: dict[int, Epoch | RefusedError | FailedError] = {}
        for stack, group in self._groups():
            if stack is None or len(group) == 1:
                for running in group:
                    outcomes[running.job.trial] = _alone(running.training)
                continue
            sessions = [running.training.session for running in group]
            found = train_epoch(stack, sessions, at_fault=network_at_fault)
            outcomes |= {running.job.trial: outcome for running, outcome in zip(group, found, strict=True)}
        reports: list[Report | Failure] = []
        for running in self._running:
            outcome = outcomes[running.job.trial]
            if not isinstance(outcome, Epoch):
                reports.append(self._failure(running.job, outcome))
            elif outcome.number > running.job.start:  # else an epoch whose checkpoint was lost, reported before
                running.training.save()
                reports.append(running.training.report(outcome, running.job.trial))
        return reports

    def _settle(self, reports: Sequence[Report | Failure]) -> None:
        """Free the slots of jobs that have ended, now that the reports are filed."""
        ended = {report.trial for report in reports if isinstance(report, Failure)}
        going = []
        for running in self._running:
            job, training = running.job, running.training
            if job.trial in ended:
                continue
            training.forget()
            if training.session.epoch < job.until:
                going.append(running)
                continue
            if job.until >= self._task.rule.epochs:
                self._checkpoints.drop(job.key)
            else:
                make_own(training.session.model)
                self._parked.park(job, training)
        self._running = going

    def _groups(self) -> list[tuple[Stack | None, list[_Running]]]:
        """The running jobs by the stack that they fit in; None for those that fit in none."""
        groups: dict[int, tuple[Stack | None, list[_Running]]] = {}
        for running in self._running:
            stack = self._stack_of(running.training) if self._slots != 1 else None
            groups.setdefault(id(stack), (stack, []))[1].append(running)
        return list(groups.values())

    def _stack_of(self, training: Training) -> Stack | None:
        """The stack that a network fits in, made where there is none; None where its kind does not stack."""
        model = training.session.model
        for stack in self._stacks:
            if stack.fits(model):
                return stack
        kind = structure(model)
        if kind in self._alone:
            return None
        try:
            self._stacks.append(Stack(model, training.session.data.train.x.shape[1:]))
        except Unstackable as error:
            self._alone.add(kind)
            log.warning("%s is not trained side by side with others: %s", self._task.space.name, error)
            return None
        return self._stacks[-1]

    def _disband(self, error: Exception) -> None:
        """Begin the interrupted epoch again with fewer slots: where memory was short with half of them, else with one,
        so that the error is the network's that raises it."""
        if self._slots == 1:
            raise error
        self._slots = max(1, (self._slots or 1) // 2) if _short_of_memory(error) else 1
        text = " ".join(str(error).split())[:200]
        log.warning("%s: %s; going on with %d at a time", type(error).__name__, text, self._slots)
        again = [replace(one.job, start=max(one.job.start, one.training.session.epoch)) for one in self._running]
        self._waiting = again + self._waiting
        self._running, self._stacks = [], []

    def _failure(self, job: Job, error: RefusedError | FailedError) -> Failure:
        if isinstance(error, RefusedError):
            return Failure(job.trial, Status.REFUSED, str(error))
        self._checkpoints.drop(job.key)
        return Failure(job.trial, Status.FAILED, str(error))


def _alone(training: Training) -> Epoch | RefusedError | FailedError:
    """The next epoch of a network by itself."""
    try:
        with network_at_fault():
            return training.session.train_epoch()
    except (RefusedError, FailedError) as error:
        return error


def _short_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text
