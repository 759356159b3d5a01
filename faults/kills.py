"""Random kill -9 of the driver of running searches, each followed by a resume: serial, stacked, processes.

After each kill the registry is read as it was left. After the resume all that it had must be there, once; at the end
the study must have as many candidates as asked for, promoted as a replay of the rule from the recorded scores has it,
and the same figures, masks and winner as a search that nobody killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    JSON,
    SEARCH,
    Forked,
    Verdict,
    end,
    figures_of,
    folder,
    in_parts,
    parser_of,
    read,
    results_of,
    run,
    start,
    wait_for_epoch,
    wait_for_worker,
)

from snas.evaluators.asha import Ladder
from snas.trials import Status, Trial

KINDS = {
    "serial": ("--evaluator", "serial"),
    "stacked": ("--evaluator", "stacked", "--slots", "3"),
    "processes": ("--evaluator", "processes", "--slots", "2"),
}
SHARES = {"serial": 60, "stacked": 20, "processes": 20}  # of 100 kills
AT_START = 0.15  # share of kills while a search begins: imports, data, opening the registry
AT_WORK = 0.75  # share of those after an epoch was recorded: processes take seconds until then
LONGEST = 1.5  # seconds after which it is killed at the latest


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--kills", type=int, help="in all; default: 100, with --quick 5")
    parser.add_argument("--only", choices=KINDS, help="one evaluator")
    options = parser.parse_args(argv)
    kills = options.kills or (5 if options.quick else 100)
    verdict = Verdict("kills")
    for kind in KINDS:
        if options.only in (None, kind):
            share = kills if options.only else max(1, kills * SHARES[kind] // 100)
            _kill(kind, share, random.Random(f"{options.seed} {kind}"), verdict)
    return verdict.end()


def _kill(kind: str, kills: int, rng: random.Random, verdict: Verdict) -> None:
    """Kill searches of an evaluator so many times."""
    began = time.monotonic()
    command = (*SEARCH, *KINDS[kind], *JSON)
    with folder() as place:
        code, out, err = run(place, *command, "--registry", "whole.db")
        if not verdict.require(code == 0, f"{kind}: the search that nobody kills ended with {code}: {err[-300:]}"):
            return
        whole, wanted = results_of(out), figures_of(read(place / "whole.db"))
        done = studies = 0
        while done < kills:
            path = place / f"killed-{studies}.db"
            done += _study(kind, path, command, kills - done, rng, verdict, whole, wanted)
            studies += 1
        verdict.count(f"{kind} kills", done)
        verdict.count(f"{kind} studies", studies)
    print(f"  {kind}: {done} kills in {studies} studies, {time.monotonic() - began:.0f} s", flush=True)


def _study(
    kind: str,
    path: Path,
    command: Sequence[str],
    most: int,
    rng: random.Random,
    verdict: Verdict,
    whole: dict[str, Any],
    wanted: dict[tuple[Any, ...], tuple[Any, ...]],
) -> int:
    """Kill and resume one search until it comes to its end; at most so many times. Returns how often it was killed."""
    kills = 0
    before: dict[str, list[dict[str, Any]]] | None = None
    while True:
        early = kills < most and rng.random() < AT_START
        process = (start if early else Forked)(path.parent, *command, "--registry", path.name)
        try:
            killed = kills < most and _kill_at_random(process, path, rng, early=early)
            out, err = process.communicate(timeout=600)
        finally:
            if not (
                kind == "processes" and process.returncode == -signal.SIGKILL
            ):  # its processes must end by themselves
                end(process)
        what = f"{kind}, {path.stem}, kill {kills}"
        verdict.require("Traceback" not in err, f"{what}: a traceback: {err[-400:]}")
        repeated = err.count("trained again")
        verdict.require(repeated == 0, f"{what}: epochs were lost: {err[-300:]}")
        if path.exists():
            rows = read(path)
            if before:
                _compare(before, rows, what, verdict)
            if killed:
                _look_at_files(path, rows, what, verdict)
            before = rows
        if not killed:
            break
        kills += 1
    if verdict.require(
        process.returncode == 0, f"{kind}: the last resume ended with {process.returncode}: {err[-300:]}"
    ):
        rows = read(path)
        _judge(kind, rows, command, verdict)
        same = figures_of(rows) == wanted
        verdict.count(
            f"{kind} results equal to the uninterrupted" if same and results_of(out) == whole else "different"
        )
        verdict.require(same, f"{kind}, {path.stem}: figures or masks differ from those of a search nobody killed")
        verdict.require(
            results_of(out) == whole, f"{kind}, {path.stem}: another result than that of a search nobody killed"
        )
    return kills


def _kill_at_random(process: Any, path: Path, rng: random.Random, *, early: bool) -> bool:
    """Kill the driver some time after it began to work, or to start; False where it came to its end before."""
    if early:
        time.sleep(rng.uniform(0.0, 4.0))
    elif (wait_for_epoch if rng.random() < AT_WORK else wait_for_worker)(path, process):
        time.sleep(rng.uniform(0.0, LONGEST))
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    return True


def _compare(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]], what: str, verdict: Verdict
) -> None:
    """Nothing that was recorded is gone, changed or there twice."""
    lost = 0
    for table, key in (
        ("reports", ("training_id", "epoch")),
        ("trainings", ("id",)),
        ("entries", ("id",)),
        ("studies", ("id",)),
    ):
        now = {tuple(row[name] for name in key): row for row in after.get(table, [])}
        for row in before.get(table, []):
            found = now.get(tuple(row[name] for name in key))
            if found is None or (table == "reports" and found != row):
                lost += 1
    verdict.count("recorded rows looked at again", len(before.get("reports", [])))
    verdict.count("lost", lost)
    verdict.require(lost == 0, f"{what}: {lost} recorded rows are gone or changed")
    places = Counter(
        (row["study_id"], row["entry_id"], row["number"], row["repeat"]) for row in after.get("trainings", [])
    )
    epochs = Counter((row["training_id"], row["epoch"]) for row in after.get("reports", []))
    twice = sum(number - 1 for counts in (places, epochs) for number in counts.values())
    verdict.count("duplicated", twice)
    verdict.require(twice == 0, f"{what}: {twice} rows are there twice")


def _look_at_files(path: Path, rows: dict[str, list[dict[str, Any]]], what: str, verdict: Verdict) -> None:
    """Of every network in training the last recorded epoch has its checkpoint, and at most one epoch is repeated."""
    epochs = Counter(row["training_id"] for row in rows.get("reports", []))
    files = {file.name for file in path.with_name(f"{path.name}.files").rglob("*.safetensors")}
    for row in rows.get("trainings", []):
        if row["status"] != Status.RUNNING:
            continue
        if row["study_id"] is not None:
            key = f"trial-{row['number']}" + (f"-repeat-{row['repeat']}" if row["repeat"] else "")
        else:
            key = f"entry-{row['entry_id']}-seed-{row['number']}"
        recorded = epochs[row["id"]]
        trained = [int(name.removeprefix(f"{key}-").partition(".")[0]) for name in files if _is_of(name, key)]
        ahead = max(trained, default=recorded) - recorded
        verdict.count("running trials at a kill")
        verdict.figures["most epochs repeated"] = max(
            verdict.figures.get("most epochs repeated", 0), 1 if ahead <= 1 else ahead
        )
        verdict.require(ahead <= 1, f"{what}: {key} was {ahead} epochs ahead of its record")
        verdict.require(
            not recorded or recorded in trained or _is_over(row, recorded),
            f"{what}: {key} lacks the checkpoint of its epoch {recorded}",
        )


def _is_of(name: str, key: str) -> bool:
    return name.startswith(f"{key}-") and name.removeprefix(f"{key}-").partition(".")[0].isdigit()


def _is_over(row: dict[str, Any], recorded: int) -> bool:
    """Whether all epochs are recorded, and only the end is not."""
    return row["entry_id"] is not None and recorded >= int(in_parts(SEARCH)["--epochs"])


def _judge(kind: str, rows: dict[str, list[dict[str, Any]]], command: Sequence[str], verdict: Verdict) -> None:
    """The study at its end: as many candidates as asked for, and promotions as a replay has them."""
    flags = in_parts(command)
    candidates = [row for row in rows["trainings"] if row["study_id"] is not None and row["repeat"] == 0]
    numbers = sorted(row["number"] for row in candidates)
    verdict.require(numbers == list(range(int(flags["--samples"]))), f"{kind}: candidates are {numbers}")
    ids = {row["id"]: row["number"] for row in candidates}
    scores: dict[int, dict[int, float]] = {number: {} for number in numbers}
    order = []
    for row in sorted(rows["reports"], key=lambda row: (row["recorded"], row["training_id"])):
        if row["training_id"] in ids:
            number = ids[row["training_id"]]
            scores[number][row["epoch"]] = row["validation_accuracy"]
            order.append((number, row["epoch"]))
    slots = int(flags.get("--slots", "1"))
    replayed, statuses = replay(Ladder(1, int(flags["--epochs"]), 2), scores, slots=slots, ahead=kind == "processes")
    same = replayed == order and statuses == {row["number"]: row["status"] for row in candidates}
    verdict.count("rungs equal to a replay" if same else "rungs different", 1)
    verdict.require(same, f"{kind}: the promotions are not those of a replay: {order} and {replayed}")


def replay(
    ladder: Ladder, scores: dict[int, dict[int, float]], *, slots: int, ahead: bool = False
) -> tuple[list[tuple[int, int]], dict[int, str]]:
    """Which epochs are trained in which order, and where candidates end, were the scores known beforehand.

    With `ahead` a candidate for the slot that is free next is chosen whenever all are busy, before the reports come.

    Returns:
        Pairs of candidate and epoch in the order of training, and the status of each candidate at the end.
    """
    history: list[Trial] = []
    until: dict[int, int] = {}  # of those in training
    chosen: list[int] = []  # ahead
    order: list[tuple[int, int]] = []

    def promote(found: tuple[int, int] | None) -> bool:
        if found is not None:
            history[found[0]] = _with(history[found[0]], status=Status.RUNNING)
            until[found[0]] = found[1]
        return found is not None

    while True:
        while len(until) < slots:
            if chosen:
                number = chosen.pop()
                until[number] = ladder.next_rung(0, number)
            elif promote(ladder.next_promotion(history)):
                continue
            elif len(history) < len(scores):
                until[len(history)] = ladder.next_rung(0, len(history))
                history.append(Trial(len(history), np.zeros(1)))
            elif until or not promote(ladder.last_resort(history)):
                break
        if not until:
            return order, {trial.number: str(trial.status) for trial in history}
        if ahead and not chosen and len(until) == slots and len(history) < len(scores):
            chosen.append(len(history))
            history.append(Trial(len(history), np.zeros(1)))
        for number in sorted(until):
            trial = history[number]
            epoch = trial.epochs + 1
            order.append((number, epoch))
            status = Status.RUNNING
            if epoch == until[number]:
                status = Status.FINISHED if epoch == ladder.maximum else Status.PAUSED
            history[number] = _with(trial, status=status, scores={**trial.scores, epoch: scores[number][epoch]})
        until = {number: rung for number, rung in until.items() if history[number].status is Status.RUNNING}


def _with(trial: Trial, **values: Any) -> Trial:
    return Trial(trial.number, trial.point, **{"status": trial.status, "scores": trial.scores, **values})


if __name__ == "__main__":
    sys.exit(main())
