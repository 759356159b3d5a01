"""Trainings that pause at a rung, kept in memory: one that goes on has no need to be made anew."""

from __future__ import annotations

from collections import OrderedDict

from snas.evaluators.base import Job
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task, Training

MOST_BYTES = 1 << 30


class Parked:
    """Paused trainings by key, the oldest forgotten first; all have their checkpoint on disk beside."""

    def __init__(self, task: Task, checkpoints: Checkpoints, *, most_bytes: int = MOST_BYTES) -> None:
        """Keep trainings of `task` as long as all together have at most so many bytes."""
        self._task = task
        self._checkpoints = checkpoints
        self._most = most_bytes
        self._trainings: OrderedDict[str, tuple[Training, int]] = OrderedDict()

    def open(self, job: Job) -> Training:
        """The job's training: the parked one, or a new one that goes on from its checkpoint.

        Raises:
            RefusedError, FailedError, SnasError: as `Training`.
        """
        parked, _ = self._trainings.pop(job.key, (None, 0))
        if parked is not None and parked.session.epoch == job.start:
            return parked
        return Training(
            self._task.of(job.space),
            job.method,
            job.densities,
            seed=job.seed,
            key=job.key,
            checkpoints=self._checkpoints,
            mask_checksum=job.mask_checksum,
            measured=job.measured and job.start == 0,
        )

    def park(self, job: Job, training: Training) -> None:
        """Keep a training that has paused."""
        training.session.rest()
        size = training.bytes
        self._trainings[job.key] = training, size
        total = sum(size for _, size in self._trainings.values())
        while total > self._most:
            _, (_, freed) = self._trainings.popitem(last=False)
            total -= freed
