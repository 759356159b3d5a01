"""What the registry keeps, as frozen data classes, and how a row of its tables becomes one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snas.trials import Point, Report, Status, Trial

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
    return Study(
        id=row["id"],
        name=row["name"],
        identity=json.loads(row["identity"]),
        samples=row["samples"],
        environment=json.loads(row["environment"]),
        created=row["created"],
    )


def read_entry(row: sqlite3.Row) -> Entry:
    """A row of `entries`."""
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - sqlite3.Row iterates over values
    for key in ("space", "dataset", "rule", "kept", "environment"):
        values[key] = json.loads(values[key])
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
    return TrainingRecord(
        id=row["id"],
        number=row["number"],
        seed=row["seed"],
        status=Status(row["status"]),
        reason=row["reason"],
        kept=json.loads(row["kept"]),
        mask_checksum=row["mask_checksum"],
        point=None if row["point"] is None else np.asarray(json.loads(row["point"]), dtype=np.float64),
        traits=json.loads(row["traits"]),
        signals=json.loads(row["signals"]),
        repeat=row["repeat"],
        test_loss=row["test_loss"],
        test_accuracy=row["test_accuracy"],
        reports=tuple(reports),
    )


def as_trial(record: TrainingRecord, costs: tuple[float, ...] = ()) -> Trial:
    """A candidate as strategies see it: its score is the validation accuracy."""
    point = np.zeros(0) if record.point is None else record.point
    scores = {report.epoch: report.validation_accuracy for report in record.reports}
    given = record.traits.get("origin", OWN) != OWN
    return Trial(record.number, point, record.status, scores, sum(record.kept.values()), costs, given)
