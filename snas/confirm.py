"""The candidates near the top, trained again on fresh seeds before one of them is named the winner.

A candidate's score in the search is a maximum over many noisy ones, and so too good: masks and initial weights are
random. Only scores of fresh seeds say which is best; and the winner's own are not reported either (see `finals.py`).
Fresh seed k is the same for all candidates, as a final seed is: what is luck of the initial weights and of the order of
data is common to them, and differences come from the densities.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from snas import pareto
from snas.conductor import candidate_of
from snas.encoding import Encoding
from snas.errors import SnasError
from snas.evaluators.base import Failure, Job, candidate_key
from snas.listener import Listener
from snas.objectives import costs_of
from snas.registry import Registry, Study, TrainingRecord
from snas.seeds import Stream, derive
from snas.trials import Report, Status

Scores = Mapping[int, float]
Costs = Mapping[int, tuple[float, ...]]


def search_scores(records: Sequence[TrainingRecord]) -> dict[int, float]:
    """Number -> validation accuracy in the search, of the candidates that are trained fully."""
    return {record.number: _accuracy(record) for record in records if record.status is Status.FINISHED}


def near_top(records: Sequence[TrainingRecord], most: int, *, costs: Costs) -> list[int]:
    """Numbers of the candidates to train again, best first: at most `most`.

    Those that are trained fully come first; where they are too few, the best of the highest rungs follow, for ASHA
    trains few to the end and lets noisy scores decide which. Scores of different lengths are not compared. A network
    that was found twice is trained again once.

    Args:
        records: the candidates.
        most: how many.
        costs: number -> what counts beside the accuracy; empty where nothing does. With costs, candidates of one length
            are chosen by front, and within a front those far from the others.
    """
    lengths: dict[int, list[TrainingRecord]] = {}
    for record in records:
        if record.status in (Status.FINISHED, Status.PAUSED) and record.reports:
            lengths.setdefault(record.epochs, []).append(record)
    found: list[int] = []
    for _, among in sorted(lengths.items(), reverse=True):
        scores = {record.number: _accuracy(record) for record in among}
        ordered = sorted(among, key=lambda record: _key(record, scores))
        found += _by_front(scores, costs) if costs else [record.number for record in ordered]
    return _different(found, records)[:most]


class Repeats:
    """Hands out trainings of chosen candidates on fresh seeds, and files them; a feed as the search itself is."""

    def __init__(
        self,
        registry: Registry,
        study: Study,
        *,
        encoding: Encoding,
        chosen: Sequence[int],
        seeds: int,
        seed: int,
        epochs: int,
        listener: Listener,
    ) -> None:
        """Take up what is left to do: first all candidates on the first fresh seed, then on the second, and so on.

        Args:
            registry: where records are.
            study: of the candidates.
            encoding: what their points stand for.
            chosen: their numbers.
            seeds: fresh seeds for each.
            seed: of the study.
            epochs: of a full training.
            listener: hears of progress.
        """
        self._registry = registry
        self._study = study
        self._encoding = encoding
        self._seed = seed
        self._listener = listener
        self._epochs = epochs
        self._known = {record.number: record for record in registry.candidates(study)}
        self._started = {(record.number, record.repeat): record for record in registry.repeats(study)}
        wanted = [(number, repeat) for repeat in range(1, seeds + 1) for number in chosen]
        ended = {place for place, record in self._started.items() if record.status is not Status.RUNNING}
        self._queue = [place for place in wanted if place not in ended]
        self._out: dict[int, tuple[int, int]] = {}
        self.epochs_trained = sum(record.epochs for record in (*self._known.values(), *self._started.values()))

    def next(self) -> Job | None:
        """The next training; None where there is none left."""
        if not self._queue:
            return None
        number, repeat = self._queue.pop(0)
        known, record = self._known[number], self._started.get((number, repeat))
        seed = derive(self._seed, Stream.REPEAT, repeat)
        identity = record.id if record else self._add(known, repeat, seed)
        start = record.epochs if record else 0
        checksum = (record.mask_checksum or "") if record and start else ""
        candidate = candidate_of(self._encoding, known)
        self._out[identity] = number, repeat
        self._listener.on_repeat(number, repeat=repeat, start=start, until=self._epochs)
        return Job(
            identity,
            candidate.space,
            candidate.method,
            candidate.densities,
            seed=seed,
            start=start,
            until=self._epochs,
            key=candidate_key(number, repeat),
            mask_checksum=checksum,
        )

    def ahead(self) -> None:
        """Nothing: what there is to train is known, and costs nothing to choose."""

    def take(self, reports: Sequence[Report | Failure]) -> None:
        """File reports and failures in the registry, all or none; then tell the listener. Late ones change nothing."""
        with self._registry.together():
            filed = [report for report in reports if self._file(report)]
        for report in filed:
            number, repeat = self._out[report.trial]
            if isinstance(report, Failure):
                self._listener.on_failure(number, report.status, f"on fresh seed {repeat}: {report.reason}")
                continue
            self.epochs_trained += 1
            told = replace(report, trial=number)
            self._listener.on_repeat_report(number, repeat, told, epochs_trained=self.epochs_trained)

    def _file(self, report: Report | Failure) -> bool:
        """Store a report or failure; says whether it was news."""
        if isinstance(report, Failure):
            return self._registry.set_status(report.trial, report.status, reason=report.reason)
        status = Status.FINISHED if report.epoch >= self._epochs else Status.RUNNING
        return self._registry.record(report.trial, report, status=status)

    def _add(self, record: TrainingRecord, repeat: int, seed: int) -> int:
        point = np.zeros(0) if record.point is None else record.point
        return self._registry.add_candidate(
            self._study, record.number, seed=seed, point=point, kept=record.kept, traits=record.traits, repeat=repeat
        )


def scores_of(registry: Registry, study: Study, *, seeds: int) -> dict[int, float]:
    """Candidate -> validation accuracy that it is judged by: its mean over the first `seeds` fresh seeds.

    Those count that were trained on all these seeds, now or before the study grew. A seed may be refused or fail: of
    the candidates only those with the fewest such seeds count, with the mean over the seeds that all of them have
    (where there is none, each over its own). Where no candidate was to be trained again (`seeds` is 0, or there is only
    one), scores in the search count, of full trainings.

    Raises:
        SnasError: if no candidate was trained fully, or none near the top on a fresh seed.
    """
    records = registry.candidates(study)
    found = search_scores(records)
    if not found:
        raise _nothing(f"none of {len(records)} candidates of study {study.name!r} could be trained", records)
    fresh: dict[int, list[TrainingRecord]] = {}
    for record in registry.repeats(study):
        if record.repeat <= seeds and record.status is not Status.RUNNING:
            fresh.setdefault(record.number, []).append(record)
    whole = {number: runs for number, runs in fresh.items() if len(runs) == seeds}
    if not whole:
        return found
    accuracies = {
        number: {run.repeat: _accuracy(run) for run in runs if run.status is Status.FINISHED}
        for number, runs in whole.items()
    }
    most = max(len(values) for values in accuracies.values())
    if not most:
        what = f"none of {len(whole)} candidates near the top of study {study.name!r} could be trained on a fresh seed"
        raise _nothing(what, [run for runs in whole.values() for run in runs])
    best = {number: values for number, values in accuracies.items() if len(values) == most}
    shared = set.intersection(*(set(values) for values in best.values()))  # a seed's luck is to be everybody's
    return {number: statistics.fmean(values[seed] for seed in shared or values) for number, values in best.items()}


def best_of(records: Sequence[TrainingRecord], scores: Scores) -> TrainingRecord:
    """The one with the highest score; of equal ones the smallest, then the earlier."""
    return min(_among(records, scores), key=lambda record: _key(record, scores))


def front_of(records: Sequence[TrainingRecord], scores: Scores, costs: Costs, *, most: int) -> list[TrainingRecord]:
    """Those that no other outdoes in score and costs, the best score first; where they are more than `most`, those far
    from the others."""
    order = _different(_by_front(scores, costs), records)
    values = _values(order, scores, costs)
    first = [number for number, level in zip(order, pareto.fronts(values), strict=True) if level == 0]
    chosen = set(first[:most])
    return sorted((one for one in records if one.number in chosen), key=lambda one: _key(one, scores))


def costs_by_number(records: Sequence[TrainingRecord], encoding: Encoding, objectives: tuple[str, ...]) -> Costs:
    """Number -> what each candidate costs; empty where only the accuracy counts."""
    if not objectives:
        return {}
    return {record.number: costs_of(candidate_of(encoding, record).densities, objectives) for record in records}


def _by_front(scores: Scores, costs: Costs) -> list[int]:
    """Numbers by front of score and costs, within a front the lonelier first."""
    numbers = sorted(scores)
    return [numbers[place] for place in pareto.order(_values(numbers, scores, costs))]


def _different(numbers: Sequence[int], records: Sequence[TrainingRecord]) -> list[int]:
    """The numbers without those whose densities, rules and shape an earlier one has.

    Candidates of registries before format 3 do not tell their rules, and all count as different.
    """
    traits = {record.number: {**record.traits, "origin": ""} for record in records if "rule" in record.traits}
    kept = {record.number: dict(record.kept) for record in records}
    seen: dict[str, int] = {}
    for number in numbers:
        what = [number] if number not in traits else [traits[number], kept[number]]
        seen.setdefault(json.dumps(what, sort_keys=True), number)
    return list(seen.values())


def _values(numbers: Sequence[int], scores: Scores, costs: Costs) -> list[list[float]]:
    return [[scores[number], *(-cost for cost in costs[number])] for number in numbers]


def _among(records: Sequence[TrainingRecord], scores: Scores) -> list[TrainingRecord]:
    return [record for record in records if record.number in scores]


def _key(record: TrainingRecord, scores: Scores) -> tuple[float, int, int]:
    """What candidates are sorted by, best first."""
    return -scores[record.number], sum(record.kept.values()), record.number


def _accuracy(record: TrainingRecord) -> float:
    return record.reports[-1].validation_accuracy


def _nothing(what: str, records: Sequence[TrainingRecord]) -> SnasError:
    failed = [record for record in records if record.reason]
    return SnasError(f"{what}; candidate {failed[0].number}: {failed[0].reason}" if failed else what)
