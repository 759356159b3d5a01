"""Fuzzed command lines: exit codes 0, 1, 2 or 130 alone, no traceback, no control characters, JSON that parses.

The grammar is the command's own: every command and option, as typer has them. Values are good ones, hostile ones, and
good ones damaged; lines are cut, doubled and shuffled. They run in this program's processes, in folders of their own,
with data of few examples; one that takes too long is interrupted as Ctrl-C does it, and has to end as that says.

    python faults/command_lines.py --count 2000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from line_grammar import SMALL, command_line, grammar

ROOT = Path(__file__).resolve().parents[1]
CODES = (0, 1, 2, 130)
PATIENCE = 6.0  # seconds that one line may take before it is interrupted
MEMORY = 12 << 30  # bytes of address space of a process that runs lines
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OTHERS = {"NO_COLOR": "1", "COLUMNS": "100", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

NETWORK = """
from torch import nn

def small(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))

def raising():
    raise RuntimeError("no such luck")
"""


def furnish(folder: Path) -> None:
    """Write the files that lines name: good ones, and others that are not what they seem."""
    import pickle
    import sqlite3

    import numpy as np

    rng = np.random.default_rng(0)
    (folder / "empty").mkdir(exist_ok=True)
    x, y = rng.random((60, 1, 8, 8), dtype=np.float32), np.arange(60) % 3
    np.savez(folder / "tiny.npz", x=x, y=y)
    np.savez(folder / "objects.npz", x=np.array([{}, object], dtype=object), y=np.arange(2))
    (folder / "damaged.npz").write_bytes((folder / "tiny.npz").read_bytes()[:700])
    (folder / "net.py").write_text(NETWORK)
    values = dict.fromkeys(("blocks.0.first.linear", "blocks.0.second.linear", "classifier"), 0.5)
    (folder / "densities.json").write_text(json.dumps(values))
    (folder / "densities.toml").write_text("".join(f'"{key}" = {number}\n' for key, number in values.items()))
    (folder / "densities.csv").write_text("".join(f"{key},{number}\n" for key, number in values.items()))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "good.toml").write_text('epochs = 1\nfinal-seeds = 1\nspace = "mlp"\n')
    (folder / "wrong.toml").write_text('epochs = "many"\nunknown = 1\n')
    (folder / "damaged.toml").write_text("epochs = = 1")
    (folder / "code.toml").write_text('space = "net.py:small"\n')
    (folder / "pickled.json").write_bytes(pickle.dumps({"a": 1}))
    (folder / "text.db").write_text("plain text\n" * 100)
    (folder / "figures.csv").write_text("space,dataset,method,density,accuracy,source\nmlp,digits,snip,0.1,0.9,Mine\n")
    connection = sqlite3.connect(folder / "other.db")
    connection.execute("CREATE TABLE things (x)")
    connection.commit()
    connection.close()
    made = folder / "made.db"
    if not made.exists():
        for words in (["prune", *SMALL["prune"].split()], ["search", *SMALL["search"].split(), "--name", "made"]):
            code, _, err = run_line([*words, "--quiet"], seconds=600.0)
            if code != 0:
                raise RuntimeError(err)
    whole = made.read_bytes()
    (folder / "cut.db").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.db").write_bytes(whole[:5000] + os.urandom(3000) + whole[8000:])
    old = ROOT / "tests" / "registries" / "format-1.db"
    if old.exists():
        shutil.copy(old, folder / "old.db")


@contextlib.contextmanager
def in_time(seconds: float) -> Iterator[None]:
    """Interrupt what is inside as Ctrl-C does, should it take longer; again and again, should it not listen."""

    def ring(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 10.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """The same environment wherever it runs, and no way to the network; as it was before at the end."""
    before = dict(os.environ)
    os.environ.update(OTHERS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_line(words: Sequence[str], *, seconds: float = PATIENCE) -> tuple[int | None, str, str]:
    """Run one line in this process: exit code (None where an exception came out), standard output and error."""
    import torch

    from snas.cli.main import main as snas

    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    code: int | None = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with in_time(seconds):
                code = snas(list(words))
        except SystemExit as error:
            sys.stderr.write(f"Traceback: SystemExit {error.code}\n")
        except BaseException:
            traceback.print_exc()
    torch.set_num_threads(1)
    root.handlers = handlers
    texts = []
    for stream in (out, err):
        with contextlib.suppress(ValueError):
            stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "replace"))  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


def fault(words: Sequence[str], code: int | None, out: str, err: str) -> str:
    """What is wrong with how a line ended; "" where nothing is."""
    if code not in CODES:
        return f"exit code {code}"
    if "Traceback" in err or "Traceback" in out:
        return "traceback"
    if CONTROL.search(err) or CONTROL.search(out.replace("\r\n", "\n")):
        return "control characters"
    if code == 2 and out and "Usage:" not in out:  # a command without arguments shows its help
        return "wrong use, and something on standard output"
    if code == 2 and words and err.strip().count("\n") > 0:
        return "wrong use is told in several lines"
    if not asks_for_json(words):
        return ""
    if not out:
        return "no JSON, and exit code 0" if code == 0 else ""
    try:
        json.loads(out, parse_constant=lambda text: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        return "JSON does not parse"
    return ""


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether the line surely asks for JSON: the last --format says so, and no help is asked for."""
    if {"--help", "-h", "--version", "--"} & set(words):
        return False
    if "export" in words and any(word == "-o" or word.startswith("--output") for word in words):
        return False
    last = ""
    for place, word in enumerate(words):
        if word == "--format" and place + 1 < len(words):
            last = words[place + 1]
        elif word.startswith("--format="):
            last = word.partition("=")[2]
        elif word == "export":
            last = ""
    return last == "json"


def work(seed: int, first: int, count: int) -> None:
    """Run lines `first` .. of the seed in this folder; write a line of JSON for each on descriptor 3."""
    sys.path.insert(0, str(ROOT))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    known = grammar()
    folder = Path.cwd()
    furnish(folder)
    whole = (folder / "made.db").read_bytes()
    with os.fdopen(3, "w") as report:
        for number in range(first, first + count):
            words = command_line(random.Random(f"{seed} {number}"), known)
            began = time.perf_counter()
            code, out, err = run_line(words)
            wrong = fault(words, code, out, err)
            seconds = time.perf_counter() - began
            report.write(json.dumps([number, words, code, wrong, err[-3000:] if wrong else "", seconds]) + "\n")
            report.flush()
            if number % 50 == 49:  # rows do not gather for ever
                for path in folder.glob("made.db-*"):
                    path.unlink()
                (folder / "made.db").write_bytes(whole)


def fuzz(count: int, *, seed: int = 0, jobs: int = 2) -> tuple[Counter[int | None], list[str], float]:
    """Run so many lines in `jobs` processes.

    Returns:
        How often each exit code came, what was wrong, a text for each, and the longest time that a line took.
    """
    codes: Counter[int | None] = Counter()
    wrong: list[str] = []
    longest = 0.0
    with tempfile.TemporaryDirectory() as top:
        running = []
        for job in range(jobs):
            folder = Path(top) / str(job) / "deep" / "down"  # "../.." stays inside
            folder.mkdir(parents=True)
            first, last = count * job // jobs, count * (job + 1) // jobs
            read, write = os.pipe()
            command = [sys.executable, __file__, "--work", str(seed), str(first), str(last - first)]
            environment = {**os.environ, **OTHERS, "OMP_NUM_THREADS": "1", "HOME": top, "PYTHONPATH": str(ROOT)}
            environment |= {"SNAS_DATA": str(folder / "data"), "SNAS_CACHE": str(Path(top) / "cache")}
            process = subprocess.Popen(
                ["/bin/sh", "-c", f'exec "$@" 3>&{write}', "sh", *command],
                cwd=folder,
                env=environment,
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            os.close(write)
            running.append((process, read, last - first))
        for process, read, expected in running:
            done = 0
            with os.fdopen(read) as lines:
                for line in lines:
                    number, words, code, fault, err, seconds = json.loads(line)
                    done += 1
                    codes[code] += 1
                    longest = max(longest, seconds)
                    if fault:
                        wrong.append(f"line {number}: {fault}: {words!r}\n{err}")
            if process.wait() or done < expected:
                wrong.append(f"a process ended with exit code {process.returncode} after {done} of {expected} lines")
    return codes, wrong, longest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lines and say what came of them; 0 where nothing was wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--work"]:
        work(*map(int, arguments[1:]))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    chosen = parser.parse_args(arguments)
    chosen.count //= 10 if chosen.quick else 1
    codes, wrong, longest = fuzz(chosen.count, seed=chosen.seed, jobs=chosen.jobs)
    for text in wrong:
        print(text)
    told = ", ".join(f"{number} with exit code {code}" for code, number in sorted(codes.items(), key=str))
    print(f"{sum(codes.values())} command lines: {told}; {len(wrong)} wrong; the longest took {longest:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
