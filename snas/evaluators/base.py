"""The seam between a search and whatever trains its candidates.

An evaluator pulls jobs from a feed and yields what comes of them. It knows nothing of strategies, promotion rules or
the registry: the search records each report before the evaluator goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from snas.densities import Densities
from snas.plugins import Family
from snas.trials import Report, Status

if TYPE_CHECKING:
    from snas.pruning.methods import Method
    from snas.search_spaces.base import SearchSpace
    from snas.training.checkpoints import Checkpoints
    from snas.training.task import Task


@dataclass(frozen=True, slots=True)
class Job:
    """Train a network from `start` epochs (0: from scratch) until `until` epochs.

    Attributes:
        trial: number under which its reports come back.
        space: its architecture.
        method: how it is made ready, and whether its mask moves.
        densities: that it starts with.
        seed: of its initial weights, mask and order of data.
        start: epochs that are done.
        until: epochs to have in the end.
        key: names its checkpoints.
        mask_checksum: of the mask it was trained with before, "" from scratch.
        measured: whether the first epoch's report is to have the signals of the network before training.
    """

    trial: int
    space: SearchSpace
    method: Method
    densities: Densities
    seed: int
    start: int
    until: int
    key: str
    mask_checksum: str = ""
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a candidate that gives no more reports: status REFUSED or FAILED, and why."""

    trial: int
    status: Status
    reason: str


def checked(report: Report | Failure) -> Report | Failure:
    """The report, or the failure that it is where a number is NaN or infinite, whatever evaluator it comes from."""
    if isinstance(report, Failure):
        return report
    names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    wrong = [name for name in names if not math.isfinite(getattr(report, name))]
    if not wrong:
        return report
    reason = f"{wrong[0].replace('_', ' ')} is {getattr(report, wrong[0])} at epoch {report.epoch}"
    return Failure(report.trial, Status.FAILED, reason)


def candidate_key(number: int, repeat: int = 0) -> str:
    """Name of the checkpoints of a candidate, or of its `repeat`-th training on a fresh seed (1, 2 ...)."""
    return f"trial-{number}-repeat-{repeat}" if repeat else f"trial-{number}"


class Feed(Protocol):
    """Where an evaluator gets its work."""

    def next(self) -> Job | None:
        """The next job; None where there is none now. With jobs still out, ask again after their reports are taken;
        with none out, the search is over."""
        ...

    def ahead(self) -> Job | None:
        """A candidate for the next free slot, chosen while all slots are busy and so without their reports; None where
        there is none. For evaluators that would wait meanwhile: some strategies take longer than an epoch to choose."""
        ...


class Evaluator(Protocol):
    """Trains candidates and yields reports as they come."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """What is recorded with its reports where it is not as for the command's other trainings, and its name."""
        ...

    def run(self, feed: Feed) -> Iterator[Sequence[Report | Failure]]:
        """Work until the feed is dry.

        Yields reports, one per epoch of a job, which ends with the report of its last epoch or with a failure. Those
        that come together are filed together, or not at all if the process dies, in the order of their trials.
        """
        ...


class EvaluatorFactory(Protocol):
    """Makes an evaluator of a study."""

    def __call__(self, task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> Evaluator:
        """
        Args:
            task: what the study's networks share.
            checkpoints: where unfinished networks are kept.
            slots: how many networks to train at a time; None for what suits the machine.

        Raises:
            InputError: if the evaluator cannot train these networks, or not so many at a time.
        """
        ...


evaluators: Family[EvaluatorFactory] = Family(
    "evaluator",
    group="snas.evaluators",
    modules=(
        "snas.evaluators.serial",
        "snas.evaluators.stacked",
        "snas.evaluators.processes",
        "snas.evaluators.ray_tune",
        "snas.evaluators.auto",
    ),
)
