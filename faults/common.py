"""What the fault tests share: commands in processes of their own, registries read without our code, a verdict."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this package, whichever is installed
SETTLED = 120.0  # seconds that a command may take to begin
# Searches that take a second or two beside the start of Python.
SEARCH = (
    *("search", "--space", "lenet-300-100", "--strategy", "evolution", "--samples", "14", "--epochs", "8"),
    *("--confirm", "2", "--confirm-seeds", "1", "--final-seeds", "1", "--threads", "1"),
)
JSON = ("--quiet", "--format", "json")


@dataclass
class Verdict:
    """What a part has found: figures for the last line, and failures, each a line."""

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def count(self, what: str, number: float = 1) -> None:
        """Add to a figure."""
        self.figures[what] = self.figures.get(what, 0) + number

    def most(self, what: str, number: float) -> None:
        """Keep the highest value of a figure."""
        self.figures[what] = max(self.figures.get(what, number), number)

    def require(self, condition: bool, failure: str) -> bool:
        """Note a failure unless the condition holds; it is told at once. Returns the condition."""
        if not condition:
            self.failures.append(failure)
            print(f"  FAILED: {failure}", flush=True)
        return condition

    def end(self) -> int:
        """Print the last line; returns the exit code."""
        told = ", ".join(
            f"{what} {value:g}" if isinstance(value, float) else f"{what} {value}"
            for what, value in self.figures.items()
        )
        print(f"{self.name}: {'FAILED (' + str(len(self.failures)) + '); ' if self.failures else ''}{told}", flush=True)
        return 1 if self.failures else 0


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """The arguments that every part has."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--quick", action="store_true", help="a small part of it, in seconds: a smoke test")
    parser.add_argument("--seed", type=int, default=0, help="of what is random")
    return parser


def environment() -> dict[str, str]:
    """Of a command: this package, one thread."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def start(folder: Path, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """Start snas with arguments in a folder, as the leader of a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "snas", *arguments],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def run(
    folder: Path, *arguments: str, timeout: float = 600.0, before: Callable[[], None] | None = None
) -> tuple[int, str, str]:
    """Run snas to its end, in a forked process; returns exit code, output and errors."""
    process = Forked(folder, *arguments, before=before)
    try:
        out, err = process.communicate(timeout)
    finally:
        end(process)
    return process.wait(), out, err


def end(process: subprocess.Popen[str] | Forked) -> None:
    """End a command and whatever it started."""
    if process.poll() is not None and isinstance(process, Forked):
        return
    for number in (signal.SIGCONT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:  # it has just begun, and is no leader yet, or has just ended
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
    process.wait()


def clear_line(code: int, err: str, *, wanted: int = 1) -> bool:
    """Whether a command ended with this exit code and, of errors, one line at the end."""
    lines = [line for line in err.splitlines() if line.strip()]
    return code == wanted and "Traceback" not in err and bool(lines) and lines[-1].startswith("snas: ")


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="snas-faults-") as name:
        yield Path(name)


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of a registry by table, read from a copy: the file is left as the kill left it."""
    with folder() as place:
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copy(path.parent / name, place / name)
        with closing(sqlite3.connect(place / path.name)) as connection:
            connection.row_factory = sqlite3.Row
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                table: [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
                for table in tables
            }


def wait_for_worker(path: Path, process: subprocess.Popen[str] | Forked) -> bool:
    """Wait until the process works on a study of the registry; False where it has come to its end before."""
    return _wait(path, process, "SELECT 1 FROM workers WHERE pid = ?", process.pid)


def wait_for_epoch(path: Path, process: subprocess.Popen[str] | Forked) -> bool:
    """Wait until the process that works on a study has recorded an epoch; False where it has ended before."""
    return _wait(
        path,
        process,
        "SELECT 1 FROM workers WHERE pid = ? AND began < (SELECT max(recorded) FROM reports)",
        process.pid,
    )


def _wait(path: Path, process: subprocess.Popen[str] | Forked, sql: str, value: int) -> bool:
    """Wait until a query has an answer while the process runs."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < SETTLED:
        if path.exists():
            try:
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
                    if connection.execute(sql, (value,)).fetchall():
                        return True
            except sqlite3.OperationalError:
                pass  # the tables are not made yet
        time.sleep(0.005)
    return False


def results_of(text: str) -> dict[str, Any]:
    """What a search printed, without what another run of it has otherwise: times and places."""
    values: dict[str, Any] = json.loads(text)
    for name in ("wall_seconds", "registry"):
        values.pop(name)
    return values


def figures_of(rows: dict[str, list[dict[str, Any]]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Network and epoch -> figures, with the network's mask; the network's end under epoch 0. No clocks."""
    keys = {entry["id"]: entry["key"] for entry in rows["entries"]}
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    names = {}
    for row in rows["trainings"]:
        owner = "study" if row["study_id"] is not None else keys[row["entry_id"]]
        name = names[row["id"]] = owner, row["number"], row["repeat"]
        found[(*name, 0)] = tuple(
            row[column] for column in ("seed", "point", "kept", "mask_checksum", "status", "test_loss", "test_accuracy")
        )
    for row in rows["reports"]:
        values = [row[column] for column in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")]
        found[(*names[row["training_id"]], row["epoch"])] = tuple(values)
    return found


def in_parts(arguments: Sequence[str]) -> dict[str, str]:
    """Flags of a command and their values."""
    return {flag: value for flag, value in itertools.pairwise(arguments) if flag.startswith("--")}


class Forked:
    """snas with arguments in a process forked from this one, which has imported everything: it begins at once.

    A process as any other, but for the seconds that Python takes to import torch. It stands in for `subprocess.Popen`.
    """

    def __init__(self, place: Path, *arguments: str, before: Callable[[], None] | None = None) -> None:
        """Start it in a folder; `before` is called in the new process first."""
        preload()
        sys.stdout.flush()
        self._files = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.chdir(place)
                for number, file in enumerate(self._files, start=1):
                    os.dup2(file.fileno(), number)
                if before is not None:
                    before()
                from snas.cli.main import main

                code = main(list(arguments))
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code, negative of a signal; None while it runs."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 600.0) -> int:
        """Wait for its end."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired("snas", timeout)
            time.sleep(0.005)
        return code

    def communicate(self, timeout: float = 600.0) -> tuple[str, str]:
        """Wait for its end; returns output and errors."""
        self.wait(timeout)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
        return texts[0], texts[1]


@cache
def preload() -> None:
    """Import what a search imports; nothing is computed, for threads would not survive a fork."""
    os.environ.update(OMP_NUM_THREADS="1", COLUMNS="160", PYTHONPATH=environment()["PYTHONPATH"])
    for name in (
        *("api", "bench", "study", "finals", "cli.main", "cli.progress", "data.digits", "strategies.evolution"),
        *("evaluators.serial", "evaluators.stacked", "evaluators.processes", "pruning.methods", "search_spaces.plain"),
    ):
        importlib.import_module(f"snas.{name}")
    for name in ("torch._dynamo", "scipy.stats", "sklearn.datasets", "safetensors.torch"):
        importlib.import_module(name)
