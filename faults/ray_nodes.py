"""Two Ray nodes on loopback, a search of 40 candidates on both, and one of them killed in the middle.

    python faults/ray_nodes.py

Starts the nodes as examples/cluster.md says, kills every process of the second one when half of the epochs that the
search takes are recorded, and compares what comes of it with the serial evaluator's search of the same seed. Prints one
JSON object; the exit code is 1 if a candidate is missing or the results differ by more than noise.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray_kills import MARK, Search, marked, replay_errors

from snas.evaluators.asha import Ladder
from snas.trials import Status

RAY = str(Path(sys.executable).with_name("ray"))


def start_node(environment: Mapping[str, str], mark: str, *options: str) -> None:
    """Start a node whose processes have the mark in their environment."""
    done = subprocess.run(
        [RAY, "start", *options, "--num-cpus", "1", "--disable-usage-stats"],
        env={**environment, MARK: mark},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"ray start {' '.join(options)} failed: {done.stderr[-2000:]}")


def end_node(mark: str) -> int:
    """Kill -9 all processes of a node; how many there were."""
    number = 0
    while pids := marked(mark):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                number += 1
            except ProcessLookupError:
                pass  # it was faster
        time.sleep(0.1)
    return number


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Search on two nodes, kill one, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10, help="give up after so long")
    parser.add_argument("--quick", action="store_true", help="a smaller search")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.samples = min(chosen.samples, 16)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head, second = uuid.uuid4().hex, uuid.uuid4().hex
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="snas-nodes-", ignore_cleanup_errors=True) as folder:
        try:
            local = ("--node-ip-address", "127.0.0.1")
            start_node(
                environment, head, "--head", *local, "--port", str(port), "--include-dashboard", "false",
                "--temp-dir", f"{folder}/n",
            )  # fmt: skip
            start_node(environment, second, "--address", f"127.0.0.1:{port}", *local)
            found = _run(Path(folder), environment, port, second, chosen)
        finally:
            end_node(second)
            end_node(head)
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found["errors"] else 0


def _run(folder: Path, environment: Mapping[str, str], port: int, second: str, chosen: Any) -> dict[str, Any]:
    searches, results, seconds = {}, {}, {}
    killed = 0
    for name in ("serial", "ray"):
        (folder / name).mkdir()
        search = searches[name] = Search(folder / name, samples=chosen.samples, epochs=chosen.epochs)
        more = ["--final-seeds", "3", "--baselines", "none", "--evaluator", name]
        if name == "ray":
            more += ["--ray-address", f"127.0.0.1:{port}"]
        began = time.monotonic()
        process = search.start(uuid.uuid4().hex, more, environment)
        half = len(searches["serial"].rows()) // 2
        if name == "ray":
            deadline = time.monotonic() + 60 * chosen.minutes
            while process.poll() is None and len(search.rows()) < half and time.monotonic() < deadline:
                time.sleep(0.02)
            killed = end_node(second)
        out, err = process.communicate(timeout=60 * chosen.minutes)
        seconds[name] = round(time.monotonic() - began, 1)
        if process.returncode != 0:
            return {"errors": [f"{name}: exit code {process.returncode}: {err[-2000:]}"]}
        results[name] = json.loads(out)
        if name == "ray":
            told = err
    return _compare(searches, results, seconds, told, killed)


def _compare(
    searches: Mapping[str, Search], results: Mapping[str, Any], seconds: Mapping[str, float], told: str, killed: int
) -> dict[str, Any]:
    search = searches["ray"]
    trials, rows = search.trials(), search.rows()
    errors = replay_errors(rows, trials, Ladder(1, search.epochs, 2))
    if len(trials) != search.samples or any(trial.status in (Status.RUNNING, Status.FAILED) for trial in trials):
        errors.append(f"{len(trials)} candidates, expected {search.samples}, none running or failed")
    figures = {name: {row[:2]: row[2:-1] for row in one.rows()} for name, one in searches.items()}
    both = figures["serial"].keys() & figures["ray"].keys()
    different = [place for place in both if figures["serial"][place] != figures["ray"][place]]
    if different:
        errors.append(f"{len(different)} epochs have other figures than in the serial search, {different[0]} first")
    best = {name: result["best"] for name, result in results.items()}
    tests = {name: (one["test_accuracy"]["mean"], one["test_accuracy"]["std"]) for name, one in best.items()}
    noise = 2 * max(tests[name][1] or 0 for name in tests) + 0.005
    if abs(tests["ray"][0] - tests["serial"][0]) > noise:
        errors.append(f"test accuracies differ by more than noise: {tests}")
    return {
        "candidates": len(trials),
        "finished": sum(trial.status is Status.FINISHED for trial in trials),
        "paused": sum(trial.status is Status.PAUSED for trial in trials),
        "failed": sum(trial.status is Status.FAILED for trial in trials),
        "processes of the node killed": killed,
        "trials begun anew": told.count("goes on from epoch"),
        "epochs, serial and ray": [len(figures["serial"]), len(figures["ray"])],
        "epochs with equal figures to the bit": f"{len(both) - len(different)} of {len(both)}",
        "test accuracy, mean and deviation of 3 seeds": tests,
        "seconds": dict(seconds),
        "errors": errors,
    }


if __name__ == "__main__":
    sys.exit(main())
