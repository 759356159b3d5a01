"""Eight writers on one registry for a minute, 200 kill -9 among them, beside plain SQLite with the same pragmas.

A writer notes what was stored in a file of its own, after it was told that it is stored: all of that must be there at
the end. No writer may be shown an error. Plain SQLite does the same statements without our code; its rate is what there
is to have.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from common import Verdict, folder, parser_of

from snas.registries.check import check
from snas.registry import Registry
from snas.trials import Report, Status

WRITERS = 8
EPOCHS = 20  # of a candidate
CHECKSUM = "0123456789abcdef" * 4
PLAIN = """
CREATE TABLE trainings (id INTEGER PRIMARY KEY, study_id INTEGER, number INTEGER, seed INTEGER, point TEXT, kept TEXT,
    traits TEXT, status TEXT, mask_checksum TEXT, created TEXT);
CREATE TABLE reports (training_id INTEGER, epoch INTEGER, train_loss REAL, train_accuracy REAL, validation_loss REAL,
    validation_accuracy REAL, seconds REAL, recorded TEXT, environment_id INTEGER, PRIMARY KEY (training_id, epoch)
    ) WITHOUT ROWID;
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, help="of each of both; default: 60, with --quick 4")
    parser.add_argument("--kills", type=int, help="of each of both; default: 200, with --quick 10")
    options = parser.parse_args(argv)
    seconds = options.seconds or (4.0 if options.quick else 60.0)
    kills = options.kills or (10 if options.quick else 200)
    verdict = Verdict("writers")
    rates = {}
    for name, write in (("ours", _write), ("plain", _write_plain)):
        with folder() as place:
            path = place / "r.db"
            if name == "plain":
                with closing(_connect(path)) as connection:
                    connection.executescript(PLAIN)
            killed, took = _drive(place, write, seconds, kills, random.Random(options.seed))
            acknowledged = _acknowledged(place)
            rates[name] = len(acknowledged) / took
            errors = [text for file in place.glob("error-*") for text in [file.read_text(encoding="utf-8")] if text]
            missing = _missing(path, acknowledged)
            if name == "plain":
                verdict.require(not missing and not errors, f"plain SQLite: {len(missing)} missing, {errors[:1]}")
                continue
            verdict.count("kills", killed)
            verdict.count("acknowledged rows", len(acknowledged))
            verdict.count("missing", len(missing))
            verdict.count("errors shown", len(errors))
            verdict.require(killed >= kills, f"only {killed} kills in {took:.0f} s")
            verdict.require(not errors, f"{len(errors)} errors were shown: {errors[0][-500:] if errors else ''}")
            verdict.require(not missing, f"{len(missing)} acknowledged rows are missing: {missing[:3]}")
            found = check(path)
            verdict.require(not found.problems, f"the registry is not whole: {found.problems[:3]}")
            verdict.count("integrity ok", int(not found.problems))
    verdict.figures["epochs a second"] = round(rates["ours"], 1)
    verdict.figures["plain SQLite's"] = round(rates["plain"], 1)
    verdict.figures["ours : plain"] = round(rates["ours"] / rates["plain"], 2)
    return verdict.end()


def _drive(
    place: Path, write: Callable[[Path, int, int], None], seconds: float, kills: int, rng: random.Random
) -> tuple[int, float]:
    """Keep the writers writing for so many seconds, and kill one of them at random moments."""
    began = time.monotonic()
    writers = {number: _fork(place, write, number, 0) for number in range(WRITERS)}
    generations = dict.fromkeys(range(WRITERS), 0)
    moments = sorted(rng.uniform(0.0, seconds * 0.98) for _ in range(kills))
    for moment in moments:
        time.sleep(max(0.0, began + moment - time.monotonic()))
        number = rng.randrange(WRITERS)
        os.kill(writers[number], signal.SIGKILL)
        os.waitpid(writers[number], 0)
        generations[number] += 1
        writers[number] = _fork(place, write, number, generations[number])
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    for pid in writers.values():
        os.kill(pid, signal.SIGTERM)
    for pid in writers.values():
        os.waitpid(pid, 0)
    return len(moments), time.monotonic() - began


def _fork(place: Path, write: Callable[[Path, int, int], None], number: int, generation: int) -> int:
    """Start a writer; it writes until it is ended."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        logging.basicConfig(filename=place / f"error-{number}-{generation}", level=logging.WARNING)  # no warning either
        write(place, number, generation)
    except BaseException:
        with (place / f"error-{number}-{generation}").open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(1)


def _write(place: Path, number: int, generation: int) -> None:
    """A study of its own: candidates, and their epochs."""
    log = os.open(place / f"acknowledged-{number}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    registry = Registry(place / "r.db")
    registry.use_environment({"writer": number})
    name = f"study-{number}"
    study = registry.find_study(name) or registry.add_study(name, identity={}, samples=10**6, environment={})
    rows = registry.query("SELECT coalesce(max(number), -1) FROM trainings WHERE study_id = ?", study.id)
    candidate = rows[0][0] + 1
    while True:
        training = registry.add_candidate(
            study,
            candidate,
            seed=candidate,
            point=np.full(3, 0.5),
            kept={"fc1": 5, "fc2": 6},
            traits={"rule": "random"},
        )
        for epoch in range(1, EPOCHS + 1):
            status = Status.FINISHED if epoch == EPOCHS else Status.RUNNING
            registry.record(training, Report(candidate, epoch, 0.5, 0.25, 0.75, 0.5, 0.1, CHECKSUM), status=status)
            os.write(log, f"{training} {epoch}\n".encode())
        candidate += 1


def _write_plain(place: Path, number: int, generation: int) -> None:
    """The same rows, without our code."""
    log = os.open(place / f"acknowledged-{number}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    connection = _connect(place / "r.db")
    candidate = generation * 10**6
    while True:
        connection.execute("BEGIN IMMEDIATE")
        values = (
            number,
            candidate,
            candidate,
            "[0.5,0.5,0.5]",
            '{"fc1":5,"fc2":6}',
            '{"rule":"random"}',
            "running",
            "now",
        )
        training = connection.execute(
            "INSERT INTO trainings (study_id, number, seed, point, kept, traits, status, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        ).lastrowid
        connection.execute("COMMIT")
        for epoch in range(1, EPOCHS + 1):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (training, epoch, 0.5, 0.25, 0.75, 0.5, 0.1, "2026-01-01T00:00:00.000+00:00", number),
            )
            connection.execute(
                "UPDATE trainings SET status = ?, mask_checksum = ? WHERE id = ?", ("running", CHECKSUM, training)
            )
            connection.execute("COMMIT")
            os.write(log, f"{training} {epoch}\n".encode())
        candidate += 1


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _acknowledged(place: Path) -> list[tuple[int, int]]:
    """Training and epoch of all that writers were told is stored; a line that a kill cut short was not yet."""
    found = []
    for file in place.glob("acknowledged-*"):
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        found += [(int(training), int(epoch)) for training, epoch in (line.split() for line in lines)]
    return found


def _missing(path: Path, acknowledged: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(path)) as connection:
        stored = set(connection.execute("SELECT training_id, epoch FROM reports"))
    return [row for row in acknowledged if row not in stored]


if __name__ == "__main__":
    sys.exit(main())
