"""Whether a registry is whole: as SQLite sees it, and as our own rules have it."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from snas.errors import SnasError
from snas.registries.copies import broken_seal
from snas.registries.database import Database
from snas.registries.explain import is_damage, is_outside
from snas.schema import APPLICATION_ID, MIGRATIONS
from snas.trials import ENDED, Status

MOST = 100  # problems that are told
CHECKSUM = re.compile("[0-9a-f]{64}")
TABLES = ("studies", "trainings", "reports", "entries", "environments", "measurements")
TYPES = {"INTEGER": ("integer",), "REAL": ("real", "integer"), "TEXT": ("text",)}
NUMBERS: Mapping[str, tuple[type, ...]] = {
    "kept": (int,),
    "point": (int, float),
    "signals": (int, float),
    "measured": (int, float),
}
# Where there is JSON, and of what kind.
JSON: Mapping[str, Mapping[str, type]] = {
    "studies": {"identity": dict, "environment": dict},
    "entries": {"space": dict, "dataset": dict, "rule": dict, "kept": dict, "environment": dict},
    "trainings": {"point": list, "kept": dict, "traits": dict, "signals": dict},
    "environments": {"content": dict},
    "measurements": {"key": dict, "cell": dict, "result": dict},
    "reports": {"measured": dict},
}


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found.

    Attributes:
        path: of the registry.
        format: of the file, as it was found.
        counts: rows of each table; empty where the file cannot be read.
        problems: a line each, at most 100; none where all is well.
    """

    path: Path
    format: int
    counts: Mapping[str, int]
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All as plain values."""
        return {**asdict(self), "path": str(self.path), "current_format": len(MIGRATIONS), "ok": not self.problems}


def check(path: Path | str) -> Check:
    """Check a registry without changing it. Searches may go on meanwhile.

    Raises:
        InputError: if there is none, or the file is no snas registry.
        SnasError: if it cannot be read.
    """
    path = Path(path)
    version = _format(path)
    seal = broken_seal(path) if path.is_file() else None
    problems = [seal] if seal else []
    counts: dict[str, int] = {}
    try:
        with Database(path, create=False, snapshot=True) as opened:
            for found in problems_of(opened):
                problems.append(found)
                if len(problems) == MOST:
                    problems.append(f"and more: only the first {MOST} are told")
                    break
            counts = {table: opened.query(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}
    except SnasError as error:
        cause = error.__cause__
        if not isinstance(cause, sqlite3.Error) or is_outside(cause) or not (version or is_damage(cause)):
            raise
        problems.append(f"the file is damaged: {cause}")
    return Check(path, version, counts, tuple(problems))


def _format(path: Path) -> int:
    """The format of a file, as its header has it: a damaged one may not open. 0 where it is none of ours."""
    try:
        place = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(place, uri=True)) as connection:
            application, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
    except sqlite3.Error:  # opening it will tell
        return 0
    return int(version) if application == APPLICATION_ID else 0


def problems_of(opened: Database) -> Iterator[str]:
    """What SQLite finds, then what cannot be read, then what makes no sense; nothing is built on what is broken."""
    for stage in ((_tables,), (_types, _json), (_statuses, _numbers, _epochs, _weights, _ends)):
        broken = False
        for part in stage:
            for problem in part(opened):
                broken = True
                yield problem
        if broken:
            return


def _tables(opened: Database) -> Iterator[str]:
    for row in opened.query(f"PRAGMA integrity_check({MOST})"):
        if row[0] != "ok":
            yield f"SQLite: {row[0]}"
    for row in opened.query("PRAGMA foreign_key_check"):
        yield f"{row['table']}: row {row['rowid']} belongs to a row of {row['parent']} that is not there"


def _types(opened: Database) -> Iterator[str]:
    """Columns have values of their types, which SQLite does not insist on."""
    for table in (*TABLES, "workers"):
        for column in opened.query(f"PRAGMA table_info({table})"):
            name, kinds = column["name"], TYPES[column["type"]]
            marks = ", ".join("?" * len(kinds))
            for row in opened.query(
                f"SELECT count(*) AS number, min(typeof({name})) AS kind FROM {table} "
                f"WHERE {name} IS NOT NULL AND typeof({name}) NOT IN ({marks})",
                *kinds,
            ):
                if row["number"]:
                    yield f"{table}: {name} is {row['kind']}, not {kinds[0]} (rows: {row['number']})"


def _json(opened: Database) -> Iterator[str]:
    for table, columns in JSON.items():
        identity = "training_id" if table == "reports" else "id"
        for row in opened.query(f"SELECT {identity} AS id, {', '.join(columns)} FROM {table} ORDER BY 1"):
            for column, kind in columns.items():
                if row[column] is None:
                    continue
                value = _read(row[column])
                good = isinstance(value, kind)
                if good and column in NUMBERS:
                    good = all(isinstance(x, NUMBERS[column]) for x in (value.values() if kind is dict else value))
                if not good:
                    yield f"{table}: {column} of row {row['id']} cannot be read"


def _statuses(opened: Database) -> Iterator[str]:
    for row in opened.query("SELECT * FROM trainings ORDER BY id"):
        what = _name(row)
        if row["status"] not in tuple(Status):
            yield f"{what}: status {row['status']!r} is not one of {', '.join(Status)}"
        if row["status"] in (Status.FAILED, Status.REFUSED) and not row["reason"]:
            yield f"{what} is {row['status']} for no reason"
        if row["mask_checksum"] and not CHECKSUM.fullmatch(row["mask_checksum"]):
            yield f"{what}: mask checksum {row['mask_checksum'][:20]!r} is not 64 hexadecimal digits"
        if row["study_id"] is not None:
            point = _read(row["point"]) if row["point"] is not None else []
            if not all(0 <= x <= 1 for x in point):
                yield f"{what}: its point is not in the unit cube"


def _numbers(opened: Database) -> Iterator[str]:
    """Candidates are 0, 1, 2 ...; no more than the study has samples; what is trained again is one of them."""
    for study in opened.query("SELECT * FROM studies ORDER BY id"):
        rows = opened.query("SELECT number, repeat FROM trainings WHERE study_id = ? ORDER BY number", study["id"])
        numbers = [row["number"] for row in rows if row["repeat"] == 0]
        if numbers != list(range(len(numbers))):
            missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
            yield f"study {study['name']!r}: candidate {missing} is missing"
        if len(numbers) > study["samples"]:
            yield f"study {study['name']!r} has {len(numbers)} candidates, more than its {study['samples']} samples"
        if orphans := {row["number"] for row in rows} - set(numbers):
            yield f"study {study['name']!r}: candidate {min(orphans)} was trained again, but is not there"
        for entry in opened.query(
            "SELECT id, candidate FROM entries WHERE study_id = ? AND candidate IS NOT NULL", study["id"]
        ):
            if entry["candidate"] not in numbers:
                yield f"row {entry['id']} is candidate {entry['candidate']} of study {study['name']!r}, not there"


def _epochs(opened: Database) -> Iterator[str]:
    """Epochs are 1, 2, 3 ..., figures numbers, accuracies fractions."""
    rows = {row["id"]: row for row in opened.query("SELECT * FROM trainings")}
    due: dict[int, int] = {}
    for row in opened.query("SELECT * FROM reports ORDER BY training_id, epoch"):
        training = row["training_id"]
        what = _name(rows[training]) if training in rows else f"training {training}"
        if row["epoch"] != due.get(training, 1):
            yield f"{what}: epoch {due.get(training, 1)} is missing before epoch {row['epoch']}"
        due[training] = row["epoch"] + 1
        for column in ("train_loss", "validation_loss", "seconds"):
            if not _is_number(row[column]):
                yield f"{what}: {column} of epoch {row['epoch']} is {row[column]!r}, not a finite number"
        for column in ("train_accuracy", "validation_accuracy"):
            if not _is_number(row[column]) or not 0 <= row[column] <= 1:
                yield f"{what}: {column} of epoch {row['epoch']} is {row[column]!r}, not a fraction"


def _weights(opened: Database) -> Iterator[str]:
    """Layers keep no more weights than they have, and sums agree."""
    for row in opened.query("SELECT * FROM entries ORDER BY id"):
        kept, sizes = _read(row["kept"]), _sizes(_read(row["space"]))
        if kept and sum(kept.values()) != row["kept_weights"]:
            yield f"row {row['id']}: its layers keep {sum(kept.values())} weights, not {row['kept_weights']}"
        if row["total_weights"] and row["kept_weights"] > row["total_weights"]:
            yield f"row {row['id']} keeps {row['kept_weights']} of {row['total_weights']} weights"
        if sizes and sum(sizes.values()) != row["total_weights"]:
            yield f"row {row['id']}: its layers have {sum(sizes.values())} weights, not {row['total_weights']}"
        for run in opened.query("SELECT * FROM trainings WHERE entry_id = ? ORDER BY number", row["id"]):
            total = sum(_read(run["kept"]).values())
            if run["status"] == Status.FINISHED and total != row["kept_weights"]:
                yield f"{_name(run)} keeps {total} weights, not {row['kept_weights']}"
            yield from _layers(run, sizes)


def _layers(row: sqlite3.Row, sizes: Mapping[str, int]) -> Iterator[str]:
    for layer, count in _read(row["kept"]).items() if sizes else ():
        if not 0 <= count <= sizes.get(layer, -1):
            yield f"{_name(row)}: layer {layer!r} keeps {count} of {sizes.get(layer, 'no')} weights"


def _ends(opened: Database) -> Iterator[str]:
    """What is finished was trained; what was trained has a mask."""
    for row in opened.query(
        "SELECT trainings.*, count(epoch) AS epochs FROM trainings LEFT JOIN reports ON training_id = trainings.id "
        "GROUP BY trainings.id ORDER BY trainings.id"
    ):
        if row["status"] in (Status.FINISHED, Status.PAUSED) and not row["epochs"]:
            yield f"{_name(row)} is {row['status']}, but no epoch of it is recorded"
        if row["epochs"] and not row["mask_checksum"]:
            yield f"{_name(row)} was trained, but the checksum of its mask is missing"
        if row["test_accuracy"] is not None and row["status"] not in ENDED:
            yield f"{_name(row)} is {row['status']}, but has been tested"


def _sizes(space: Any) -> dict[str, int]:
    """Weights of each layer of a recorded space; empty where it does not tell."""
    try:
        return {layer["name"]: math.prod(layer["shape"]) for layer in space["layers"]}
    except (KeyError, TypeError):
        return {}


def _name(row: sqlite3.Row) -> str:
    """What a training is, in words."""
    if row["entry_id"] is not None:
        return f"row {row['entry_id']}, seed {row['number']}"
    again = f", fresh seed {row['repeat']}" if row["repeat"] else ""
    return f"study {row['study_id']}, candidate {row['number']}{again}"


def _read(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
