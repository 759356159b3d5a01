"""Candidates side by side in one computation, an epoch of all at a time."""

from __future__ import annotations

import copy
import logging
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from snas.errors import FailedError, RefusedError, SnasError
from snas.evaluators.base import Failure, Job, evaluators
from snas.evaluators.parked import Parked
from snas.evaluators.rounds import Rounds, Running
from snas.stacked import Stack, Structure, Unstackable, make_own, structure, train_epoch
from snas.stacked.memory import choose_slots
from snas.training.checkpoints import Checkpoints
from snas.training.devices import intraop_threads
from snas.training.session import Epoch
from snas.training.task import Task, Training, network_at_fault
from snas.trials import Report

log = logging.getLogger("snas")


@evaluators.register("stacked")
class StackedEvaluator(Rounds[Training]):
    """Several candidates side by side in one computation, as far as they have one architecture.

    All slots train an epoch, their reports are filed together, and free slots are filled: what happens depends on the
    feed alone, not on time, so that a search gives the same again, also after it was interrupted. A network that cannot
    stand beside others is trained by itself. On a CPU every thread has a stack of its own, and operations one thread.
    """

    def __init__(self, task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> None:
        dense = replace(task, kernel="dense")  # what stands side by side is multiplied as a batch
        super().__init__(dense, checkpoints, slots)
        self._parked = Parked(dense, checkpoints)
        self._stacks: list[list[Stack]] = []  # of each architecture, one for each thread
        self._threads = torch.get_num_threads() if task.device.type == "cpu" else 1
        self._alone: set[Structure] = set()

    def _open(self, job: Job) -> Training:
        """Make the job's network. The first one decides how many slots there are, where nobody has said."""
        with self._quiet():
            training = self._parked.open(job)
            training.restore(job.start)
            if self._slots is None:
                with network_at_fault():
                    self._slots = choose_slots(self._task, training, self._stacks_of(training))
        return training

    def _round(self) -> list[Report | Failure]:
        try:
            with self._quiet():
                return self._train()
        except SnasError:
            raise
        except Exception as error:
            self._disband(error)
            return []

    def _quiet(self) -> AbstractContextManager[None]:
        """One thread for each operation on a CPU, since several operations go on at a time."""
        return intraop_threads(1 if self._task.device.type == "cpu" else torch.get_num_threads())

    def _train(self) -> list[Report | Failure]:
        """Train an epoch of every running job."""
        outcomes: dict[int, Epoch | RefusedError | FailedError] = {}
        for stacks, group in self._groups():
            if not stacks or len(group) == 1:
                for running in group:
                    outcomes[running.job.trial] = _alone(running.training)
                continue
            sessions = [running.training.session for running in group]
            found = train_epoch(stacks, sessions, at_fault=network_at_fault)
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

    def _epochs(self, training: Training) -> int:
        return training.session.epoch

    def _go_on(self, running: Running[Training]) -> None:
        running.training.forget()

    def _park(self, running: Running[Training]) -> None:
        running.training.forget()
        make_own(running.training.session.model)
        self._parked.park(running.job, running.training)

    def _groups(self) -> list[tuple[list[Stack], list[Running[Training]]]]:
        """The running jobs by the stacks that they fit in; none for those that fit in none."""
        groups: dict[int, tuple[list[Stack], list[Running[Training]]]] = {}
        for running in self._running:
            stacks = self._stacks_of(running.training) if self._slots != 1 else None
            groups.setdefault(id(stacks), (stacks or [], []))[1].append(running)
        return list(groups.values())

    def _stacks_of(self, training: Training) -> list[Stack] | None:
        """The stacks that a network fits in, made where there is none; None where its kind does not stack."""
        model = training.session.model
        for stacks in self._stacks:
            if stacks[0].fits(model):
                return stacks
        kind = structure(model)
        if kind in self._alone:
            return None
        try:
            stack = Stack(model, training.session.data.train.x.shape[1:])
        except Unstackable as error:
            self._alone.add(kind)
            log.warning("%s is not trained side by side with others: %s", self._task.space.name, error)
            return None
        self._stacks.append([stack, *(copy.deepcopy(stack) for _ in range(self._threads - 1))])
        return self._stacks[-1]

    def _disband(self, error: Exception) -> None:
        """Begin the interrupted epoch again with fewer slots: where memory was short with half of them, else with one,
        so that the error is the network's that raises it."""
        if self._slots == 1:
            raise error
        self._slots = max(1, (self._slots or 1) // 2) if _short_of_memory(error) else 1
        text = " ".join(str(error).split())[:200]
        log.warning("%s: %s; going on with %d at a time", type(error).__name__, text, self._slots)
        again = [replace(one.job, start=max(one.job.start, one.training.saved)) for one in self._running]
        self._waiting = again + self._waiting
        self._running, self._stacks = [], []


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
