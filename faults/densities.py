"""Fuzzed densities: files of vectors, budgets with floors, caps and pins; one line, or a result exact to the weight.

What is taken is compared with arithmetic of this file's own: a density is as many weights as its decimal says, rounded
half up, at least one; a projection keeps exactly what the budget asks for, every layer between its bounds. What is not
taken has to be said in one line. Some go through the commands, to see that the recorded network keeps just that.

    python faults/densities.py --count 3000
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from command_lines import run_line, surroundings  # noqa: E402

NUMBERS: list[Any] = [
    *(0.5, 0.1, 1, 1.0, 0.25, 1e-9, 1e-300, 5e-324, 0.999999999, 1 / 3, 0.05, 0.0625, 0.5, 0.3),
    *(0, -0.0, -0.5, 1.0000000001, 2, 10**30, math.nan, math.inf, -math.inf, True, False, None),
    *(
        "0.5",
        "1e-3",
        "0,5",
        "50%",
        " 0.5 ",
        "nan",
        "inf",
        "-inf",
        "",
        "x",
        "0x1",
        "1_0",
        "\u0660.\u0665",
        "0.5\0",
        "1e999",
    ),
    *(
        [],
        {},
        [0.5],
        {"kept": 3, "total": 512},
        {"kept": 0},
        {"kept": 3.5},
        {"kept": True},
        {"kept": 10**9},
        {"total": 3},
    ),
]
NAMES = [
    "",
    "x",
    "classifier ",
    "Classifier",
    "blocks.0.first",
    "*",
    "__proto__",
    "=1+1",
    "a\nb",
    "\u202e",
    "layers",
    "densities",
]
SPACE = ["--space", "mlp", "--space-arg", "hidden_layers=2", "--space-arg", "width=8", "--dataset", "tiny.npz"]


def own_count(value: Any, total: int) -> int | None:
    """Weights that an entry of a file stands for, by decimals; None where it stands for none."""
    if isinstance(value, Mapping):
        kept = value.get("kept")
        good = isinstance(kept, int) and not isinstance(kept, bool) and 0 < kept <= total
        return kept if good and value.get("total", total) == total else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = Decimal(float(value))
    except (ValueError, InvalidOperation, OverflowError):
        return None
    if not number.is_finite() or not 0 < number <= 1:
        return None
    return max(1, int((number * total + Decimal("0.5")).to_integral_value(ROUND_FLOOR)))


def vector(rng: random.Random, names: Sequence[str]) -> Any:
    """What a file may hold: mostly a number for each layer."""
    odd = rng.choice((0.0, 0.0, 0.1, 0.5))

    def one() -> Any:
        return rng.choice(NUMBERS) if rng.random() < odd else rng.choice((rng.random(), rng.random() ** 4, 0.5))

    chance = rng.random()
    if chance < 0.25:
        return [one() for _ in range(len(names) + rng.choice((0, 0, 0, 0, -1, 1, 40)))]
    values = {name: one() for name in names}
    if chance < 0.35:
        values[rng.choice(NAMES)] = one()
    elif chance < 0.42:
        del values[rng.choice(names)]
    elif chance < 0.47:
        return rng.choice(NUMBERS)
    if rng.random() < 0.3:
        return {rng.choice(("layers", "densities", "layer")): values, "id": 3}
    return values


def write(rng: random.Random, values: Any, path: Path) -> Any:
    """Write a vector in the format that the name says, now and then damaged; what it holds, None where that is open."""
    if path.suffix == ".json":
        text = json.dumps(values)
    elif path.suffix == ".toml":
        inner = next((item for item in values.values() if isinstance(item, dict)), None) if _wrapped(values) else values
        text = f"[{json.dumps(next(iter(values)))}]\n" if _wrapped(values) else ""
        text += "".join(f"{json.dumps(str(key))} = {_toml(item)}\n" for key, item in _pairs(inner))
        values = None if not isinstance(inner, dict) or any(item is None for _, item in _pairs(inner)) else values
    else:
        out = io.StringIO()
        inner = next(iter(values.values())) if _wrapped(values) else values
        csv.writer(out).writerows([[key, item] for key, item in _pairs(inner)])
        text = rng.choice(("", "layer,density\n", "layer,Density \r\n")) + out.getvalue()
        values = {key: str(item) for key, item in _pairs(inner)} if isinstance(inner, dict) else None
        if values is not None and any(len(row) != 2 for row in csv.reader(text.splitlines()) if row):
            values = None
        if values is not None and len({key.strip() for key in values}) < len(values):
            values = None
        if values is not None:
            values = {key.strip(): item.strip() for key, item in values.items()}
    octets = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        values = None
        place = rng.randrange(len(octets) + 1)
        octets = (
            octets[:place]
            + rng.choice((b"", b"\0", b"\xff", b"[" * 5000, b'"', b"\n", b"}", b"9"))
            + octets[place + rng.randint(0, 9) :]
        )
    path.write_bytes(octets)
    return values


def _wrapped(values: Any) -> bool:
    return isinstance(values, dict) and "id" in values and any(isinstance(item, dict) for item in values.values())


def _pairs(values: Any) -> list[tuple[Any, Any]]:
    return list(values.items()) if isinstance(values, dict) else [("x", values)]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    return json.dumps(value)


class Checks:
    """Counts what was tried, and keeps what was wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def require(self, good: bool, text: str) -> None:
        """Note that something is wrong, unless it is not."""
        if not good:
            self.wrong.append(text)

    def refused(self, error: BaseException, what: str) -> None:
        """Note a refusal, which has to be a line of ours."""
        from snas.errors import InputError

        self.counts["refused"] += 1
        line = isinstance(error, InputError) and str(error)
        self.require(bool(line), f"{what}: {type(error).__name__}: {error}")


def files(rng: random.Random, count: int, checks: Checks) -> None:
    """Files for --densities-from and --warm-start."""
    from snas.baselines import read_file, read_values
    from snas.search_spaces.catalog import open_space
    from snas.warm_starts import open_source

    arguments = {"hidden_layers": 2, "width": 8}
    space = open_space("mlp", input_shape=(1, 8, 8), classes=3, arguments=arguments)
    names = [layer.name for layer in space.layers]
    for number in range(count):
        path = Path(f"vector{rng.choice(('.json', '.toml', '.csv'))}")
        held = write(rng, vector(rng, names), path)
        checks.counts["files"] += 1
        what = f"file {number}, {path.read_bytes()[:300]!r}"
        try:
            if number % 2:
                found = read_values(read_file(path), space, "densities")
            else:
                source = open_source(str(path), "none.db")
                found = source.known(space) if source else None
        except Exception as error:
            checks.refused(error, what)
            if held is not None:
                checks.require(own_vector(held, space.layers) is None, f"{what} was refused: {error}")
            continue
        checks.counts["taken"] += 1
        checks.require(
            found is not None and all(0 < kept <= x.total for kept, x in zip(found.kept, found.layers, strict=True)),
            what,
        )
        if held is not None and found is not None:
            checks.require(own_vector(held, space.layers) == list(found.kept), f"{what} was read as {found.kept}")


def own_vector(values: Any, layers: Sequence[Any]) -> list[int] | None:
    """What a file's values stand for; None where they are no vector of these layers."""
    for key in ("layers", "densities"):
        if isinstance(values, dict) and isinstance(values.get(key), (dict, list)):
            values = values[key]
    if isinstance(values, list):
        if len(values) != len(layers):
            return None
        values = {layer.name: value for layer, value in zip(layers, values, strict=True)}
    if not isinstance(values, dict) or set(values) != {layer.name for layer in layers}:
        return None
    counts = [own_count(values[layer.name], layer.total) for layer in layers]
    return None if None in counts else counts  # type: ignore[return-value]


def budgets(rng: random.Random, count: int, checks: Checks) -> None:
    """Budgets of random layers, with a wish of any numbers to be brought within them."""
    from snas.budget import Budget
    from snas.densities import Layer

    def number() -> Any:
        return rng.choice((rng.random(), rng.random() ** 3, 0.5, 1.0, 0.01, rng.choice(NUMBERS[:26])))

    for _ in range(count):
        checks.counts["budgets"] += 1
        layers = tuple(
            Layer(
                f"l{place}",
                tuple(rng.randint(1, 12) for _ in range(rng.choice((2, 2, 4)))),
                positions=rng.randint(1, 9),
            )
            for place in range(rng.randint(1, 6))
        )
        total = sum(layer.total for layer in layers)
        given: dict[str, Any] = {}
        for name in ("density", "min_density", "max_density"):
            if rng.random() < 0.35:
                given[name] = number()
        for name in ("weights", "max_weights", "max_flops"):
            if rng.random() < 0.2:
                given[name] = rng.choice((rng.randint(1, 3 * total), 0, -1, 10**20, 1, 2.5, True, None))
        keys = [layer.name for layer in layers] + ["l*", "*", "l[0-2]", "nothing", "[", ""]
        for name in ("floors", "caps"):
            given[name] = {rng.choice(keys): number() for _ in range(rng.choice((0, 0, 1, 2)))}
        pinned = {rng.choice(layers).name: rng.choice((0.5, 1.0, 0.1)) for _ in range(rng.choice((0, 0, 1)))}
        wish = [rng.choice((rng.random() * layer.total, 0.0, 1.0, 1e300, layer.total)) for layer in layers]
        what = f"budget {given} pins {pinned} of {[layer.shape for layer in layers]} wish {wish}"
        try:
            limits = Budget(**given).limits(layers, pinned)
            found = limits.project(wish)
        except Exception as error:
            checks.refused(error, what)
            continue
        checks.counts["taken"] += 1
        counts = list(found.kept)
        checks.require(
            all(isinstance(kept, int) and 1 <= kept <= x.total for kept, x in zip(counts, layers, strict=True)), what
        )
        kept = sum(counts)
        if given.get("weights") is not None:
            checks.require(kept == given["weights"], f"{what}: {kept}")
        if given.get("density") is not None:
            checks.require(kept == own_count(float(given["density"]), total) or kept == 0, f"{what}: {kept}")
        if given.get("max_weights") is not None:
            checks.require(kept <= given["max_weights"], f"{what}: {kept}")
        if given.get("max_density") is not None:
            checks.require(kept <= float(given["max_density"]) * total * (1 + 1e-6), f"{what}: {kept}")
        if given.get("min_density") is not None:
            checks.require(kept >= float(given["min_density"]) * total * (1 - 1e-6), f"{what}: {kept}")
        if given.get("max_flops") is not None:
            flops = sum(2 * own * layer.positions for own, layer in zip(counts, layers, strict=True))
            checks.require(flops <= given["max_flops"], f"{what}: {flops}")
        for layer, own in zip(layers, counts, strict=True):
            if layer.name in pinned:
                checks.require(own == own_count(pinned[layer.name], layer.total), f"{what}: {layer.name} keeps {own}")
            floor, cap = given["floors"].get(layer.name), given["caps"].get(layer.name)
            if floor is not None:
                checks.require(own >= float(floor) * layer.total * (1 - 1e-6), f"{what}: {layer.name} keeps {own}")
            if cap is not None:
                checks.require(
                    own <= max(1.0, float(cap) * layer.total * (1 + 1e-6)), f"{what}: {layer.name} keeps {own}"
                )


def commands(rng: random.Random, count: int, checks: Checks) -> None:
    """The same by the commands: what is recorded is what was asked for."""
    import numpy as np

    from snas.search_spaces.catalog import open_space

    generator = np.random.default_rng(0)
    np.savez("tiny.npz", x=generator.random((60, 1, 8, 8), dtype=np.float32), y=np.arange(60) % 3)
    space = open_space("mlp", input_shape=(1, 8, 8), classes=3, arguments={"hidden_layers": 2, "width": 8})
    names = [layer.name for layer in space.layers]
    for number in range(count):
        checks.counts["commands"] += 1
        path = Path(f"run{number}{rng.choice(('.json', '.toml', '.csv'))}")
        held = write(rng, vector(rng, names), path)
        usual = [
            *SPACE,
            "--epochs",
            "1",
            "--final-seeds",
            "1",
            "--quiet",
            "--format",
            "json",
            "--registry",
            f"{number}.db",
        ]
        if number % 2:
            words = ["prune", *usual, "--method", "random", "--densities-from", str(path)]
        else:
            words = [
                "search",
                *usual,
                "--samples",
                "1",
                "--strategy",
                "random",
                "--baselines",
                "none",
                "--warm-start",
                str(path),
            ]
            for name in ("floor", "cap", "pin"):
                if rng.random() < 0.4:
                    words += [f"--{name}", f"{rng.choice([*names, '*', 'blocks.*', 'x'])}={rng.choice(NUMBERS)}"]
            words += rng.choice(
                ([], ["--density", str(rng.choice(NUMBERS[:26]))], ["--weights", str(rng.randint(0, 700))])
            )
        code, out, err = run_line(words, seconds=60.0)
        what = f"{words}, {path.read_bytes()[:200]!r}: {code} {err[-500:]}"
        checks.require(code in (0, 1, 2) and "Traceback" not in err and (code != 2 or err.count("\n") == 1), what)
        if code == 0 and number % 2 and held is not None:
            kept = [layer["kept"] for layer in json.loads(out)["layers"].values()]
            checks.require(kept == own_vector(held, space.layers), f"{what}: {kept}")
        if code == 0 and "--weights" in words:
            checks.require(json.loads(out)["best"]["kept_weights"] == int(words[words.index("--weights") + 1]), what)
        for left in Path().glob(f"{number}.db*"):
            if left.is_file():
                left.unlink()


def main(argv: Sequence[str] | None = None) -> int:
    """Try so many, and say what came of them; 0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    chosen = parser.parse_args(argv)
    chosen.count //= 10 if chosen.quick else 1
    rng, checks, before = random.Random(chosen.seed), Checks(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, surroundings():
        os.chdir(folder)
        try:
            files(rng, chosen.count // 2, checks)
            budgets(rng, chosen.count // 2, checks)
            commands(rng, max(4, chosen.count // 30), checks)
        finally:
            os.chdir(before)
    for text in checks.wrong:
        print(text[:1500])
    told = ", ".join(f"{number} {what}" for what, number in checks.counts.items())
    print(f"densities: {told}; {len(checks.wrong)} wrong")
    return 1 if checks.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
