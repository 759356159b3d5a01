"""The feed of a search: what to train next, derived from the registry's records alone, so that resuming is starting."""

from __future__ import annotations

import numpy as np

from snas.densities import Densities
from snas.errors import SnasError
from snas.evaluators.asha import Ladder
from snas.evaluators.base import Failure, Job
from snas.listener import Listener
from snas.registry import Registry, Study, TrainingRecord, as_trial
from snas.search_spaces.base import SearchSpace
from snas.seeds import Stream, derive, numpy_generator
from snas.strategies.base import Strategy
from snas.trials import Point, Report, Status, Trial


class Conductor:
    """Hands out jobs and files what comes of them; implements `snas.evaluators.base.Feed`."""

    def __init__(
        self,
        registry: Registry,
        study: Study,
        *,
        space: SearchSpace,
        strategy: Strategy,
        ladder: Ladder,
        seed: int,
        listener: Listener,
    ) -> None:
        self._registry = registry
        self._study = study
        self._space = space
        self._strategy = strategy
        self._ladder = ladder
        self._seed = seed
        self._listener = listener
        records = registry.candidates(study)
        self.history: list[Trial] = [as_trial(record) for record in records]
        self._ids = [record.id for record in records]
        self._seeds = [record.seed for record in records]
        self._densities = [_densities(space, record) for record in records]
        self._checksums = [record.mask_checksum or "" for record in records]
        self._out: set[int] = set()

    @property
    def epochs_trained(self) -> int:
        """Epochs of all candidates so far."""
        return sum(trial.epochs for trial in self.history)

    @property
    def best_score(self) -> float:
        """Best validation accuracy seen at any epoch."""
        return max((score for trial in self.history for score in trial.scores.values()), default=0.0)

    def next(self) -> Job | None:
        """The next job: one that a crash interrupted, else a promotion, else a new candidate."""
        for trial in self.history:
            if trial.status is Status.RUNNING and trial.number not in self._out:
                return self._job(trial.number, self._ladder.next_rung(trial.epochs))
        if (promotion := self._ladder.next_promotion(self.history)) is not None:
            return self._promote(*promotion)
        while len(self.history) < self._study.samples:
            number = self._propose()
            if self.history[number].status is Status.RUNNING:
                return self._job(number, self._ladder.next_rung(0))
        if not self._out and (promotion := self._ladder.last_resort(self.history)) is not None:
            return self._promote(*promotion)
        return None

    def take(self, report: Report | Failure) -> None:
        """File a report or failure in the registry, then tell the listener."""
        number = report.trial
        if isinstance(report, Failure):
            self._registry.set_status(self._ids[number], report.status, reason=report.reason)
            self._update(number, report.status)
            self._out.discard(number)
            self._listener.on_failure(number, report.status, report.reason)
            return
        status = self._status_after(report)
        self._registry.record(self._ids[number], report, status=status)
        self._checksums[number] = report.mask_checksum
        self._update(number, status, {report.epoch: report.validation_accuracy})
        if status is not Status.RUNNING:
            self._out.discard(number)
        self._listener.on_report(report, best=self.best_score, epochs_trained=self.epochs_trained)

    def _status_after(self, report: Report) -> Status:
        if report.epoch >= self._ladder.maximum:
            return Status.FINISHED
        return Status.PAUSED if report.epoch in self._ladder.rungs else Status.RUNNING

    def _propose(self) -> int:
        """Ask the strategy for one candidate and file it; one that empties a layer is refused here and now."""
        number = len(self.history)
        rng = numpy_generator(self._seed, Stream.PROPOSAL, number)
        point = self._ask(rng)
        densities = self._space.densities(point)
        seed = derive(self._seed, Stream.CANDIDATE, number)
        self._ids.append(
            self._registry.add_candidate(self._study, number, seed=seed, point=point, kept=densities.counts)
        )
        self._seeds.append(seed)
        self._densities.append(densities)
        self._checksums.append("")
        self.history.append(Trial(number, point, Status.RUNNING, {}, densities.kept_weights))
        if densities.empty_layers:
            reason = f"layer {densities.empty_layers[0]!r} keeps none of its weights"
            self.take(Failure(number, Status.REFUSED, reason))
        return number

    def _ask(self, rng: np.random.Generator) -> Point:
        """Ask the strategy for one point and check what comes."""
        points = self._strategy.ask(list(self.history), 1, dimensions=self._space.dimensions, rng=rng)
        name = type(self._strategy).__name__
        if len(points) != 1:
            raise SnasError(f"strategy {name} proposed {len(points)} points; expected 1")
        point = np.array(points[0], dtype=np.float64)
        if point.shape != (self._space.dimensions,) or not ((point >= 0) & (point <= 1)).all():
            raise SnasError(
                f"strategy {name} proposed a point of shape {point.shape}, from {point.min(initial=1)} to "
                f"{point.max(initial=0)}; expected shape ({self._space.dimensions},), entries in [0, 1]"
            )
        return point

    def _promote(self, number: int, until: int) -> Job:
        self._registry.set_status(self._ids[number], Status.RUNNING)
        self._update(number, Status.RUNNING)
        return self._job(number, until)

    def _job(self, number: int, until: int) -> Job:
        self._out.add(number)
        densities, start = self._densities[number], self.history[number].epochs
        self._listener.on_candidate(
            number, kept_weights=densities.kept_weights, density=densities.density, start=start, until=until
        )
        checksum = self._checksums[number] if start else ""
        return Job(number, densities, seed=self._seeds[number], start=start, until=until, mask_checksum=checksum)

    def _update(self, number: int, status: Status, scores: dict[int, float] | None = None) -> None:
        trial = self.history[number]
        self.history[number] = Trial(
            number, trial.point, status, {**trial.scores, **(scores or {})}, trial.kept_weights
        )


def _densities(space: SearchSpace, record: TrainingRecord) -> Densities:
    return Densities.from_counts(space.layers, record.kept)
