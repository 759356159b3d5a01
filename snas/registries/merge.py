"""Bring what other registries have into one: all of it, or nothing where they contradict each other.

Studies are the same by name, rows of the leaderboard by their key, networks in training by their number. The same twice
is kept once; a training that went further elsewhere goes on from there; figures that differ are a conflict. Checkpoints
are not in a registry: what is unfinished trains its epochs again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snas.errors import InputError, SnasError
from snas.locks import owned
from snas.records import dump
from snas.registries.check import problems_of
from snas.registries.copies import broken_seal
from snas.registries.database import Database
from snas.registry import Registry
from snas.trials import ENDED

Values = dict[str, Any]
JSON = ("identity", "space", "dataset", "rule", "kept", "point", "traits", "result")
# What must agree between two rows of a key.
STUDY = ("identity",)
TRAINING = ("seed", "point", "traits")
ENTRY = (
    *("name", "kind", "method", "space", "dataset", "rule", "strategy", "mask_rule", "seed", "kept_weights"),
    *("total_weights", "kept", "candidate", "source", "cited_density", "cited_accuracy", "cited_std", "cited_seeds"),
)
FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
# What a training is when it has gone further.
PROGRESS = ("kept", "signals", "mask_checksum", "status", "reason", "test_loss", "test_accuracy")


@dataclass(slots=True)
class Merged:
    """How many rows came new into a registry, and how many that were there have changed."""

    studies: int = 0
    trainings: int = 0
    reports: int = 0
    entries: int = 0
    environments: int = 0
    measurements: int = 0
    updated: int = 0

    def as_dict(self) -> dict[str, int]:
        """All as plain values."""
        return asdict(self)


def merge(path: Path | str, others: Sequence[Path | str]) -> Merged:
    """Bring all that `others` have into the registry at `path`, which is made if there is none. They stay as they are.

    Raises:
        InputError: if one of them is no registry, or contradicts another; nothing is changed then.
        SnasError: if one is damaged, or a study that would change is being worked on; nothing is changed then.
    """
    path, there = Path(path), Path(path).exists()
    merged = Merged()
    with ExitStack() as stack:
        opened = [stack.enter_context(_open(path, Path(other))) for other in others]
        with Registry(path) as registry:
            try:
                with ExitStack() as stack_of_locks, registry.together():
                    locks = _Locks(registry, stack_of_locks)
                    for other in opened:
                        _Merging(registry, other, locks, merged).run()
            except BaseException:
                if not there and not registry.studies() and not registry.entries():
                    registry.close()
                    path.unlink(missing_ok=True)
                raise
    return merged


def _open(path: Path, other: Path) -> Database:
    """Another registry, as a copy in memory."""
    if path.exists() and other.exists() and path.samefile(other):
        raise InputError(f"cannot merge {other} into itself; name another file")
    problem = broken_seal(other) if other.is_file() else None
    if problem is None:
        database = Database(other, create=False, snapshot=True)
        problem = next(problems_of(database), None)
        if problem is None:
            return database
        database.close()
    raise SnasError(f"nothing is merged: {other} is damaged ({problem}); snas registry check {other} tells more")


class _Locks:
    """What nobody else may work on, for it changes: studies and rows that were there before."""

    def __init__(self, registry: Registry, stack: ExitStack) -> None:
        self._registry = registry
        self._stack = stack
        self._held: set[str] = set()
        self.new: set[tuple[str, int]] = set()  # tables and ids of what was not there before
        self.changed: set[tuple[str, int]] = set()  # of what was, and has changed

    def hold_study(self, study_id: int) -> None:
        """Hold a study for this process; raises BusyError where another one works on it."""
        if ("studies", study_id) not in self.new:
            name = self._registry.query("SELECT name FROM studies WHERE id = ?", study_id)[0]["name"]
            self._hold(f"study-{name}")

    def hold_entry(self, entry_id: int) -> None:
        """The same for a row of the leaderboard."""
        if ("entries", entry_id) not in self.new:
            self._hold(f"entry-{entry_id}")

    def _hold(self, name: str) -> None:
        if name not in self._held:
            self._stack.enter_context(owned(self._registry, name))
            self._held.add(name)


class _Merging:
    """One registry on its way into another."""

    def __init__(self, registry: Registry, other: Database, locks: _Locks, merged: Merged) -> None:
        self._registry = registry
        self._other = other
        self._locks = locks
        self._merged = merged
        self._extended: set[int] = set()  # ids of studies that went further in the other one
        self._environments: dict[int | None, int | None] = {None: None}
        self._studies: dict[int | None, int | None] = {None: None}

    def run(self) -> None:
        """Bring everything over."""
        for row in self._rows("environments"):
            known = self._mine("environments", content=row["content"])
            self._environments[row["id"]] = known["id"] if known else self._add("environments", row)
        for row in self._rows("studies"):
            self._studies[row["id"]] = self._study(row)
        for row in self._rows("trainings"):
            if row["study_id"] is not None:
                study = self._studies[row["study_id"]]
                self._training(row, {"study_id": study, "number": row["number"], "repeat": row["repeat"]})
        entries = {row["id"]: self._entry(row) for row in self._rows("entries")}
        for study in sorted(self._extended):
            self._supersede(study, set(entries.values()))
            self._take_sign_of_life(study)
        for row in self._rows("trainings"):
            if row["entry_id"] is not None:
                self._training(row, {"entry_id": entries[row["entry_id"]], "number": row["number"]})
        for row in self._rows("measurements"):
            self._measurement(row)

    def _study(self, row: Values) -> int:
        known = self._mine("studies", name=row["name"])
        if known is None:
            new = self._add("studies", row)
            for worker in self._rows("workers", study_id=row["id"]):
                self._add("workers", {**worker, "study_id": new}, has_id=False)
            return new
        self._require_equal(f"study {row['name']!r}", known, row, STUDY)
        if row["samples"] > known["samples"]:
            self._locks.hold_study(known["id"])
            self._update("studies", known["id"], {"samples": row["samples"]})
        return int(known["id"])

    def _entry(self, row: Values) -> int:
        row["study_id"] = self._studies[row["study_id"]]
        known = self._mine("entries", key=row["key"])
        if known is None:
            return self._add("entries", row)
        self._require_equal(f"row {row['id']} ({row['key']})", known, row, ENTRY)
        if row["study_id"] in self._extended:  # and may have another winner
            self._locks.hold_entry(known["id"])
            changed = ("search_epochs", "search_seconds", "superseded")
            self._update("entries", known["id"], {name: row[name] for name in changed})
        return int(known["id"])

    def _supersede(self, study: int, theirs: set[int]) -> None:
        """Let a study that went further in the other one have the winner that it has there, as `Registry.supersede`."""
        own = [row for row in self._select_mine("entries", study_id=study) if " @epochs " not in row["key"]]
        if not any(row["id"] in theirs and not row["superseded"] for row in own):
            return  # it has not come to one there
        for row in own:
            if row["id"] not in theirs and not row["superseded"]:
                self._locks.hold_entry(row["id"])
                self._update("entries", row["id"], {"superseded": 1})

    def _take_sign_of_life(self, study: int) -> None:
        """Who worked last on a study that went further in the other one."""
        known = self._mine("workers", study_id=study)
        there = next(row_id for row_id, mine in self._studies.items() if mine == study)
        for worker in self._rows("workers", study_id=there):
            if known is None or worker["seen"] > known["seen"]:
                self._registry.query("DELETE FROM workers WHERE study_id = ?", study)
                self._add("workers", {**worker, "study_id": study}, has_id=False)

    def _training(self, row: Values, place: Values) -> None:
        known = self._mine("trainings", **place)
        reports = self._rows("reports", training_id=row["id"])
        if known is None:
            self._hold_owner(place)
            traits = dump(_without_files(json.loads(row["traits"])))
            self._add_reports(self._add("trainings", {**row, **place, "traits": traits}), reports)
            return
        what = self._name(row, place)
        self._require_equal(what, known, row, TRAINING)
        if known["mask_checksum"] and row["mask_checksum"]:
            self._require_equal(what, known, row, ("mask_checksum",))
        mine = {
            report["epoch"]: report
            for report in map(dict, self._registry.query("SELECT * FROM reports WHERE training_id = ?", known["id"]))
        }
        for report in reports:
            if report["epoch"] in mine:
                self._require_equal(f"epoch {report['epoch']} of {what}", mine[report["epoch"]], report, FIGURES)
        new = [report for report in reports if report["epoch"] not in mine]
        ended, theirs_ended = known["status"] in ENDED, row["status"] in ENDED
        fewer = len(reports) < len(mine)
        if ended and theirs_ended:
            self._require_equal(what, known, row, ("status", "kept", "test_loss", "test_accuracy"))
        if (ended and new) or (theirs_ended and fewer):
            raise self._conflict(
                f"{what} ended after {min(len(reports), len(mine))} epochs in one of them, not in the other"
            )
        if new or (theirs_ended and not ended):
            self._hold_owner(place)
            self._add_reports(known["id"], new)
            self._update("trainings", known["id"], {name: row[name] for name in PROGRESS})

    def _measurement(self, row: Values) -> None:
        known = self._mine("measurements", study=row["study"], key=row["key"])
        if known is None:
            self._add("measurements", {**row, "environment_id": self._environments[row["environment_id"]]})
        else:
            self._require_equal(f"study {row['study']!r}, cell {row['cell']}", known, row, ("result", "reason"))

    def _add_reports(self, training_id: int, reports: Sequence[Values]) -> None:
        for report in reports:
            environment = self._environments[report["environment_id"]]
            self._add("reports", {**report, "training_id": training_id, "environment_id": environment}, has_id=False)

    # Conflicts

    def _require_equal(self, what: str, known: Values, row: Values, columns: Sequence[str]) -> None:
        for name in columns:
            ours, theirs = known[name], row[name]
            if name in JSON and ours is not None and theirs is not None:
                ours, theirs = json.loads(ours), json.loads(theirs)
                if name == "traits":
                    ours, theirs = _without_files(ours), _without_files(theirs)
                if name == "traits" and not (ours and theirs):  # files of before format 3 do not tell them
                    continue
            if ours != theirs:
                told = "" if isinstance(ours, (dict, list)) else f" ({ours} and {theirs})"
                raise self._conflict(f"{what} differs in its {name.replace('_', ' ')}{told}")

    def _conflict(self, text: str) -> InputError:
        return InputError(
            f"nothing is merged: {self._other.path} contradicts {self._registry.path}: {text}; keep it as a registry "
            "of its own"
        )

    def _name(self, row: Values, place: Values) -> str:
        if "entry_id" in place:
            return f"seed {row['number']} of row {row['entry_id']}"
        name = self._other.query("SELECT name FROM studies WHERE id = ?", row["study_id"])[0]["name"]
        again = f" on fresh seed {row['repeat']}" if row["repeat"] else ""
        return f"candidate {row['number']}{again} of study {name!r}"

    def _hold_owner(self, place: Values) -> None:
        """Let nobody else work on what a training belongs to, for that changes."""
        if "entry_id" in place:
            self._locks.hold_entry(place["entry_id"])
        else:
            self._locks.hold_study(place["study_id"])
            self._extended.add(place["study_id"])

    # Rows

    def _rows(self, table: str, **where: Any) -> list[Values]:
        return _select(self._other, table, where)

    def _mine(self, table: str, **where: Any) -> Values | None:
        return next(iter(self._select_mine(table, **where)), None)

    def _select_mine(self, table: str, **where: Any) -> list[Values]:
        return _select(self._registry, table, where)

    def _add(self, table: str, row: Mapping[str, Any], *, has_id: bool = True) -> int:
        values = {name: value for name, value in row.items() if name != "id" or not has_id}
        marks = ", ".join("?" * len(values))
        self._registry.query(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", *values.values())
        if hasattr(self._merged, table):
            setattr(self._merged, table, getattr(self._merged, table) + 1)
        if not has_id:
            return 0
        row_id = int(self._registry.query("SELECT last_insert_rowid()")[0][0])
        self._locks.new.add((table, row_id))
        return row_id

    def _update(self, table: str, row_id: int, values: Values) -> None:
        known = self._select_mine(table, id=row_id)[0]
        values = {name: value for name, value in values.items() if value != known[name]}
        if not values:
            return
        settings = ", ".join(f"{name} = ?" for name in values)
        self._registry.query(f"UPDATE {table} SET {settings} WHERE id = ?", *values.values(), row_id)
        if (table, row_id) not in self._locks.new:
            self._locks.changed.add((table, row_id))
            self._merged.updated = len(self._locks.changed)


def _without_files(traits: Any) -> Any:
    """Traits without what tells of kept weights: files are not merged, and are named after a registry's own rows."""
    return {name: value for name, value in traits.items() if name != "weights"} if isinstance(traits, dict) else traits


def _select(database: Database, table: str, where: Mapping[str, Any]) -> list[Values]:
    columns = [row["name"] for row in database.query(f"PRAGMA table_info({table})")]
    first = "training_id, epoch" if table == "reports" else columns[0]
    conditions = " AND ".join(f"{name} = ?" for name in where) or "1"
    rows: list[sqlite3.Row] = database.query(
        f"SELECT * FROM {table} WHERE {conditions} ORDER BY {first}", *where.values()
    )
    return [dict(row) for row in rows]
