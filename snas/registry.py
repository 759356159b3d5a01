"""The one truth about studies, candidates, epochs and results: one SQLite file, written before anything is shown.

Every write is one transaction, flushed to disk (write-ahead log, full synchronization), so that a crash at any point
loses at most the epoch in flight. Masks are not stored: seed and rule reproduce them, and a checksum proves it.
"""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from snas.errors import InputError, SnasError
from snas.records import (
    Entry,
    Measurement,
    Study,
    TrainingRecord,
    as_trial,
    dump,
    entry_columns,
    read_entry,
    read_measurement,
    read_study,
    read_training,
    require_columns,
)
from snas.registries.database import Database
from snas.trials import ENDED, Point, Report, Status

__all__ = ["Entry", "Measurement", "Registry", "Study", "TrainingRecord", "as_trial"]

T = TypeVar("T")
_REPORT_COLUMNS = "epoch, train_loss, train_accuracy, validation_loss, validation_accuracy, seconds"
# What a correction of a published figure may change; the rest is its key.
_FIGURES = ("cited_accuracy", "cited_std", "cited_seeds", "rule", "kept_weights", "total_weights")


class Registry(Database):
    """A registry file, opened for reading and writing; made if there is none. Arguments are those of `Database`.

    Raises:
        InputError: if the file is no snas registry, was written by a newer version, or cannot be opened.
        SnasError: if another process holds it for too long, or the disk is full.
    """

    def __init__(self, path: Path | str, *, create: bool = True, snapshot: bool = False) -> None:
        self._environment: int | None = None
        super().__init__(path, create=create, snapshot=snapshot)

    @property
    def files(self) -> Path:
        """Folder beside the registry for checkpoints of unfinished networks."""
        return self.path.with_name(self.path.name + ".files")

    def use_environment(self, environment: Mapping[str, Any]) -> None:
        """Note with every epoch recorded from now on where it was trained: versions, device, threads."""
        content = dump(environment)
        with self.together():
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
        return [self._read(read_study, row) for row in self._query("SELECT * FROM studies ORDER BY id")]

    def find_study(self, name: str) -> Study | None:
        """The study called `name`, or None."""
        rows = self._query("SELECT * FROM studies WHERE name = ?", name)
        return self._read(read_study, rows[0]) if rows else None

    def add_study(
        self, name: str, *, identity: Mapping[str, Any], samples: int, environment: Mapping[str, Any]
    ) -> Study:
        """Store a new study."""
        with self.together():
            self._db.execute(
                "INSERT INTO studies (name, created, identity, samples, environment) VALUES (?, ?, ?, ?, ?)",
                (name, _now(), dump(identity), samples, dump(environment)),
            )
        study = self.find_study(name)
        if study is None:
            raise SnasError(f"study {name!r} was written to {self.path} but cannot be read back")
        return study

    def set_samples(self, study: Study, samples: int) -> Study:
        """Let a study try so many candidates at least; fewer than before change nothing."""
        with self.together():
            # Another process may have let it grow further meanwhile.
            self._db.execute("UPDATE studies SET samples = max(samples, ?) WHERE id = ?", (samples, study.id))
        return self.find_study(study.name) or study

    def add_candidate(
        self,
        study: Study,
        number: int,
        *,
        seed: int,
        point: Point,
        kept: Mapping[str, int],
        traits: Mapping[str, Any] | None = None,
        repeat: int = 0,
    ) -> int:
        """Store a proposed candidate, or that one is trained again on a fresh seed; returns its training id."""
        values = (seed, dump(point.tolist()), dump(kept), dump(traits or {}), Status.RUNNING, _now())
        with self.together():
            cursor = self._db.execute(
                "INSERT INTO trainings (study_id, number, repeat, seed, point, kept, traits, status, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (study.id, number, repeat, *values),
            )
        return int(cursor.lastrowid or 0)

    def study_of(self, entry: Entry) -> Study | None:
        """The study that an entry came from, or None."""
        rows = self._query("SELECT * FROM studies WHERE id = ?", entry.study_id)
        return self._read(read_study, rows[0]) if rows else None

    def candidates(self, study: Study, *, before: str | None = None) -> list[TrainingRecord]:
        """All candidates of a study in the order of their numbers; with the epochs recorded `before` a time, or all."""
        return [record for record in self._trainings("study_id", study.id, before) if not record.repeat]

    def repeats(self, study: Study) -> list[TrainingRecord]:
        """Candidates of a study trained again on fresh seeds, in the order of their numbers."""
        return [record for record in self._trainings("study_id", study.id) if record.repeat]

    # Entries and their seeds

    def add_entry(self, entry: Entry) -> Entry:
        """Store an entry, or return the one that is stored under its key."""
        with self.together():
            self._insert(entry)
        return self._read(read_entry, self._query("SELECT * FROM entries WHERE key = ?", entry.key)[0])

    def cite(self, entries: Sequence[Entry]) -> tuple[int, int]:
        """Store published figures, all or none of them.

        Args:
            entries: of kind "cited". One that is stored under its key already takes the new figures.

        Returns:
            How many were added, and how many were known with other figures.
        """
        added = changed = 0
        with self.together():
            for entry in entries:
                if self._insert(entry):
                    added += 1
                else:
                    changed += self._correct(entry)
        return added, changed

    def set_search_cost(self, entry: Entry, *, epochs: int, seconds: float) -> Entry:
        """Update what the search for an entry took; a resumed search has cost more."""
        with self.together():
            self._db.execute(
                "UPDATE entries SET search_epochs = ?, search_seconds = ? WHERE id = ?", (epochs, seconds, entry.id)
            )
        return replace(entry, search_epochs=epochs, search_seconds=seconds)

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return [self._read(read_entry, row) for row in self._query("SELECT * FROM entries ORDER BY id")]

    def find_entry(self, entry_id: int) -> Entry:
        """The entry with this id; InputError where there is none."""
        number = operator.index(entry_id)
        rows = self._query("SELECT * FROM entries WHERE id = ?", number) if 0 < number < 2**63 else []
        if not rows:
            raise InputError(f"no row {entry_id} in {self.path}; snas leaderboard lists the ids")
        return self._read(read_entry, rows[0])

    def supersede(self, study: Study, current: Sequence[Entry]) -> None:
        """Mark the study's entries that are not `current`: a study that grew may have another winner."""
        kept = [entry.id for entry in current]
        marks = ", ".join("?" * len(kept))
        with self.together():
            self._db.execute(
                f"UPDATE entries SET superseded = id NOT IN ({marks}) "
                "WHERE study_id = ? AND key NOT LIKE '% @epochs %'",
                (*kept, study.id),
            )

    def find_key(self, key: str) -> Entry | None:
        """The entry stored under `key`, or None."""
        rows = self._query("SELECT * FROM entries WHERE key = ?", key)
        return self._read(read_entry, rows[0]) if rows else None

    def runs(self, entry: Entry) -> list[TrainingRecord]:
        """The entry's networks, one a seed, in the order of seeds."""
        return self._trainings("entry_id", entry.id)

    def add_run(self, entry: Entry, number: int, *, seed: int) -> int:
        """Store that seed `number` of an entry is going to be trained; returns its training id."""
        with self.together():
            cursor = self._db.execute(
                "INSERT INTO trainings (entry_id, number, seed, kept, status, created) VALUES (?, ?, ?, '{}', ?, ?)",
                (entry.id, number, seed, Status.RUNNING, _now()),
            )
        return int(cursor.lastrowid or 0)

    # What happens to a network in training

    def record(self, training_id: int, report: Report, *, status: Status) -> bool:
        """Store one epoch and the status after it; says whether it did.

        Nothing changes where the epoch is stored already, or the network has come to its end: such a report is late.
        """
        values = (report.epoch, report.train_loss, report.train_accuracy, report.validation_loss)
        rest = (report.validation_accuracy, report.seconds)
        measured = dump(report.measured) if report.measured else None
        with self.together():
            if self._has_ended(training_id):
                return False
            added = self._db.execute(
                f"INSERT INTO reports (training_id, {_REPORT_COLUMNS}, recorded, environment_id, measured) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (training_id, epoch) DO NOTHING",
                (training_id, *values, *rest, _now(), self._environment, measured),
            )
            if not added.rowcount:
                return False
            self._db.execute(
                "UPDATE trainings SET status = ?, mask_checksum = ? WHERE id = ?",
                (status, report.mask_checksum, training_id),
            )
            if report.signals:
                self._db.execute("UPDATE trainings SET signals = ? WHERE id = ?", (dump(report.signals), training_id))
        return True

    def set_status(self, training_id: int, status: Status, *, reason: str | None = None) -> bool:
        """Store where a network stands, and why; says whether it did: one that has come to its end stays as it is."""
        with self.together():
            if self._has_ended(training_id):
                return False
            self._db.execute("UPDATE trainings SET status = ?, reason = ? WHERE id = ?", (status, reason, training_id))
        return True

    def set_kept(self, training_id: int, kept: Mapping[str, int]) -> None:
        """Store the layers' kept weights, once they are known."""
        with self.together():
            self._db.execute("UPDATE trainings SET kept = ? WHERE id = ?", (dump(kept), training_id))

    def set_traits(self, training_id: int, traits: Mapping[str, Any]) -> None:
        """Store what a network is beside its densities: of a final seed, where its weights are."""
        with self.together():
            self._db.execute("UPDATE trainings SET traits = ? WHERE id = ?", (dump(traits), training_id))

    def finish(self, training_id: int, *, test_loss: float | None, test_accuracy: float | None) -> None:
        """Store the test result of a fully trained network (None where the data have no test split)."""
        with self.together():
            self._db.execute(
                "UPDATE trainings SET status = ?, test_loss = ?, test_accuracy = ? WHERE id = ?",
                (Status.FINISHED, test_loss, test_accuracy, training_id),
            )

    # What studies measure

    def add_measurement(
        self,
        study: str,
        key: str,
        *,
        cell: Mapping[str, Any],
        result: Mapping[str, Any],
        reason: str | None,
        seconds: float,
    ) -> None:
        """Store what was measured in a cell of a study's grid. One that is stored already is left as it is."""
        values = (study, key, dump(cell), dump(result), reason, seconds, self._environment, _now())
        with self.together():
            self._db.execute(
                "INSERT OR IGNORE INTO measurements "
                "(study, key, cell, result, reason, seconds, environment_id, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def has_measurement(self, study: str, key: str) -> bool:
        """Whether a cell of a study's grid is measured."""
        return bool(self._query("SELECT 1 FROM measurements WHERE study = ? AND key = ?", study, key))

    def measurements(self, study: str) -> dict[str, Measurement]:
        """All that was measured for a study, by key, oldest first."""
        rows = self._query(
            "SELECT measurements.*, content FROM measurements LEFT JOIN environments "
            "ON environments.id = environment_id WHERE study = ? ORDER BY measurements.id",
            study,
        )
        return {row["key"]: read_measurement(row) for row in rows}

    # Inside

    def _read(self, reader: Callable[[sqlite3.Row], T], row: sqlite3.Row) -> T:
        """What a row stands for; InputError where it cannot be read."""
        try:
            return reader(row)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                f"registry {self.path} is damaged (its row {row['id']}: {error}); snas registry check tells more; go "
                f"back to a backup (move {self.path.name}-wal and {self.path.name}-shm away first), or name another "
                "file with --registry"
            ) from error

    def _has_ended(self, training_id: int) -> bool:
        rows = self._query("SELECT status FROM trainings WHERE id = ?", training_id)
        return bool(rows) and rows[0]["status"] in ENDED

    def _insert(self, entry: Entry) -> bool:
        """Add an entry unless there is one under its key; says whether it did."""
        values = {**entry_columns(entry), "created": _now()}
        cursor = self._db.execute(
            f"INSERT OR IGNORE INTO entries ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            tuple(values.values()),
        )
        return cursor.rowcount > 0

    def _correct(self, entry: Entry) -> bool:
        """Give the stored entry of this key these figures; says whether they differ from those that it had."""
        columns = entry_columns(entry)
        values = [columns[name] for name in _FIGURES]
        cursor = self._db.execute(
            f"UPDATE entries SET {', '.join(f'{name} = ?' for name in _FIGURES)} "
            f"WHERE key = ? AND ({' OR '.join(f'{name} IS NOT ?' for name in _FIGURES)})",
            (*values, entry.key, *values),
        )
        return cursor.rowcount > 0

    def _trainings(self, owner: str, owner_id: int, before: str | None = None) -> list[TrainingRecord]:
        with self.reading():  # another process may add a training and its first epoch between the two queries
            rows = self._query(f"SELECT * FROM trainings WHERE {owner} = ? ORDER BY number, repeat", owner_id)
            found = self._query(
                f"SELECT training_id, {_REPORT_COLUMNS}, measured FROM reports "
                "JOIN trainings ON trainings.id = training_id "
                f"WHERE {owner} = ? AND (? IS NULL OR recorded < ?) ORDER BY training_id, epoch",
                *(owner_id, before, before),
            )
        require_columns(rows, "id", "number", "mask_checksum")
        reports: dict[int, list[Report]] = {row["id"]: [] for row in rows}
        owners = {row["id"]: row for row in rows}
        for row in found:
            training = owners[row["training_id"]]
            values = {name: row[name] for name in _REPORT_COLUMNS.split(", ")}
            values["measured"] = json.loads(row["measured"] or "{}")
            report = Report(trial=training["number"], mask_checksum=training["mask_checksum"] or "", **values)
            reports[training["id"]].append(report)
        return [self._read(lambda row: read_training(row, reports[row["id"]]), row) for row in rows]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
