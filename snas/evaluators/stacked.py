"""Candidates side by side in one computation, an epoch of all at a time."""

from __future__ import annotations

import copy
import json
import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import nn

from snas.errors import FailedError, InputError, RefusedError, SnasError, one_line
from snas.evaluators.base import Failure, Job, evaluators
from snas.evaluators.parked import Parked
from snas.evaluators.rounds import Rounds, Running
from snas.search_spaces.base import SearchSpace
from snas.stacked import Stack, Structure, Unstackable, make_own, structure, train_epoch
from snas.stacked.memory import choose_slots
from snas.training.checkpoints import Checkpoints
from snas.training.devices import intraop_threads
from snas.training.session import Epoch
from snas.training.task import Task, Training, network_at_fault
from snas.trials import Report

log = logging.getLogger("snas")


@dataclass(slots=True)
class _Kind:
    """Networks that stack: of one space, prepared alike.

    Attributes:
        space: whose networks they are; two of its arguments need not show in a network's modules.
        first: a stack without networks.
        stacks: one for each thread that has had networks of the kind.
    """

    space: SearchSpace
    first: Stack
    stacks: list[Stack] = field(default_factory=list)

    def take(self, number: int, *, compiled: bool) -> list[Stack]:
        """So many stacks."""
        while len(self.stacks) < number:
            self.stacks.append(copy.deepcopy(self.first))
            if compiled:
                self.stacks[-1].compile()
        return self.stacks[:number]


@evaluators.register("stacked")
class StackedEvaluator(Rounds[Training]):
    """Several candidates side by side in one computation, as far as they have one architecture.

    All slots train an epoch, their reports are filed together, and free slots are filled: what happens depends on the
    feed alone, not on time, so that a search gives the same again, also after it was interrupted. A network that cannot
    stand beside others is trained by itself. On a CPU every thread has a stack of its own, and operations one thread.
    """

    def __init__(self, task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> None:
        if task.kernel == "sparse":
            raise InputError(
                "evaluator 'stacked' has kernels of its own; leave out kernel sparse, or choose evaluator serial"
            )
        dense = replace(task, kernel="dense")  # what stands side by side is multiplied as a batch
        super().__init__(dense, checkpoints, slots)
        self._parked = Parked(dense, checkpoints)
        self._kinds: list[_Kind] = []
        self._alone: set[tuple[str, Structure]] = set()
        self._kind_of_model: WeakKeyDictionary[nn.Module, _Kind | None] = WeakKeyDictionary()
        alone = task.device.type != "cpu" or task.compile  # in one thread; what is compiled is so once
        self._threads = 1 if alone else torch.get_num_threads()
        self.environment = {"evaluator": "stacked", "kernel": "dense"}

    def _open(self, job: Job) -> Training:
        """Make the job's network. The first one decides how many slots there are, where nobody has said."""
        with self._quiet():
            training = self._parked.open(job)
            training.restore(job.start)
            if self._slots is None:
                with network_at_fault():
                    kind = self._kind_of(job, training)
                    self._slots = choose_slots(self._task, training, None if kind is None else kind.first)
        return training

    def _round(self) -> list[Report | Failure]:
        try:
            return self._train()
        except SnasError:
            raise
        except Exception as error:
            self._disband(error)
            return []

    def _quiet(self) -> AbstractContextManager[None]:
        """One thread for each operation on a CPU, since several operations go on at a time."""
        several = self._task.device.type == "cpu" and not self._task.compile
        return intraop_threads(1 if several else torch.get_num_threads())

    def _train(self) -> list[Report | Failure]:
        """Train an epoch of every running job."""
        outcomes: dict[int, Epoch | RefusedError | FailedError] = {}
        for kind, group in self._groups():
            compiled = self._task.compile
            if kind is None or (len(group) == 1 and not compiled):
                with self._quiet():
                    outcomes |= {running.job.trial: _alone(running.training) for running in group}
                continue
            sessions = [running.training.session for running in group]
            with self._quiet():
                stacks = kind.take(min(self._threads, len(sessions)), compiled=compiled)
                width = self._slots if compiled else None
                found = train_epoch(stacks, sessions, at_fault=network_at_fault, width=width)
            outcomes |= {running.job.trial: outcome for running, outcome in zip(group, found, strict=True)}
        reports: list[Report | Failure] = []
        for running in self._running:
            outcome = outcomes[running.job.trial]
            if not isinstance(outcome, Epoch):
                reports.append(self._failure(running.job, outcome))
            elif outcome.number > running.job.start:  # else an epoch whose checkpoint was lost, reported before
                try:
                    running.training.save()
                except FailedError as error:
                    reports.append(self._failure(running.job, error))
                else:
                    reports.append(running.training.report(outcome, running.job.trial))
        return reports

    def _epochs(self, training: Training) -> int:
        return training.session.epoch

    def _go_on(self, running: Running[Training]) -> None:
        running.training.forget()
        running.training.filed = running.training.session.epoch

    def _park(self, running: Running[Training]) -> None:
        running.training.forget()
        make_own(running.training.session.model)
        self._parked.park(running.job, running.training)

    def _groups(self) -> list[tuple[_Kind | None, list[Running[Training]]]]:
        """The running jobs by their kind; None for those that do not stack."""
        groups: dict[int, tuple[_Kind | None, list[Running[Training]]]] = {}
        for running in self._running:
            kind = self._kind_of(running.job, running.training) if self._slots != 1 else None
            groups.setdefault(id(kind), (kind, []))[1].append(running)
        return list(groups.values())

    def _kind_of(self, job: Job, training: Training) -> _Kind | None:
        """The kind of a job's network; None where it does not stack."""
        model = training.session.model
        if model not in self._kind_of_model:
            self._kind_of_model[model] = self._find_kind(job, training)
        return self._kind_of_model[model]

    def _find_kind(self, job: Job, training: Training) -> _Kind | None:
        model = training.session.model
        for kind in self._kinds:
            if kind.space is job.space and kind.first.fits(model):
                return kind
        key = json.dumps(dict(job.space.arguments), sort_keys=True, default=repr), structure(model)
        if key in self._alone:
            return None
        try:
            self._kinds.append(_Kind(job.space, Stack(model, training.session.data.train.x.shape[1:])))
        except Unstackable as error:
            self._alone.add(key)
            log.warning("%s is not trained side by side with others: %s", self._task.space.name, error)
            return None
        return self._kinds[-1]

    def _disband(self, error: Exception) -> None:
        """Begin the interrupted epoch again with fewer slots: where memory was short with half of them, else with one,
        so that the error is the network's that raises it."""
        if self._slots == 1:
            raise error
        self._slots = max(1, (self._slots or 1) // 2) if _short_of_memory(error) else 1
        log.warning("%s: %s; going on with %d at a time", type(error).__name__, one_line(error), self._slots)
        again = [replace(one.job, start=max(one.job.start, one.training.filed)) for one in self._running]
        self._waiting = again + self._waiting
        self._running, self._kinds, self._kind_of_model = [], [], WeakKeyDictionary()


def _alone(training: Training) -> Epoch | RefusedError | FailedError:
    """The next epoch of a network by itself."""
    try:
        with network_at_fault():
            return training.session.train_epoch()
    except (RefusedError, FailedError) as error:
        return error


def _short_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text or "out of memory" in text
    )
