"""Kill -9 of the driver of a running Ray search at random moments, each followed by a resume: is anything lost?

    python faults/ray_kills.py --kills 20

The search is of small networks whose batches are counted where they are trained, so that what was trained in vain can
be told from what was recorded. Prints one JSON object; the exit code is 1 if anything was lost, doubled or left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from snas.evaluators.asha import Ladder
from snas.registry import Registry
from snas.trials import Status, Trial

BATCH, BATCHES, AT_A_TIME, MARK = 32, 41, 2, "SNAS_FAULTS_MARK"
KILLED = ["--final-seeds", "0", "--evaluator", "ray", "--concurrency", str(AT_A_TIME)]
SPACE = '''
import math, os, time
from torch import nn

class Counted(nn.Module):
    """A small network that notes every batch it is trained on, and takes its time."""

    def __init__(self, inputs, classes, file):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 24), nn.ReLU(), nn.Linear(24, classes))
        self.file = file

    def forward(self, x):
        if self.training and len(x) in SIZES:
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, b".")
            os.close(descriptor)
            time.sleep(0.005)
        return self.layers(x)

def factory(input_shape, classes):
    return Counted(math.prod(input_shape), classes, FILE)
'''


class Search:
    """A search that is killed and resumed."""

    def __init__(self, folder: Path, *, samples: int, epochs: int) -> None:
        """Write its space into a folder, where its registry will be too."""
        self.folder = folder
        self.samples = samples
        self.epochs = epochs
        self.counts = folder / "batches"
        sizes = f"SIZES = {{{BATCH}, {1294 % BATCH}}}\nFILE = {str(self.counts)!r}\n"
        (folder / "space.py").write_text(sizes + SPACE, encoding="utf-8")
        self.registry = folder / "r.db"

    def start(
        self, mark: str, more: Sequence[str] = KILLED, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start or resume it, with more options; all processes that come of it have `mark` in their environment."""
        command = [sys.executable, "-m", "snas", "search", "--space", "space.py:factory", "--strategy", "random"]
        command += ["--samples", str(self.samples), "--epochs", str(self.epochs), "--batch-size", str(BATCH)]
        command += ["--confirm", "0", "--threads", "1", "--registry", "r.db", "--format", "json", "--quiet", *more]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**(environment or os.environ), MARK: mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def rows(self) -> list[tuple[Any, ...]]:
        """Every recorded epoch of a candidate, in the order of filing: candidate, epoch, figures, time."""
        if not self.registry.exists():
            return []
        # Closed at once: a Registry looks at the files while it is opened, which may give up the locks of others here.
        with closing(sqlite3.connect(self.registry, timeout=60)) as connection:
            try:
                return connection.execute(
                    "SELECT number, epoch, train_loss, train_accuracy, validation_loss, validation_accuracy, recorded "
                    "FROM reports JOIN trainings ON trainings.id = training_id WHERE study_id IS NOT NULL "
                    "ORDER BY recorded, number, epoch"
                ).fetchall()
            except sqlite3.OperationalError:
                return []  # the tables are not made yet

    def trials(self) -> list[Trial]:
        """The candidates as the registry has them."""
        if not self.registry.exists():
            return []
        with Registry(str(self.registry), create=False) as registry:
            return [
                Trial(
                    record.number,
                    record.point,
                    record.status,
                    {one.epoch: one.validation_accuracy for one in record.reports},
                )
                for study in registry.studies()
                for record in registry.candidates(study)
            ]

    def epochs_begun(self) -> float:
        """Epochs that were trained at all, recorded or not."""
        return (self.counts.stat().st_size if self.counts.exists() else 0) / BATCHES


def marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes()
                state = (
                    Path(f"/proc/{name}/stat")
                    .read_text(encoding="utf-8", errors="replace")
                    .rpartition(")")[2]
                    .split()[0]
                )
            except OSError:
                continue  # it has ended, or is another user's
            if f"{MARK}={mark}".encode() in environment.split(b"\0") and state != "Z":
                found.append(int(name))
    return found


def is_agent(pid: int) -> bool:
    """Whether a process is one of the two that Ray has beside every node."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True  # it has ended
    return b"DashboardAgent" in command or b"RuntimeEnvAgent" in command


def wait_for_orphans(mark: str, seconds: float, *, agents: bool) -> float | None:
    """Seconds until no marked process is left, but for Ray's agents unless they count too: they do nothing, and try for
    a minute to tell a cluster that is gone. None where some outlive the patience, which are ended then."""
    began = time.monotonic()
    while left := [pid for pid in marked(mark) if agents or not is_agent(pid)]:
        if time.monotonic() - began > seconds:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return None
        time.sleep(0.1)
    return time.monotonic() - began


def replay_errors(rows: Sequence[tuple[Any, ...]], trials: Sequence[Trial], ladder: Ladder) -> list[str]:
    """What the rungs of the registry have that a replay of its reports, in the order of filing, does not allow."""
    errors = []
    scores: dict[int, dict[int, float]] = {}
    allowed: set[tuple[int, int]] = set()

    def note() -> None:
        for rung in ladder.rungs[:-1]:
            there = {number: found[rung] for number, found in scores.items() if rung in found}
            for number in there:
                if ladder.decide(number, rung, there) == "promote":
                    allowed.add((number, rung))

    for number, epoch, *_, accuracy, _ in rows:
        before = max(scores.get(number, {}), default=0)
        if epoch != before + 1:
            errors.append(f"candidate {number} has epoch {epoch} after {before}")
        if before in ladder.rungs and (number, before) not in allowed:
            errors.append(f"candidate {number} went on from rung {before} without a promotion")
        scores.setdefault(number, {})[epoch] = accuracy
        note()
    for trial in trials:
        epochs = max(scores.get(trial.number, {}), default=0)
        waits = epochs in ladder.rungs and (trial.number, epochs) not in allowed
        expected = {Status.FINISHED} if epochs == ladder.maximum else {Status.PAUSED} if waits else {Status.RUNNING}
        if epochs in ladder.rungs and not waits and epochs < ladder.maximum:
            expected = {Status.PAUSED, Status.RUNNING}  # promoted, whether or not it had begun
        if trial.status not in expected:
            errors.append(f"candidate {trial.number} is {trial.status} at epoch {epochs}")
    return errors


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--samples", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30, help="give up after so long")
    parser.add_argument("--quick", action="store_true", help="three kills of a smaller search")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.kills, chosen.samples = min(chosen.kills, 3), min(chosen.samples, 24)
    rng = random.Random(chosen.seed)
    until = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory(prefix="snas-ray-kills-", ignore_cleanup_errors=True) as folder:
        found = _run(Search(Path(folder), samples=chosen.samples, epochs=chosen.epochs), chosen.kills, rng, until)
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found["errors"] else 0


def _run(search: Search, kills: int, rng: random.Random, until: float) -> dict[str, Any]:
    ladder = Ladder(1, search.epochs, 2)
    errors: list[str] = []
    known: dict[tuple[int, int], tuple[Any, ...]] = {}
    done, early, orphans, vain, marks = 0, 0, 0.0, [], []
    while True:
        begun, recorded = search.epochs_begun(), len(known)
        mark = uuid.uuid4().hex
        process = search.start(mark)
        killed = done < kills and _kill_at_random(process, search, rng, len(known), until)
        if not killed and time.monotonic() > until:
            process.kill()
            errors.append("it took too long")
        out, err = process.communicate()
        ended = wait_for_orphans(mark, 20, agents=False)
        marks.append(mark)
        if ended is None:
            errors.append("processes of a killed driver were left after 20 s")
        else:
            orphans = max(orphans, ended)
        rows, trials = search.rows(), search.trials()
        if len({row[:2] for row in rows}) != len(rows):
            errors.append("an epoch is recorded twice")
        now = {row[:2]: row[2:] for row in rows}
        errors += [f"epoch {place} was lost or changed" for place, row in known.items() if now.get(place) != row]
        errors += replay_errors(rows, trials, ladder)
        if sorted(trial.number for trial in trials) != list(range(len(trials))) or len(trials) > search.samples:
            errors.append(f"{len(trials)} candidates, or their numbers have gaps")
        known = now
        vain.append(round(search.epochs_begun() - begun - (len(known) - recorded), 2))
        if vain[-1] > AT_A_TIME:
            errors.append(f"{vain[-1]} epochs trained in vain, with {AT_A_TIME} trials at a time")
        if killed:
            done += 1
            early += len(known) == recorded
            continue
        break
    if any(wait_for_orphans(mark, 120, agents=True) is None for mark in marks):
        errors.append("agents of a Ray whose driver was killed were left after 120 s")
    if process.returncode != 0:
        errors.append(f"the last resume ended with {process.returncode}: {err[-500:]}")
    else:
        json.loads(out)
    if len(trials) != search.samples or any(trial.status is Status.RUNNING for trial in trials):
        errors.append(f"{len(trials)} candidates in the end, expected {search.samples}, none running")
    if ladder.next_promotion(trials) is not None:
        errors.append("a promotion was forgotten")
    return {
        "kills": done,
        "kills before the first report of the run": early,
        "candidates": len(trials),
        "epochs recorded": len(known),
        "epochs trained in vain, by kill": vain,
        "seconds until the last process of a killed driver had ended, at most": round(orphans, 1),
        "errors": errors,
    }


def _kill_at_random(
    process: subprocess.Popen[str], search: Search, rng: random.Random, recorded: int, until: float
) -> bool:
    """Kill the driver: one time in four at any moment of its start, else after some reports. Whether it lived to be."""
    if rng.random() < 0.25:
        deadline, wanted = time.monotonic() + rng.uniform(0, 20), sys.maxsize
    else:
        deadline, wanted = until, recorded + rng.randint(1, 9)
    while process.poll() is None and time.monotonic() < deadline and len(search.rows()) < wanted:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.3))
    if process.poll() is not None:
        return False
    process.kill()
    return True


if __name__ == "__main__":
    sys.exit(main())
