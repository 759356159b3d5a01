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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CODES = (0, 1, 2, 130)
PATIENCE = 6.0  # seconds that one line may take before it is interrupted
MEMORY = 12 << 30  # bytes of address space of a process that runs lines
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OTHERS = {"NO_COLOR": "1", "COLUMNS": "100", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

# What options take, by name; "" is what others take.
GOOD: dict[str, list[str]] = {
    "space": ["mlp", "lenet-300-100", "net.py:small", "net:small", "resnet14", "mlp-relu"],
    "space-arg": ["hidden_layers=2", "width=8", "width=4", "dropout=0.1"],
    "dataset": ["tiny.npz", "digits", "tiny.npz"],
    "data-dir": [".", "empty"],
    "epochs": ["1", "2"],
    "batch-size": ["8", "16", "1"],
    "lr": ["0.1", "0.01", "1e30", "0"],
    "optimizer": ["sgd", "adam"],
    "weight-decay": ["0", "0.001"],
    "schedule": ["cosine", "constant"],
    "label-smoothing": ["0", "0.1"],
    "augment": ["auto", "on", "off"],
    "precision": ["fp32", "bf16", "auto"],
    "init": ["he", "normal:0.1", "truncated:0.2", "xavier"],
    "rescale": ["on", "off", "auto"],
    "first-layer": ["search", "dense"],
    "last-layer": ["search", "dense"],
    "seed": ["0", "1", "42"],
    "final-seeds": ["0", "1", "2"],
    "device": ["cpu", "auto"],
    "threads": ["1", "2"],
    "kernel": ["auto", "dense", "sparse"],
    "registry": ["made.db", "new.db", "old.db"],
    "strategy": ["random", "sobol", "bayes", "evolution", "cmaes", "nsga2"],
    "strategy-arg": ["kappa=1", "population=4"],
    "samples": ["1", "2", "3"],
    "grace": ["1", "2"],
    "eta": ["2", "3"],
    "representation": ["layer", "block", "depth", "uniform"],
    "mask": ["random", "snip", "synflow", "random,snip", "auto", "magnitude"],
    "train": ["static", "set", "rigl", "auto"],
    "shape": ["hidden_layers=1,2", "width=4..8"],
    "objectives": ["accuracy", "accuracy,kept_weights", "accuracy,flops"],
    "warm-start": ["none", "rules", "1", "densities.json", "densities.toml", "densities.csv"],
    "screen": ["egf1", "paths:4"],
    "brackets": ["1", "2"],
    "confirm": ["0", "2"],
    "confirm-seeds": ["0", "1"],
    "front": ["1", "4"],
    "density": ["0.5", "0.1", "1"],
    "weights": ["200", "500"],
    "max-density": ["0.5", "1"],
    "min-density": ["0.1"],
    "max-weights": ["500"],
    "max-flops": ["100000"],
    "floor": ["*=0.01", "classifier=0.1"],
    "cap": ["*=0.9"],
    "pin": ["classifier=0.5", "blocks.*=0.9"],
    "baselines": ["none", "snip", "dense,erk"],
    "evaluator": ["auto", "serial", "stacked"],
    "slots": ["1", "2"],
    "name": ["one", "a-study", "made"],
    "method": ["snip", "dense", "random", "erk", "rigl", "set", "synflow", "magnitude"],
    "methods": ["dense,snip", "random", "snip,erk"],
    "densities": ["0.5", "0.5,0.2"],
    "densities-from": ["1", "densities.json", "densities.toml", "densities.csv"],
    "reference": ["snip", "dense"],
    "seeds": ["1", "2"],
    "jobs": ["1"],
    "output": ["out.md", "out.csv", "-", "empty/out.html"],
    "format": ["json", "json", "table", "csv", "md", "html", "latex"],
    "config": ["good.toml", "wrong.toml"],
    "plot": ["front.png", "front.svg"],
    "pareto": ["accuracy,kept_weights", "flops"],
    "study": ["made", "one"],
    "error": ["std", "sem", "ci"],
    "": ["1", "2", "made", "spaces", "figures.csv", "methods", "snip"],
}
BAD = [
    *(
        "",
        " ",
        "-1",
        "0",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "99999999999999999999999",
        "3.5",
        "0x10",
        "1_000",
        "\u0663",
    ),
    *(
        "true",
        "none",
        "null",
        "a=b",
        "=",
        "x=",
        "=x",
        "a=b=c",
        ",",
        ",,",
        "a,,b",
        "*=2",
        "*=nan",
        "[=1",
        "?=0.5",
        "**=1",
    ),
    *(
        "\0",
        "a\0b",
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07",
        "\r\nx",
        "a\tb",
        "\u202egnp.exe",
        "\ufeff",
        "\udc80\udcff",
        "\U0001f600",
    ),
    *(
        "../../../up",
        "../up.db",
        "./.",
        "..",
        ".",
        "/dev/null",
        "/dev/full",
        "/nowhere/at/all",
        "~",
        "~root/x",
        "empty",
    ),
    *(
        "x" * 300,
        "x" * 5000,
        "a/" * 200,
        "=cmd|' /C calc'!A0",
        "<script>alert(1)</script>",
        "\\input{x}",
        "[red]x[/red]",
        "[/]",
        "%s%n{}",
    ),
    *(
        "--",
        "-",
        "--help",
        "-q",
        "--format",
        "mlp:",
        ":x",
        "os:system",
        "net.py:",
        "net.py:raising",
        "net.py:nothing",
        "builtins:eval",
    ),
    *(
        "snip:",
        "snip:every=1",
        "rigl:every=x",
        "random + rigl",
        "random + nothing",
        "0..5",
        "5..1",
        "1..1000000000",
        "egf1:0",
        "egf1:x",
    ),
    *(
        "broken.db",
        "text.db",
        "other.db",
        "cut.db",
        "damaged.npz",
        "objects.npz",
        "damaged.toml",
        "deep.json",
        "code.toml",
        "pickled.json",
    ),
    *(
        "1.5",
        "1000000",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "1e308",
        "5e-324",
    ),
]
FIRST = [
    *(["search"] * 6),
    *(["prune"] * 4),
    *(["sweep"] * 3),
    *("train", "train", "transfer", "transfer", "show", "show", "list", "cite", "cite", "leaderboard", "leaderboard"),
]
SMALL = {
    "search": "--space mlp --space-arg hidden_layers=2 --space-arg width=8 --dataset tiny.npz --samples 2 --epochs 1 "
    "--final-seeds 1 --strategy random --baselines none --confirm-seeds 0 --evaluator serial --registry made.db",
    "prune": "--space mlp --space-arg hidden_layers=2 --space-arg width=8 --dataset tiny.npz --epochs 1 "
    "--final-seeds 1 --density 0.5 --registry made.db",
    "sweep": "--space mlp --space-arg hidden_layers=2 --space-arg width=8 --dataset tiny.npz --epochs 1 "
    "--seeds 1 --methods snip --densities 0.5 --registry made.db",
    "train": "1 --dataset tiny.npz --registry made.db",
    "transfer": "1 --dataset tiny.npz --epochs 1 --final-seeds 1 --registry made.db",
    "leaderboard": "--registry made.db",
    "show": "1 --registry made.db",
}
NETWORK = """
from torch import nn

def small(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))

def raising():
    raise RuntimeError("no such luck")
"""


@dataclass(frozen=True)
class Option:
    """An option of a command: its names, and whether it takes a value."""

    names: tuple[str, ...]
    flag: bool

    @property
    def key(self) -> str:
        """Its long name without dashes."""
        return max(self.names, key=len).lstrip("-")


def grammar() -> dict[tuple[str, ...], list[Option]]:
    """Every command of the real program, with its options."""
    import typer

    from snas.cli.main import app

    found: dict[tuple[str, ...], list[Option]] = {}

    def visit(command: Any, path: tuple[str, ...]) -> None:
        options = [item for item in command.params if item.param_type_name == "option"]
        found[path] = [Option((*item.opts, *item.secondary_opts), bool(item.is_flag)) for item in options]
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, (*path, name))

    visit(typer.main.get_command(app), ())
    return found


def command_line(rng: random.Random, known: dict[tuple[str, ...], list[Option]]) -> list[str]:
    """One line, mostly near a right one."""
    paths = sorted(known)
    weighted = [path for path in paths for _ in range(FIRST.count(path[0]) if path else 1)]
    path = rng.choice(weighted or paths)
    words = list(path)
    if path and rng.random() < 0.85:
        words += SMALL.get(path[0], "").split()
        if len(path) > 1:  # an option of the outer command comes before the inner one
            words = [path[0], *words[len(path) :], *path[1:]]
    options = known[path]
    if options and rng.random() < 0.4:  # one option of a right line has something odd
        option = rng.choice([one for one in options if not one.flag] or options)
        words += [rng.choice(option.names), *([] if option.flag else [odd(rng, option.key)])]
        return [tame(word) for word in (*words, *(("--format", "json") if path and rng.random() < 0.2 else ()))]
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        if options and rng.random() < 0.93:
            option = rng.choice(options)
            name = rng.choice(option.names)
            if option.flag and rng.random() < 0.9:
                words.append(name)
            elif rng.random() < 0.2:
                words.append(f"{name}={value(rng, option.key)}")
            else:
                words += [name, value(rng, option.key)]
        else:
            words.append(value(rng, ""))
    if rng.random() < 0.35 and path:
        words += ["--format", "json"]
    return [tame(word) for word in damaged(rng, words)]


def value(rng: random.Random, key: str) -> str:
    """A value for an option: a good one, one of another option, a hostile one, or a good one damaged."""
    chance = rng.random()
    good = rng.choice(GOOD.get(key, GOOD[""]))
    if chance < 0.5:
        return good
    if chance < 0.58:
        return rng.choice(GOOD[rng.choice(sorted(GOOD))])
    return odd(rng, key)


def odd(rng: random.Random, key: str) -> str:
    """A hostile value, or a good one damaged."""
    if rng.random() < 0.75:
        return rng.choice(BAD)
    text = list(rng.choice(GOOD.get(key, GOOD[""])))
    for _ in range(rng.randint(1, 3)):
        place = rng.randint(0, len(text))
        text[place : place + rng.randint(0, 2)] = rng.choice(
            ("", "\0", "\n", "-", "=", ",", ":", ".", "/", "\u0301", "\ud800", "9", "x", " ", "'", '"', "%")
        )
    return "".join(text)


def damaged(rng: random.Random, words: list[str]) -> list[str]:
    """The line, sometimes cut, doubled in part, or in another order."""
    chance = rng.random()
    if chance < 0.05:
        return words[: rng.randint(0, len(words))]
    if chance < 0.10 and words:
        place = rng.randrange(len(words))
        return [*words, *words[place : place + rng.randint(1, 4)]]
    if chance < 0.13:
        rng.shuffle(words)
    elif chance < 0.16 and words:
        del words[rng.randrange(len(words))]
    return words


def tame(word: str) -> str:
    """Nothing is to be written outside the folder: absolute paths are only those that nothing can come of."""
    head, equals, tail = word.partition("=")
    if equals and head.startswith("-"):
        return f"{head}={tame(tail)}"
    return f".{word}" if word.startswith("/") and not word.startswith(("/dev/null", "/dev/full", "/nowhere")) else word


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
