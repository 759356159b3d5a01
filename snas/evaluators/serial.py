"""One candidate at a time, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snas.errors import FailedError, InputError, RefusedError
from snas.evaluators.base import Failure, Feed, Job, evaluators
from snas.evaluators.parked import Parked
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report, Status


@evaluators.register("serial")
class SerialEvaluator:
    """One candidate at a time, in this process; the same seed gives the same result to the bit on a CPU."""

    def __init__(self, task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> None:
        if slots not in (None, 1):
            raise InputError(f"slots is {slots}, but evaluator 'serial' trains one network at a time; leave slots out")
        self._task = task
        self._checkpoints = checkpoints
        self._parked = Parked(task, checkpoints)
        self.environment = {"evaluator": "serial"}

    def run(self, feed: Feed) -> Iterator[Sequence[Report | Failure]]:
        """Train jobs one after another until the feed is dry."""
        while (job := feed.next()) is not None:
            yield from ((report,) for report in self.train(job))

    def train(self, job: Job) -> Iterator[Report | Failure]:
        """Train one job."""
        try:
            training = self._parked.open(job)
            for epoch in training.run(start=job.start, until=job.until):
                yield training.report(epoch, job.trial)
        except RefusedError as error:
            yield Failure(job.trial, Status.REFUSED, str(error))
        except FailedError as error:
            self._checkpoints.drop(job.key)
            yield Failure(job.trial, Status.FAILED, str(error))
        else:
            if job.until >= self._task.rule.epochs:
                self._checkpoints.drop(job.key)
            else:
                self._parked.park(job, training)
