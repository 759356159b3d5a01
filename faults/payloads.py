"""Hostile texts, rows and files: nothing of them becomes a formula, tag or command, is run, or is written elsewhere.

Texts stand in every field of a registry's rows, and go through every table and export of the command. Rows have values
of other types, shapes and sizes than ours. Files with code in a pickle are given to every option that takes a file,
under every ending; rows and configurations name code. All is done by the command itself, and what came out is read by
parsers of this file alone.

    python faults/payloads.py
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import shutil
import sqlite3
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from command_lines import CONTROL, run_line, surroundings  # noqa: E402
from export_shapes import SHAPES  # noqa: E402

MARK = "RAN"
CODE = "from pathlib import Path; Path('RAN').touch()"
# fmt: off
TEXTS = [
    # formulas
    "=1+1", "+1+1", "-1+cmd|'/C calc'!A0", "@SUM(1)", " =1+1", "\t=1", "\r\n=1", "\u00a0=1", "\u200b=1", "\uff1d1+1",
    "'=1", '"=1', '";=1+1', "x;=1+1", 'x",=1+1,"', "x\n=1+1", "x\t=1+1", "=HYPERLINK(\"http://evil.test\")", "\ufeff=1",
    "%=1", "\x00=1", "\x1b=1", "\uff0b1", "\uff0d1", "\uff201", "DDE(\"cmd\")",
    # tags
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></table><h1>x",
    "\" onmouseover=\"alert(1)", "' x='y",
    "<!--",
    "&lt;b&gt;", "</title></style><script>x</script>", "javascript:alert(1)", "<svg/onload=alert(1)>",
    # LaTeX
    "\\input{/etc/passwd}", "\\write18{id}", "\\end{tabular}", "$x$", "a & b", "100%", "#1", "^^5cinput{x}", "{", "}}",
    "\\", "a\\\\b", "~", "_x^2",
    # Markdown
    "a | b", "\\| b", "[x](http://evil.test)", "![x](http://evil.test/x.png)", "`x`", "``", "# x", "| --- |", "<http://evil.test>",
    "http://evil.test", "x\n\n# y", "\n- item", "*b* _c_ ~~d~~", "[x]: http://evil.test",
    # terminals
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\x1b]8;;http://evil.test\x1b\\x", "[red]x[/red]", "[/]",
    "[link=x]y", "[bold",
    "\x08\x08", "\r overwritten", "\u202egpj.exe", "\u2066x\u2069", "\x7f", "%s%s%n", "{0}", "${HOME}",
    "{{7*7}}",
    # paths and sizes
    "../../../up", "/nowhere/x", "..", "a/../../b", "nul\x00x", "CON", "aux.txt", "~/x", "file:///etc/passwd", "",
    " ", "\n",
    "n" * 5000, "=" * 5000, "<" * 5000, "\ud800", "\U0001f600", "e\u0301", "\u0661",
]
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 10**30, float("inf"), float("nan"), "x", "", [], {}, [[]], {"a": {}}, "9" * 400,
    [1] * 20_000, {str(number): 1 for number in range(20_000)}, 2**63, -(2**63), 1e308, "\ud800",
]
# fmt: on
COLUMNS = {
    "entries": ("name", "method", "strategy", "mask_rule", "source", "created", "key", "kind"),
    "studies": ("name", "created"),
    "trainings": ("reason", "mask_checksum", "status"),
}
DOCUMENTS = {
    "entries": ("space", "dataset", "rule", "kept", "environment"),
    "studies": ("identity", "environment"),
    "trainings": ("kept", "point", "traits", "signals"),
}
NUMBERS = {
    "entries": ("seed", "kept_weights", "total_weights", "candidate", "search_epochs", "search_seconds", "superseded"),
    "studies": ("samples",),
    "trainings": ("number", "repeat", "seed", "test_loss", "test_accuracy"),
    "reports": ("epoch", "train_loss", "validation_accuracy", "seconds"),
}
CODE_NAMES = (
    *("evil.py:factory", "evil:factory", "os:system", "../c/evil.py:factory", "builtins:eval"),
    *("tiny.npz", "../../x.npz"),
)
NAMED = ("space", "dataset")
PARTS = ("texts", "names", "files", "rows")
EXPORTS = ("csv", "json", "md", "html", "latex")
MAKE = (
    "--space mlp --space-arg hidden_layers=2 --space-arg width=8 --dataset tiny.npz --epochs 1 --final-seeds 1 --quiet"
)
READ = [
    ["leaderboard"],
    ["leaderboard", "--format", "json"],
    ["leaderboard", "--pareto", "flops"],
    ["show", "1"],
    ["show", "1", "--format", "json"],
    ["show", "2"],
    ["analyze", "signals"],
    ["analyze", "signals", "--format", "json"],
    *(["leaderboard", "export", "--format", name] for name in EXPORTS),
]
USE = [
    ["train", "1", "--dataset", "tiny.npz", "--quiet"],
    ["train", "2", "--quiet"],
    ["transfer", "1", "--quiet", "--epochs", "1", "--final-seeds", "1", "--dataset", "tiny.npz"],
    ["weights", "1"],
    ["weights", "1", "-o", "out.safetensors"],
    ["prune", *MAKE.split(), "--densities-from", "1", "--method", "random"],
    ["search", *MAKE.split(), "--warm-start", "1", "--samples", "1", "--strategy", "random", "--baselines", "none"],
    ["search", *MAKE.split(), "--name", "made", "--samples", "1", "--strategy", "random", "--baselines", "none"],
]


class Code:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE,)


class Trial:
    """Runs commands in a folder, and finds what went wrong beside what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a" / "b" / "c"
        self.folder.mkdir(parents=True)
        self.outside = folder
        os.chdir(self.folder)
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self._furnish()

    def command(self, words: Sequence[str], what: str, *, codes: Sequence[int] = (0, 1, 2)) -> str:
        """Run one, note what is wrong, and return what it wrote to standard output."""
        code, out, err = run_line([*words], seconds=600.0)
        self.counts["commands"] += 1
        if code not in codes or "Traceback" in err:
            self.fault("traceback or exit code", f"{code} of {words} with {what}: {err[-1500:]}")
        if CONTROL.search(err) or CONTROL.search(out.replace("\r\n", "\n")):
            self.fault("control characters", f"{words} with {what}: {out[-300:]!r} {err[-300:]!r}")
        if code == 0 and "--format" in words and words[-1] == "json":
            with suppress(ValueError):
                json.loads(out)
                return out
            self.fault("JSON does not parse", f"{words} with {what}")
        return out if code == 0 else ""

    def fault(self, kind: str, text: str) -> None:
        """Note that something is wrong."""
        self.counts[kind] += 1
        self.wrong.append(f"{kind}: {text}")
        print(self.wrong[-1], flush=True)

    def look_around(self, what: str) -> None:
        """Note code that ran, and files outside the folder; now and then tell how far it is."""
        self.counts["looks around"] += 1
        if self.counts["looks around"] % 10 == 0:
            sys.stderr.write(f"so far {self.told()}\n")
        if Path(MARK).exists() or list(self.outside.rglob(MARK)):
            self.fault("executions", what)
            for path in self.outside.rglob(MARK):
                path.unlink()
        strays = [path for path in self.outside.rglob("*") if path.is_file() and self.folder not in path.parents]
        if strays:
            self.fault("writes outside", f"{what}: {strays}")
            for path in strays:
                path.unlink()

    def told(self) -> str:
        """What was counted."""
        return ", ".join(f"{number} {what}" for what, number in self.counts.items())

    def registry(self) -> None:
        """Put the registry back as it was made."""
        for path in self.folder.glob("snas.db*"):
            if path.is_file():
                path.unlink()
        shutil.copy("made", "snas.db")

    def change(self, sql: str, *values: Any) -> bool:
        """Change the registry behind the program's back; False where SQLite itself does not take it."""
        with closing(sqlite3.connect("snas.db")) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            try:
                connection.execute(sql, values)
                connection.commit()
            except (sqlite3.Error, UnicodeEncodeError, OverflowError):
                return False
        return True

    def _furnish(self) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        np.savez("tiny.npz", x=rng.random((60, 1, 8, 8), dtype=np.float32), y=np.arange(60) % 3)
        Path("evil.py").write_text(f"{CODE}\n\ndef factory():\n    raise SystemExit\n")
        search = "--samples 2 --strategy random --baselines none --confirm-seeds 0 --name made --evaluator serial"
        self.command(["prune", *MAKE.split(), "--density", "0.5", "--keep-weights"], "making", codes=(0,))
        self.command(["search", *MAKE.split(), *search.split()], "making", codes=(0,))
        with closing(sqlite3.connect("snas.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy("snas.db", "made")


def texts(trial: Trial, corpus: Sequence[str]) -> None:
    """Every text in every field that holds one, through every table and export."""
    trial.registry()
    shapes = {}
    for name in EXPORTS:
        out = trial.command(["leaderboard", "export", "--format", name], "nothing")
        shapes[name] = SHAPES[name](out)
    for text in corpus:
        trial.registry()
        plain = text.encode("utf-8", "replace").decode()
        for column in ("name", "strategy", "mask_rule"):
            trial.change(f"UPDATE entries SET {column} = ?", plain)
        trial.change("UPDATE trainings SET reason = ? WHERE entry_id IS NOT NULL", plain)
        for path in ("$.layers[0].name", "$.name"):
            trial.change("UPDATE entries SET space = json_set(space, ?, ?)", path, plain)
        for column, path in (
            ("dataset", "$.name"),
            ("environment", "$.device_name"),
            ("environment", "$.torch"),
            ("rule", "$.weights"),
        ):
            trial.change(f"UPDATE entries SET {column} = json_set({column}, ?, ?)", path, plain)
        trial.change("UPDATE trainings SET traits = json_set(traits, '$.origin', ?, '$.rule', ?)", plain, plain)
        trial.change("UPDATE studies SET identity = json_set(identity, '$.strategy.name', ?)", plain)
        with closing(sqlite3.connect("snas.db")) as connection:  # the layer's name is a key of the counts too
            kept = json.loads(connection.execute("SELECT kept FROM entries WHERE id = 2").fetchone()[0])
            renamed = {plain if place == 0 else key: value for place, (key, value) in enumerate(kept.items())}
            for table in ("entries", "trainings"):
                connection.execute(f"UPDATE {table} SET kept = ? WHERE kept <> '{{}}'", (json.dumps(renamed),))
            connection.commit()
        what = f"the text {text[:60]!r}"
        for words in READ:
            out = trial.command(words, what)
            if words[:2] != ["leaderboard", "export"]:
                continue
            name = words[-1]
            trial.counts["texts in exports"] += 1
            if not out:
                trial.fault("not exported", f"{name} with {what}")
            elif SHAPES[name](out) != shapes[name]:
                trial.fault(f"live in {name}", what)
        trial.look_around(what)


def rows(trial: Trial, corpus: Sequence[Any], part: slice) -> None:
    """Rows of other types, shapes and sizes than ours; nested deeply; naming code, files and places."""
    changes: list[tuple[str, str, tuple[Any, ...]]] = []  # what of it, by which statement, and its values
    for tables in (COLUMNS, DOCUMENTS, NUMBERS):
        for table, columns in tables.items():
            for column in columns:
                values = [value for value in corpus if not isinstance(value, (list, dict))]
                if tables is DOCUMENTS:
                    values += [_json(value) for value in corpus]
                    values += ["[" * 100_000, '{"a":' * 100_000, b"\xff\xfe"]
                statement = f"UPDATE {table} SET {column} = ?"
                changes += [(f"{table}.{column} = {str(value)[:40]!r}", statement, (value,)) for value in values]
    for table, columns in DOCUMENTS.items():
        for column in columns:
            statement = f"UPDATE {table} SET {column} = json_set({column}, ?, json(?))"
            for path in _paths(table, column):
                for value in random.Random(path).sample(list(corpus), min(4, len(corpus))):
                    what = f"{table}.{column} {path} = {_json(value)[:40]}"
                    changes.append((what, statement, (path, _json(value))))
    for number, (what, statement, values) in enumerate(changes[part]):
        trial.registry()
        if trial.change(statement, *values):
            commands = [*READ, *USE]  # a few of them in turn
            _run(trial, what, [commands[(number * 3 + step) % len(commands)] for step in range(3)])
    places: list[tuple[str, str, tuple[Any, ...]]] = []
    for name in CODE_NAMES:
        weights = "UPDATE trainings SET traits = json_set(traits, '$.weights.file', ?) WHERE entry_id = 1"
        places += [
            *((column, f"UPDATE entries SET {column} = json_set({column}, '$.name', ?)", (name,)) for column in NAMED),
            ("method", "UPDATE entries SET method = ?, mask_rule = ?, strategy = ?", (name,) * 3),
            ("study", "UPDATE studies SET name = ?", (f"../../{name}",)),
            ("weights", weights, (f"../../{name}",)),
        ]
    for what, statement, values in places[part]:
        trial.registry()
        trial.change(statement, *values)
        _run(trial, f"{what} {values[0]}", [*READ, *USE])


def _run(trial: Trial, what: str, commands: Sequence[Sequence[str]]) -> None:
    """Commands on a hostile row."""
    trial.counts["hostile rows"] += 1
    for words in commands:
        trial.command(words, what)
    trial.look_around(what)


def _json(value: Any) -> str:
    return json.dumps(value)


def _paths(table: str, column: str) -> list[str]:
    """Places of a document, one for each key there is."""
    with closing(sqlite3.connect("made")) as connection:
        documents = [json.loads(row[0]) for row in connection.execute(f"SELECT {column} FROM {table}") if row[0]]

    def visit(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f'{path}."{key}"'
                yield from visit(inner, f'{path}."{key}"')
        elif isinstance(value, list) and value:
            yield f"{path}[0]"
            yield from visit(value[0], f"{path}[0]")

    return sorted({path for document in documents for path in visit(document, "$")})


def files(trial: Trial) -> None:
    """Pickles with code and archives of them, under every ending, for every option that takes a file."""
    import numpy as np
    import torch

    content = {"pickle": pickle.dumps(Code()), "python": f"import os\n{CODE}\n".encode()}
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Code()], dtype=object), y=np.array([Code()], dtype=object))
    content["npz"] = buffer.getvalue()
    buffer = io.BytesIO()
    torch.save({"x": Code()}, buffer)
    content["torch"] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../../slip.npy", pickle.dumps(Code()))
        archive.writestr("x.npy", pickle.dumps(Code()))
        archive.writestr("y.npy", b"\x93NUMPY\x01\x00" + pickle.dumps(Code()))
    content["slip"] = buffer.getvalue()
    endings = (".npz", ".json", ".toml", ".csv", ".db", ".safetensors", ".pkl", ".pt", "")
    options = ("--config", "--dataset", "--densities-from", "--warm-start", "--registry", "--data-dir", "--space")
    for kind, octets in content.items():
        for ending in endings:
            path = Path(f"evil{ending}" if ending else "evilfile")
            path.write_bytes(octets)
            what = f"{kind} in {path}"
            for option in options:
                command = "search" if option == "--warm-start" else "prune"
                more = ["--samples", "1", "--strategy", "random"] if command == "search" else ["--method", "random"]
                trial.command([command, *MAKE.split(), *more, option, str(path)], f"{what}, {option}", codes=(1, 2))
            trial.command(["cite", str(path)], what, codes=(1, 2))
            trial.command(["leaderboard", "--registry", str(path)], what, codes=(1, 2))
            _load(path, trial, what)
            trial.counts["files with code"] += 1
            trial.look_around(what)
            path.unlink(missing_ok=True)
    for name in (
        "train-images-idx3-ubyte",
        "train-images-idx3-ubyte.gz",
        "cifar-10-binary.tar.gz",
        "data_batch_1.bin",
        "data_batch_1",
    ):
        folder = Path("data")
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content["pickle"])
        for dataset in ("mnist", "cifar10"):
            words = [
                "prune",
                "--space",
                "mlp",
                "--dataset",
                dataset,
                "--data-dir",
                "data",
                "--density",
                "0.5",
                "--epochs",
                "1",
            ]
            trial.command(words, f"{name} a pickle", codes=(1, 2))
        trial.look_around(name)
    for name, text in {
        "code.toml": 'space = "evil.py:factory"\n',
        "code.json": '{"space": "evil.py:factory"}',
        "module.toml": 'space = "evil:factory"\n',
        "strategy.toml": 'strategy = "evil.py:factory"\n',
        "evaluator.toml": 'evaluator = "evil:factory"\n',
        "method.toml": 'method = "evil.py:factory"\n',
        "dataset.toml": 'dataset = "evil.py:factory"\n',
        "mask.toml": 'mask = "evil.py:factory"\n',
        "nested.toml": "space = {name = 'evil.py:factory'}\n",
        "deep.json": "[" * 100_000,
    }.items():
        Path(name).write_text(text)
        for command in ("search", "prune", "sweep"):
            trial.command([command, "--epochs", "1", "--config", name], name, codes=(1, 2))
        trial.look_around(name)


def _load(path: Path, trial: Trial, what: str) -> None:
    """As weights, and as a checkpoint."""
    import snas
    from snas.training.checkpoints import Checkpoints

    try:
        snas.load_network(path)
        trial.fault("loaded", what)
    except snas.InputError as error:
        if "\n" in str(error):
            trial.fault("several lines", f"{what}: {error}")
    shutil.copy(path, "trial-1-1.safetensors")
    if Checkpoints(Path()).load("trial-1", 1) is not None:
        trial.fault("loaded", f"{what} as a checkpoint")


def names(trial: Trial, corpus: Sequence[str]) -> None:
    """Names of studies and rows, and places to write to."""
    for text in corpus:
        small = ["--density", "0.5", "--method", "random", "--registry", "snas.db"]
        trial.registry()
        trial.command(["prune", *MAKE.split(), *small, f"--name={text}"], f"the name {text[:60]!r}")
        trial.command(
            ["leaderboard", f"--study={text}", f"--space={text}", f"--dataset={text}"], f"the filter {text[:60]!r}"
        )
        if not text.startswith("/"):
            inner = Path("inner")
            inner.mkdir(exist_ok=True)
            trial.command(
                ["leaderboard", "export", f"--output=inner/{text.replace('..', '')}"], f"the output {text[:60]!r}"
            )
        trial.look_around(f"the name {text[:60]!r}")
    trial.registry()
    os.symlink(trial.outside / "elsewhere", "link.md")
    trial.command(["leaderboard", "export", "--format", "md", "-o", "link.md"], "a link", codes=(2,))
    os.symlink(trial.outside, "linked")
    trial.look_around("a link")


def main(argv: Sequence[str] | None = None) -> int:
    """Try everything and say what came of it; 0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--share", type=int, default=0, help="with --of N: which of N equal shares of each part")
    parser.add_argument("--of", type=int, default=1)
    chosen = parser.parse_args(argv)
    before = Path.cwd()
    share = 10 if chosen.quick else chosen.of
    part = slice(chosen.share, None, share)
    with tempfile.TemporaryDirectory() as folder, surroundings():
        try:
            trial = Trial(Path(folder).resolve())
            if "texts" in chosen.only:
                texts(trial, TEXTS[part])
            if "names" in chosen.only:
                names(trial, TEXTS[part])
            if "files" in chosen.only:
                files(trial)
            if "rows" in chosen.only:
                rows(trial, ODD, part)
        finally:
            os.chdir(before)
    kinds = (
        "live in csv",
        "live in html",
        "live in latex",
        "live in md",
        "writes outside",
        "executions",
        "traceback or exit code",
    )
    print(f"{trial.told()}; wrong: {len(trial.wrong)} ({', '.join(f'{trial.counts[kind]} {kind}' for kind in kinds)})")
    return 1 if trial.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
