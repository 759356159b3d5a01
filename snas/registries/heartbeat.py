"""Signs of life: who works on a study, and whether a study that nothing is heard of is dead or only slow.

A search writes that it lives with the results that it writes anyway, at most every few seconds; nothing runs beside it.
On its own machine the process itself can be asked for. Elsewhere (a registry on a network) time must tell, and a study
counts as dead when several of its longest epochs would have passed.
"""

from __future__ import annotations

import enum
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from snas.errors import SnasError, one_line
from snas.records import Study
from snas.registries.database import Database
from snas.trials import Status

BEAT = 10.0  # seconds between two signs of life at least
QUIET = 60.0  # seconds without one, at least, that make a study slow
SILENT = 600.0  # that make it dead where its process cannot be asked for
EPOCHS = 4  # of the longest so far, for which either may be silent

FINISHED = "finished"


class Life(enum.StrEnum):
    """How a study is doing."""

    RUNNING = "running"  # a process works on it
    SLOW = "slow"  # one does, but has given no sign of life for long, or is stopped
    DEAD = "dead"  # its process was killed; the same command resumes it
    STOPPED = "stopped"  # ended before its end by Ctrl-C or an error; the same command resumes it
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a study is doing, who works or worked on it, and when that was last seen (None: before this was noted)."""

    life: Life
    host: str | None = None
    pid: int | None = None
    seen: str | None = None
    reason: str | None = None


@contextmanager
def at_work(registry: Database, study: Study) -> Iterator[None]:
    """Tell the registry that this process works on a study, and in the end how that came."""
    _begin(registry, study)
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= BEAT:
            registry.query("UPDATE workers SET seen = ? WHERE study_id = ?", _now(), study.id)
            last = time.monotonic()

    registry.before_commit = beat
    try:
        yield
    except BaseException as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else one_line(error) or type(error).__name__
        with suppress(SnasError):  # what stopped the search is the one to tell; a full disk may be both
            _end(registry, study, f"stopped: {reason}")
        raise
    else:
        _end(registry, study, FINISHED)


def pulse_of(registry: Database, study: Study) -> Pulse:
    """How a study is doing."""
    rows = registry.query("SELECT * FROM workers WHERE study_id = ?", study.id)
    if not rows:  # it was last worked on by a version that did not tell
        return Pulse(Life.FINISHED if _looks_finished(registry, study) else Life.STOPPED)
    row = rows[0]
    if row["outcome"] is not None:
        life = Life.FINISHED if row["outcome"] == FINISHED else Life.STOPPED
        reason = row["outcome"].partition(": ")[2] or None
    else:
        life, reason = _life_of(registry, study, row)
    return Pulse(life, row["host"], row["pid"], row["seen"], reason)


def _life_of(registry: Database, study: Study, row: sqlite3.Row) -> tuple[Life, str | None]:
    """Whether a study whose worker has not said goodbye is running, slow or dead, and why so."""
    silence = (datetime.now(UTC) - datetime.fromisoformat(row["seen"])).total_seconds()
    longest = registry.query(
        "SELECT max(seconds) FROM reports JOIN trainings ON trainings.id = training_id "
        "WHERE study_id = ?1 OR entry_id IN (SELECT id FROM entries WHERE study_id = ?1)",
        study.id,
    )[0][0]
    several = EPOCHS * (longest or 0.0)
    quiet = silence > max(QUIET, several)
    if row["machine"] == machine():
        state = process_state(row["pid"], row["process_start"])
        if state is None:
            return Life.DEAD, "its process is gone; the same command resumes it"
        if state in "Tt":
            return Life.SLOW, "its process is stopped by a signal"
        return (Life.SLOW, "its process lives") if quiet else (Life.RUNNING, None)
    if silence > max(SILENT, several):
        return Life.DEAD, f"nothing is heard of it from {row['host']}; the same command resumes it"
    return (Life.SLOW if quiet else Life.RUNNING), None


def machine() -> str:
    """What makes a pid's meaning: the boot of the system, and the namespace of its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{platform.node()} {sys.platform}"


def process_state(pid: int, start: str) -> str | None:
    """The state letter of the process with this pid that began at `start`; None where it lives no more."""
    if not start:  # not Linux, which tells neither start nor state
        return "R" if _answers(pid) else None
    found = _process(pid)
    return None if found is None or found[1] != start or found[0] in "ZX" else found[0]


def _process(pid: int) -> tuple[str, str] | None:
    """State and start of a process of this machine, from /proc; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()
    return values[0], values[19]


def _answers(pid: int) -> bool:
    if os.name != "posix":  # there a signal that only asks would end the process; time is to tell
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _begin(registry: Database, study: Study) -> None:
    found, now = _process(os.getpid()), _now()
    values = (study.id, platform.node(), machine(), os.getpid(), found[1] if found else "", now, now)
    with registry.together():
        registry.query(
            "INSERT OR REPLACE INTO workers (study_id, host, machine, pid, process_start, began, seen) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            *values,
        )


def _end(registry: Database, study: Study, outcome: str) -> None:
    registry.before_commit = None
    now = _now()
    with registry.together():
        registry.query(
            "UPDATE workers SET seen = ?, ended = ?, outcome = ? WHERE study_id = ?", now, now, outcome, study.id
        )


def _looks_finished(registry: Database, study: Study) -> bool:
    """Whether a winner was named, and nothing of the study is left in training."""
    named = registry.query("SELECT 1 FROM entries WHERE study_id = ? AND kind = 'searched' LIMIT 1", study.id)
    running = registry.query(
        "SELECT 1 FROM trainings WHERE status = ?2 AND "
        "(study_id = ?1 OR entry_id IN (SELECT id FROM entries WHERE study_id = ?1)) LIMIT 1",
        *(study.id, Status.RUNNING),
    )
    return bool(named) and not running


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
