"""The feed of a search: what to train next, derived from the registry's records alone, so that resuming is starting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from snas.densities import Densities
from snas.encoding import Candidate, Encoding
from snas.errors import SnasError
from snas.evaluators.asha import Ladder
from snas.evaluators.base import Failure, Job, candidate_key
from snas.listener import Listener
from snas.objectives import costs_of
from snas.records import OWN
from snas.registry import Registry, Study, TrainingRecord, as_trial
from snas.seeds import Stream, derive, numpy_generator
from snas.strategies.base import Strategy
from snas.trials import Point, Report, Status, Trial
from snas.warm_starts import Start, turn_of


class Screen(Protocol):
    """Chooses among proposals before any is trained. It decides by the registry alone."""

    def proposals(self) -> int:
        """How many points the strategy is to be asked for now; 1 where nothing is to be chosen."""
        ...

    def best(self, candidates: Sequence[Candidate], *, seed: int) -> int:
        """Index of the most promising candidate, were it trained with `seed`."""
        ...


class Conductor:
    """Hands out jobs and files what comes of them; implements `snas.evaluators.base.Feed`."""

    def __init__(
        self,
        registry: Registry,
        study: Study,
        *,
        encoding: Encoding,
        strategy: Strategy,
        ladder: Ladder,
        seed: int,
        listener: Listener,
        objectives: tuple[str, ...] = (),
        starts: Sequence[Start] = (),
        screen: Screen | None = None,
    ) -> None:
        """Take the study up where its records leave it.

        Args:
            registry: where they are.
            study: that is searched.
            encoding: what points stand for.
            strategy: proposes points.
            ladder: who goes on.
            seed: of the study.
            listener: hears of everything.
            objectives: costs that count beside the accuracy.
            starts: where they come from and the points that are tried before the strategy is asked, and between.
            screen: chooses among several points that the strategy is asked for.
        """
        self._registry = registry
        self._study = study
        self._encoding = encoding
        self._strategy = strategy
        self._ladder = ladder
        self._seed = seed
        self._listener = listener
        self._objectives = objectives
        self._starts = starts
        self._screen = screen
        records = registry.candidates(study)
        self.candidates: list[Candidate] = [candidate_of(encoding, record) for record in records]
        self.history: list[Trial] = [
            replace(
                as_trial(record, costs_of(candidate.densities, objectives)), bracket=ladder.bracket_of(record.number)
            )
            for record, candidate in zip(records, self.candidates, strict=True)
        ]
        self._ids = [record.id for record in records]
        self._seeds = [record.seed for record in records]
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
        if (job := self._interrupted()) is not None:
            return job
        if (promotion := self._ladder.next_promotion(self.history)) is not None:
            return self._promote(*promotion)
        while len(self.history) < self._study.samples:
            number = self._propose()
            if self.history[number].status is Status.RUNNING:
                return self._job(number, self._ladder.next_rung(0, number))
        if not self._out and (promotion := self._ladder.last_resort(self.history)) is not None:
            return self._promote(*promotion)
        return None

    def ahead(self) -> Job | None:
        """A new candidate, or one that a crash interrupted when it had been chosen ahead. It is recorded at once, so
        that a search that is resumed goes on with it."""
        if (job := self._interrupted()) is not None:
            return job
        if len(self.history) >= self._study.samples:
            return None
        number = self._propose()
        refused = self.history[number].status is not Status.RUNNING
        return None if refused else self._job(number, self._ladder.next_rung(0, number))

    def _interrupted(self) -> Job | None:
        """A job that was handed out in an earlier process and has not ended."""
        for trial in self.history:
            if trial.status is Status.RUNNING and trial.number not in self._out:
                return self._job(trial.number, self._ladder.next_rung(trial.epochs, trial.number))
        return None

    def take(self, reports: Sequence[Report | Failure]) -> None:
        """File reports and failures in the registry, all or none; then tell the listener. Late ones change nothing."""
        with self._registry.together():
            filed = [report for report in reports if self._file(report)]
        for report in filed:
            self._take_note(report)

    def _file(self, report: Report | Failure) -> bool:
        """Store a report or failure; says whether it was news."""
        training_id = self._ids[report.trial]
        if isinstance(report, Failure):
            return self._registry.set_status(training_id, report.status, reason=report.reason)
        return self._registry.record(training_id, report, status=self._status_after(report))

    def _take_note(self, report: Report | Failure) -> None:
        """Remember what was filed, and tell the listener."""
        number = report.trial
        if isinstance(report, Failure):
            self._update(number, report.status)
            self._out.discard(number)
            self._listener.on_failure(number, report.status, report.reason)
            return
        status = self._status_after(report)
        self._checksums[number] = report.mask_checksum
        self._update(number, status, {report.epoch: report.validation_accuracy})
        if status is not Status.RUNNING:
            self._out.discard(number)
        self._listener.on_report(report, best=self.best_score, epochs_trained=self.epochs_trained)

    def _status_after(self, report: Report) -> Status:
        if report.epoch >= self._ladder.maximum:
            return Status.FINISHED
        return Status.PAUSED if report.epoch in self._ladder.rungs_of(report.trial) else Status.RUNNING

    def _propose(self) -> int:
        """Choose one candidate and file it; one that empties a layer is refused here and now."""
        number = len(self.history)
        seed = derive(self._seed, Stream.CANDIDATE, number)
        origin, point = self._next_point(number, seed)
        candidate = self._encoding.decode(point)
        densities = candidate.densities
        self._ids.append(
            self._registry.add_candidate(
                self._study,
                number,
                seed=seed,
                point=point,
                kept=densities.counts,
                traits=self._encoding.traits(candidate) | {"origin": origin},
            )
        )
        self._seeds.append(seed)
        self.candidates.append(candidate)
        self._checksums.append("")
        costs = costs_of(densities, self._objectives)
        given = origin != OWN
        self.history.append(
            Trial(
                number,
                point,
                kept_weights=densities.kept_weights,
                costs=costs,
                given=given,
                bracket=self._ladder.bracket_of(number),
            )
        )
        if densities.empty_layers:
            reason = f"layer {densities.empty_layers[0]!r} keeps none of its weights"
            self.take([Failure(number, Status.REFUSED, reason)])
        return number

    def _next_point(self, number: int, seed: int) -> Start:
        """Where the next point comes from, and the point."""
        turn = turn_of(number)
        if turn is not None and turn < len(self._starts):
            origin, point = self._starts[turn]
            return origin, self._encoding.canonical(point)
        rng = numpy_generator(self._seed, Stream.PROPOSAL, number)
        wanted = self._screen.proposals() if self._screen else 1
        points = [self._encoding.canonical(point) for point in self._ask(wanted, rng)]
        if self._screen is None or wanted == 1:
            return OWN, points[0]
        return OWN, points[self._screen.best([self._encoding.decode(point) for point in points], seed=seed)]

    def _ask(self, n: int, rng: np.random.Generator) -> list[Point]:
        """Ask the strategy for points and check what comes."""
        dimensions = self._encoding.dimensions
        proposed = self._strategy.ask(list(self.history), n, dimensions=dimensions, rng=rng)
        name = type(self._strategy).__name__
        if len(proposed) != n:
            raise SnasError(f"strategy {name} proposed {len(proposed)} points; expected {n}")
        points = [np.array(point, dtype=np.float64) for point in proposed]
        for point in points:
            if point.shape != (dimensions,) or not ((point >= 0) & (point <= 1)).all():
                raise SnasError(
                    f"strategy {name} proposed a point of shape {point.shape}, from {point.min(initial=1)} to "
                    f"{point.max(initial=0)}; expected shape ({dimensions},), entries in [0, 1]"
                )
        return points

    def _promote(self, number: int, until: int) -> Job:
        self._registry.set_status(self._ids[number], Status.RUNNING)
        self._update(number, Status.RUNNING)
        return self._job(number, until)

    def _job(self, number: int, until: int) -> Job:
        self._out.add(number)
        candidate, start = self.candidates[number], self.history[number].epochs
        densities = candidate.densities
        self._listener.on_candidate(
            number, kept_weights=densities.kept_weights, density=densities.density, start=start, until=until
        )
        return Job(
            number,
            candidate.space,
            candidate.method,
            densities,
            seed=self._seeds[number],
            start=start,
            until=until,
            key=candidate_key(number),
            mask_checksum=self._checksums[number] if start else "",
            measured=True,
        )

    def _update(self, number: int, status: Status, scores: dict[int, float] | None = None) -> None:
        trial = self.history[number]
        self.history[number] = replace(trial, status=status, scores={**trial.scores, **(scores or {})})


def candidate_of(encoding: Encoding, record: TrainingRecord) -> Candidate:
    """The candidate that a record is of: what its point stands for, with the recorded numbers of weights."""
    point = np.zeros(0) if record.point is None else record.point
    decoded = encoding.decode(point)
    return replace(decoded, densities=Densities.from_counts(decoded.space.layers, record.kept))
