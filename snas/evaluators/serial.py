"""One candidate at a time, in this process."""

from __future__ import annotations

from collections.abc import Iterator

from snas.errors import FailedError, RefusedError
from snas.evaluators.base import Failure, Feed, Job, evaluators
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task, Training
from snas.trials import Report, Status


@evaluators.register("serial")
class SerialEvaluator:
    """One candidate at a time, in this process; the same seed gives the same result to the bit on a CPU."""

    def __init__(self, task: Task, checkpoints: Checkpoints) -> None:
        self._task = task
        self._checkpoints = checkpoints

    def run(self, feed: Feed) -> Iterator[Report | Failure]:
        """Train jobs one after another until the feed is dry."""
        while (job := feed.next()) is not None:
            yield from self._train(job)

    def _train(self, job: Job) -> Iterator[Report | Failure]:
        try:
            training = Training(
                self._task.of(job.space),
                job.method,
                job.densities,
                seed=job.seed,
                key=job.key,
                checkpoints=self._checkpoints,
                mask_checksum=job.mask_checksum,
                measured=job.measured and job.start == 0,
            )
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
