"""The one truth about studies, candidates, epochs and results: one SQLite file, written before anything is shown.

Every write is one transaction, flushed to disk (write-ahead log, full synchronization), so that a crash at any point
loses at most the epoch in flight. Masks are not stored: seed and rule reproduce them, and a checksum proves it.
"""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from snas.errors import InputError, SnasError
from snas.schema import APPLICATION_ID, MIGRATIONS
from snas.trials import Point, Report, Status, Trial

_REPORT_COLUMNS = "epoch, train_loss, train_accuracy, validation_loss, validation_accuracy, seconds"


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
    """A row of the leaderboard: an architecture, how it is trained, and where it came from. `id` is 0 until stored."""

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


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """One network in training, with its reports in the order of epochs."""

    id: int
    number: int
    seed: int
    status: Status
    reason: str | None
    kept: Mapping[str, int]
    mask_checksum: str | None
    point: Point | None
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


class Registry:
    """A registry file, opened for reading and writing; made if there is none.

    Raises:
        InputError: if the file is no snas registry, was written by a newer version, or cannot be opened.
    """

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        self.path = Path(path)
        self._environment: int | None = None
        if not self.path.exists() and not create:
            raise InputError(f"no registry at {self.path}; run snas search first or name another with --registry")
        if len(self.path.name.encode()) > 240:
            raise InputError(
                f"registry {self.path.name[:40]}... has a name of {len(self.path.name)} characters; at most 240"
            )
        if not self.path.parent.is_dir():
            raise InputError(f"cannot open registry {self.path}: folder {self.path.parent} does not exist")
        if self.path.is_dir():
            raise InputError(f"cannot open registry {self.path}: it is a folder; name a file")
        try:
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._open()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def files(self) -> Path:
        """Folder beside the registry for checkpoints of unfinished networks."""
        return self.path.with_name(self.path.name + ".files")

    def use_environment(self, environment: Mapping[str, Any]) -> None:
        """Note with every epoch recorded from now on where it was trained: versions, device, threads."""
        content = _dump(environment)
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO environments (content) VALUES (?)", (content,))
        self._environment = self._query("SELECT id FROM environments WHERE content = ?", content)[0]["id"]

    def environments(self, entry: Entry) -> list[Mapping[str, Any]]:
        """Where the epochs of an entry's networks were trained."""
        rows = self._query(
            "SELECT DISTINCT content FROM environments JOIN reports ON environment_id = environments.id "
            "JOIN trainings ON trainings.id = training_id WHERE entry_id = ? ORDER BY environments.id",
            entry.id,
        )
        return [json.loads(row["content"]) for row in rows]

    # Studies and candidates

    def studies(self) -> list[Study]:
        """All studies, oldest first."""
        return [_study(row) for row in self._query("SELECT * FROM studies ORDER BY id")]

    def find_study(self, name: str) -> Study | None:
        """The study called `name`, or None."""
        rows = self._query("SELECT * FROM studies WHERE name = ?", name)
        return _study(rows[0]) if rows else None

    def add_study(
        self, name: str, *, identity: Mapping[str, Any], samples: int, environment: Mapping[str, Any]
    ) -> Study:
        """Store a new study."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO studies (name, created, identity, samples, environment) VALUES (?, ?, ?, ?, ?)",
                (name, _now(), _dump(identity), samples, _dump(environment)),
            )
        study = self.find_study(name)
        if study is None:
            raise SnasError(f"study {name!r} was written to {self.path} but cannot be read back")
        return study

    def set_samples(self, study: Study, samples: int) -> Study:
        """Change how many candidates a study is to try."""
        with self._transaction():
            self._db.execute("UPDATE studies SET samples = ? WHERE id = ?", (samples, study.id))
        return replace(study, samples=samples)

    def add_candidate(self, study: Study, number: int, *, seed: int, point: Point, kept: Mapping[str, int]) -> int:
        """Store a proposed candidate; returns its training id."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO trainings (study_id, number, seed, point, kept, status, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (study.id, number, seed, _dump(point.tolist()), _dump(kept), Status.RUNNING, _now()),
            )
        return int(cursor.lastrowid or 0)

    def study_of(self, entry: Entry) -> Study | None:
        """The study that an entry came from, or None."""
        rows = self._query("SELECT * FROM studies WHERE id = ?", entry.study_id)
        return _study(rows[0]) if rows else None

    def candidates(self, study: Study) -> list[TrainingRecord]:
        """All candidates of a study in the order of their numbers."""
        return self._trainings("study_id", study.id)

    # Entries and their seeds

    def add_entry(self, entry: Entry) -> Entry:
        """Store an entry, or return the one that is stored under its key."""
        columns = (
            "study_id, key, name, kind, method, space, dataset, rule, strategy, mask_rule, seed, kept_weights, "
            "total_weights, kept, candidate, search_epochs, search_seconds, environment, created"
        )
        values = (
            *(entry.study_id, entry.key, entry.name, entry.kind, entry.method),
            *(_dump(entry.space), _dump(entry.dataset), _dump(entry.rule)),
            *(entry.strategy, entry.mask_rule, entry.seed, entry.kept_weights, entry.total_weights),
            *(
                _dump(entry.kept),
                entry.candidate,
                entry.search_epochs,
                entry.search_seconds,
                _dump(entry.environment),
                _now(),
            ),
        )
        with self._transaction():
            self._db.execute(
                f"INSERT OR IGNORE INTO entries ({columns}) VALUES ({', '.join('?' * len(values))})", values
            )
        return _entry(self._query("SELECT * FROM entries WHERE key = ?", entry.key)[0])

    def set_search_cost(self, entry: Entry, *, epochs: int, seconds: float) -> Entry:
        """Update what the search for an entry took; a resumed search has cost more."""
        with self._transaction():
            self._db.execute(
                "UPDATE entries SET search_epochs = ?, search_seconds = ? WHERE id = ?", (epochs, seconds, entry.id)
            )
        return replace(entry, search_epochs=epochs, search_seconds=seconds)

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return [_entry(row) for row in self._query("SELECT * FROM entries ORDER BY id")]

    def find_entry(self, entry_id: int) -> Entry:
        """The entry with this id; InputError where there is none."""
        number = operator.index(entry_id)
        rows = self._query("SELECT * FROM entries WHERE id = ?", number) if 0 < number < 2**63 else []
        if not rows:
            raise InputError(f"no row {entry_id} in {self.path}; snas leaderboard lists the ids")
        return _entry(rows[0])

    def supersede(self, study: Study, current: Sequence[Entry]) -> None:
        """Mark the study's entries that are not `current`: a study that grew may have another winner."""
        kept = [entry.id for entry in current]
        marks = ", ".join("?" * len(kept))
        with self._transaction():
            self._db.execute(
                f"UPDATE entries SET superseded = id NOT IN ({marks}) "
                "WHERE study_id = ? AND key NOT LIKE '% @epochs %'",
                (*kept, study.id),
            )

    def find_key(self, key: str) -> Entry | None:
        """The entry stored under `key`, or None."""
        rows = self._query("SELECT * FROM entries WHERE key = ?", key)
        return _entry(rows[0]) if rows else None

    def runs(self, entry: Entry) -> list[TrainingRecord]:
        """The entry's networks, one a seed, in the order of seeds."""
        return self._trainings("entry_id", entry.id)

    def add_run(self, entry: Entry, number: int, *, seed: int) -> int:
        """Store that seed `number` of an entry is going to be trained; returns its training id."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO trainings (entry_id, number, seed, kept, status, created) VALUES (?, ?, ?, '{}', ?, ?)",
                (entry.id, number, seed, Status.RUNNING, _now()),
            )
        return int(cursor.lastrowid or 0)

    # What happens to a network in training

    def record(self, training_id: int, report: Report, *, status: Status) -> None:
        """Store one epoch and the status after it. An epoch that is stored already is left as it is."""
        values = (report.epoch, report.train_loss, report.train_accuracy, report.validation_loss)
        rest = (report.validation_accuracy, report.seconds)
        with self._transaction():
            self._db.execute(
                f"INSERT OR IGNORE INTO reports (training_id, {_REPORT_COLUMNS}, recorded, environment_id) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (training_id, *values, *rest, _now(), self._environment),
            )
            self._db.execute(
                "UPDATE trainings SET status = ?, mask_checksum = ? WHERE id = ?",
                (status, report.mask_checksum, training_id),
            )

    def set_status(self, training_id: int, status: Status, *, reason: str | None = None) -> None:
        """Store where a network stands, and why."""
        with self._transaction():
            self._db.execute("UPDATE trainings SET status = ?, reason = ? WHERE id = ?", (status, reason, training_id))

    def set_kept(self, training_id: int, kept: Mapping[str, int]) -> None:
        """Store the layers' kept weights, once they are known."""
        with self._transaction():
            self._db.execute("UPDATE trainings SET kept = ? WHERE id = ?", (_dump(kept), training_id))

    def finish(self, training_id: int, *, test_loss: float | None, test_accuracy: float | None) -> None:
        """Store the test result of a fully trained network (None where the data have no test split)."""
        with self._transaction():
            self._db.execute(
                "UPDATE trainings SET status = ?, test_loss = ?, test_accuracy = ? WHERE id = ?",
                (Status.FINISHED, test_loss, test_accuracy, training_id),
            )

    # Inside

    def _open(self) -> None:
        """Check that the file is ours and bring its tables up to date."""
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        empty = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if application != APPLICATION_ID and not empty:
            raise InputError(f"{self.path} is another program's SQLite file; name another file with --registry")
        if version > len(MIGRATIONS):
            raise InputError(
                f"{self.path} was written by a newer snas (format {version}; this one knows {len(MIGRATIONS)}); upgrade"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if version < len(MIGRATIONS):
            self._migrate(version)

    def _migrate(self, version: int) -> None:
        if version:
            backup = self.path.with_name(f"{self.path.name}.format-{version}.bak")
            backup.unlink(missing_ok=True)
            self._db.execute("VACUUM INTO ?", (str(backup),))
        with self._transaction():
            # Another process may have done it while we waited for the lock.
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                for statement in filter(str.strip, script.split(";\n")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _trainings(self, owner: str, owner_id: int) -> list[TrainingRecord]:
        rows = self._query(f"SELECT * FROM trainings WHERE {owner} = ? ORDER BY number", owner_id)
        reports: dict[int, list[Report]] = {row["id"]: [] for row in rows}
        owners = {row["id"]: row for row in rows}
        for row in self._query(
            f"SELECT training_id, {_REPORT_COLUMNS} FROM reports JOIN trainings ON trainings.id = training_id "
            f"WHERE {owner} = ? ORDER BY training_id, epoch",
            owner_id,
        ):
            training = owners[row["training_id"]]
            values = {name: row[name] for name in _REPORT_COLUMNS.split(", ")}
            report = Report(trial=training["number"], mask_checksum=training["mask_checksum"] or "", **values)
            reports[training["id"]].append(report)
        return [_training(row, reports[row["id"]]) for row in rows]

    def _explain(self, error: sqlite3.Error) -> SnasError:
        """Say what went wrong in the user's words."""
        text = str(error)
        if "not a database" in text:
            return InputError(f"{self.path} is not a snas registry (no SQLite file); name another file with --registry")
        if isinstance(error, sqlite3.OperationalError) and ("readonly" in text or "unable to open" in text):
            return InputError(f"cannot write registry {self.path} ({text}); check its permissions")
        if "malformed" in text or "file is encrypted" in text:
            return InputError(f"registry {self.path} is damaged ({text}); name another file with --registry")
        if "full" in text:
            return SnasError(f"no room to write registry {self.path} ({text}); make room and run the same command")
        return SnasError(f"registry {self.path}: {text}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=False, allow_nan=False)


def _study(row: sqlite3.Row) -> Study:
    return Study(
        id=row["id"],
        name=row["name"],
        identity=json.loads(row["identity"]),
        samples=row["samples"],
        environment=json.loads(row["environment"]),
        created=row["created"],
    )


def _entry(row: sqlite3.Row) -> Entry:
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - sqlite3.Row iterates over values
    for key in ("space", "dataset", "rule", "kept", "environment"):
        values[key] = json.loads(values[key])
    return Entry(**values)


def _training(row: sqlite3.Row, reports: Sequence[Report]) -> TrainingRecord:
    return TrainingRecord(
        id=row["id"],
        number=row["number"],
        seed=row["seed"],
        status=Status(row["status"]),
        reason=row["reason"],
        kept=json.loads(row["kept"]),
        mask_checksum=row["mask_checksum"],
        point=None if row["point"] is None else np.asarray(json.loads(row["point"]), dtype=np.float64),
        test_loss=row["test_loss"],
        test_accuracy=row["test_accuracy"],
        reports=tuple(reports),
    )


def as_trial(record: TrainingRecord) -> Trial:
    """A candidate as strategies see it: its score is the validation accuracy."""
    point = np.zeros(0) if record.point is None else record.point
    scores = {report.epoch: report.validation_accuracy for report in record.reports}
    return Trial(record.number, point, record.status, scores, sum(record.kept.values()))
