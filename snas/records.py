"""What the registry keeps, as frozen data classes, and how a row of its tables becomes one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from snas.errors import InputError
from snas.record_checks import (
    check_entry,
    check_identity,
    check_report,
    check_training,
    check_whole,
    parse,
    parse_object,
)
from snas.trials import Point, Report, Status, Trial

_MEASURED = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds")
OWN = "strategy"  # the origin of a candidate that the strategy proposed


@dataclass(frozen=True, slots=True)
class Study:
    """A search as the registry knows it. `identity` is what must not change when it is resumed."""

    id: int
    name: str
    identity: Mapping[str, Any]
    samples: int
    environment: Mapping[str, Any]
    created: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the leaderboard: an architecture, how it is trained, and where it came from. `id` is 0 until stored.

    An entry of kind "cited" is a published figure: it has `source` and the `cited_` fields (fractions in [0, 1]), and
    no layers, rule or environment; numbers of weights that its source does not tell are 0.
    """

    key: str
    name: str
    kind: str
    method: str
    space: Mapping[str, Any]
    dataset: Mapping[str, Any]
    rule: Mapping[str, Any]
    mask_rule: str
    seed: int
    kept_weights: int
    total_weights: int
    environment: Mapping[str, Any]
    kept: Mapping[str, int] = field(default_factory=dict)
    strategy: str = ""
    candidate: int | None = None
    search_epochs: int = 0
    search_seconds: float = 0.0
    study_id: int | None = None
    id: int = 0
    created: str = ""
    superseded: int = 0
    source: str = ""
    cited_density: float | None = None
    cited_accuracy: float | None = None
    cited_std: float | None = None
    cited_seeds: int | None = None

    @property
    def cited(self) -> bool:
        """Whether it is a published figure: nothing of it was trained here, and nothing of it can be."""
        return self.kind == "cited"


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """One network in training, with its reports in the order of epochs.

    Of a candidate, `traits` tells what it is beside its densities: "rule" (of mask and training), "shape" (searched
    arguments of the space), "origin" (who proposed it); `signals` what was measured before training. `repeat` is 0 for
    the candidate itself, 1, 2 ... where it was trained again on a fresh seed.
    """

    id: int
    number: int
    seed: int
    status: Status
    reason: str | None
    kept: Mapping[str, int]
    mask_checksum: str | None
    point: Point | None
    traits: Mapping[str, Any]
    signals: Mapping[str, float]
    repeat: int
    test_loss: float | None
    test_accuracy: float | None
    reports: tuple[Report, ...]

    @property
    def epochs(self) -> int:
        """Epochs trained so far."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def validation_accuracy(self) -> float | None:
        """Validation accuracy after the last epoch."""
        return self.reports[-1].validation_accuracy if self.reports else None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One cell of a study's grid, measured; `result` is empty where it was refused or failed for `reason`."""

    study: str
    key: str
    cell: Mapping[str, Any]
    result: Mapping[str, Any]
    reason: str | None
    seconds: float
    environment: Mapping[str, Any]


def read_measurement(row: sqlite3.Row) -> Measurement:
    """A row of `measurements` with the content of its environment."""
    return Measurement(
        study=row["study"],
        key=row["key"],
        cell=json.loads(row["cell"]),
        result=json.loads(row["result"]),
        reason=row["reason"],
        seconds=row["seconds"],
        environment=json.loads(row["content"] or "{}"),
    )


def dump(value: Any) -> str:
    """Plain values as the registry's JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=False, allow_nan=False)


def read_study(row: sqlite3.Row) -> Study:
    """A row of `studies`."""
    with _readable("study", row):
        values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - sqlite3.Row iterates over values
        for key in ("identity", "environment"):
            values[key] = parse_object(values[key], key)
        known = {field.name: values[field.name] for field in fields(Study)}
        return Study(**known)


def read_entry(row: sqlite3.Row) -> Entry:
    """A row of `entries`."""
    with _readable("row", row):
        values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - sqlite3.Row iterates over values
        for key in ("space", "dataset", "rule", "kept", "environment"):
            values[key] = parse_object(values[key], key)
        check_entry(values)
        return Entry(**values)


def entry_columns(entry: Entry) -> dict[str, Any]:
    """An entry as the columns of a new row of `entries`; its id and date are the registry's to give."""
    maps = {key: dump(getattr(entry, key)) for key in ("space", "dataset", "rule", "kept", "environment")}
    plain = (
        *("study_id", "key", "name", "kind", "method", "strategy", "mask_rule", "seed", "kept_weights"),
        *("total_weights", "candidate", "search_epochs", "search_seconds", "source"),
        *("cited_density", "cited_accuracy", "cited_std", "cited_seeds"),
    )
    return {key: getattr(entry, key) for key in plain} | maps


def read_training(row: sqlite3.Row, reports: Sequence[Report]) -> TrainingRecord:
    """A row of `trainings` with its reports."""
    with _readable("training", row):
        values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - sqlite3.Row iterates over values
        for key in ("kept", "traits", "signals"):
            values[key] = parse_object(values[key], key)
        values["point"] = None if values["point"] is None else parse(values["point"], "point")
        check_training(values)
        for report in reports:
            check_report({name: getattr(report, name) for name in _MEASURED})
        point = values["point"]
        return TrainingRecord(
            id=values["id"],
            number=values["number"],
            seed=values["seed"],
            status=Status(values["status"]),
            reason=values["reason"],
            kept=values["kept"],
            mask_checksum=values["mask_checksum"],
            point=None if point is None else np.asarray(point, dtype=np.float64),
            traits=values["traits"],
            signals=values["signals"],
            repeat=values["repeat"],
            test_loss=values["test_loss"],
            test_accuracy=values["test_accuracy"],
            reports=tuple(reports),
        )


def require_whole(entry: Entry) -> Entry:
    """The row, which has all that figures are made of; raises InputError where it lacks something."""
    try:
        check_whole(entry)
    except ValueError as error:
        raise _damaged("row", entry.id, error) from error
    return entry


def require_identity(study: Study) -> Study:
    """The study, of which is known what its candidates have in common; raises InputError where it is not."""
    try:
        check_identity(study.identity)
    except ValueError as error:
        raise _damaged("study", study.id, error) from error
    return study


@contextmanager
def _readable(what: str, row: sqlite3.Row) -> Iterator[None]:
    """Say of a row that is not as it is written which one it is, and what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise _damaged(what, row["id"] if "id" in row.keys() else None, error) from error  # noqa: SIM118
    except (KeyError, TypeError) as error:  # a column has another name
        raise _damaged(what, None, error) from error


def require_columns(rows: Sequence[sqlite3.Row], *names: str) -> None:
    """Raise InputError if the rows lack a column: its name may have been changed by what damaged the file."""
    missing = [name for name in names if rows and name not in rows[0].keys()]  # noqa: SIM118
    if missing:
        raise _damaged("table", None, KeyError(missing[0]))


def _damaged(what: str, number: Any, error: Exception) -> InputError:
    place = number if isinstance(number, int) else "?"
    error = error if isinstance(error, ValueError) else ValueError(f"column {error} is not as we make it")
    return InputError(f"the registry is damaged, or not ours: {what} {place}: {error}; name another with --registry")


def as_trial(record: TrainingRecord, costs: tuple[float, ...] = ()) -> Trial:
    """A candidate as strategies see it: its score is the validation accuracy."""
    point = np.zeros(0) if record.point is None else record.point
    scores = {report.epoch: report.validation_accuracy for report in record.reports}
    given = record.traits.get("origin", OWN) != OWN
    return Trial(record.number, point, record.status, scores, sum(record.kept.values()), costs, given)
