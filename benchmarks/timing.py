"""What the benchmarks share: alternatives timed in turn, memory in a process of its own, ratios as tables, results.

Machines are shared and noisy. Alternatives therefore take turns, so that a busy minute falls on all of them; medians
are compared, and what is read are ratios within one run.
"""

from __future__ import annotations

import json
import os
import re
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Job = Callable[[], object]
RESULTS = Path(__file__).parent / "results"
MIB = 2**20
CLEAR_PEAK = "5"  # what /proc/PID/clear_refs is told to make the present memory the highest


def seconds_of(job: Job) -> float:
    """Seconds of the clock that a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def cpu_seconds_of(job: Job) -> float:
    """Seconds of this process's CPU time; waiting for a busy machine does not count."""
    start = time.process_time()
    job()
    return time.process_time() - start


def rounds(
    jobs: Mapping[str, Job], repeats: int, *, measure: Callable[[Job], float] = seconds_of
) -> dict[str, list[float]]:
    """Name -> what was measured of each job in each of `repeats` rounds, run in turn after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(repeats + 1):
        for name, job in jobs.items():
            value = measure(job)
            if number:
                found[name].append(value)
    return found


def interleaved(
    jobs: Mapping[str, Job], repeats: int, *, measure: Callable[[Job], float] = seconds_of
) -> dict[str, float]:
    """Median seconds of each job, run in turn after one round that does not count."""
    return {name: statistics.median(values) for name, values in rounds(jobs, repeats, measure=measure).items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation, median, least and most of some figures, and how many they are."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "n": len(values),
    }


def header(device: str = "cpu", **more: Any) -> dict[str, Any]:
    """Hardware, versions and threads; `more` is added."""

    from snas.training.devices import choose_device, environment

    return {**environment(choose_device(device)), "cores": usable_cores(), **more}


def version_of(package: str) -> str:
    """The installed version of a package, or "none"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def print_header(about: Mapping[str, Any], text: str = "") -> None:
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{text}\n" if text else "")


def save(
    name: str,
    results: Mapping[str, Any],
    *,
    about: Mapping[str, Any],
    summary: Mapping[str, float | str] | None = None,
    folder: Path = RESULTS,
) -> Path:
    """Write NAME.json: the environment, what the summary of all benchmarks shows (text -> ratio, or words), results."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}.json"
    document = {"environment": dict(about), "summary": dict(summary or {}), "results": results}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def table(title: str, seconds: Mapping[str, float], *, base: str, unit: str = "ms") -> str:
    """Lines with the time of each alternative in "ms" or "s", and how many times faster than `base` it is.

    Example:
        >>> print(table("a step", {"plain": 0.2, "ours": 0.1}, base="plain"))
        a step
          plain                                    200.0 ms     1.00x
          ours                                     100.0 ms     2.00x
    """
    lines = [title]
    for name, value in seconds.items():
        shown = f"{value:>10.2f} s " if unit == "s" else f"{value * 1e3:>10.1f} ms"
        lines.append(f"  {name:<36}{shown} {seconds[base] / value:>8.2f}x")
    return "\n".join(lines)


def highest_memory() -> int:
    """Bytes at the peak of this process: Linux's VmHWM, which belongs to this program alone, as getrusage's does not.

    Raises:
        OSError: where there is no /proc.
    """
    return _status("VmHWM")


def forget_peak() -> int:
    """Make the present memory the highest that is known, where the system lets us; returns the highest, in bytes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    return highest_memory()


def memory_of(job: Job, *, tree: bool = False) -> dict[str, int]:
    """Bytes before a job, and at its peak above that. Run it in a fresh process, after everything was imported.

    Args:
        job: what to do.
        tree: count the processes that this one starts too, shared pages by their share; the peak is the highest of
            samples then, 20 a second.
    """
    if not tree:
        before = forget_peak()
        job()
        return {"base": before, "above": highest_memory() - before}
    # A process looks on, not a thread: beside threads workers would not be copies of this process, as they are else.
    command = [sys.executable, __file__, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        before = int(watcher.stdout.readline())
        job()
        most, _ = watcher.communicate()
        return {"base": before, "above": max(0, int(most) - before)}


def watch(process: int) -> None:
    """Print the memory of a process and its descendants but this one, in bytes: at once, and the peak from then on when
    standard input ends."""
    most = _memory_of_tree(process)
    print(most, flush=True)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        most = max(most, _memory_of_tree(process))
    with suppress(BrokenPipeError):  # the job failed, and nobody asks
        os.write(sys.stdout.fileno(), f"{most}\n".encode())


def in_child(script: str, *arguments: str, threads: int | None = None) -> dict[str, Any]:
    """What a script writes to its standard output as JSON, run in a fresh process."""
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _status(field: str, process: int | str = "self") -> int:
    text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(rf"{field}:\s*(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def _memory_of_tree(root: int) -> int:
    """Bytes of a process and its descendants but this one, shared pages divided among those who share them (Linux's
    Pss)."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # it may end while it is looked at
            fields = (path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        if process == os.getpid():
            continue
        waiting += children.get(process, [])
        with suppress(OSError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
            found = re.search(r"^Pss:\s*(\d+) kB", text, re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
    return total


if __name__ == "__main__":
    watch(int(sys.argv[1]))
