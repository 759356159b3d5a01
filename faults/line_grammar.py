"""Command lines at random: the grammar of the command itself, with values that are good, hostile or damaged."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

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
