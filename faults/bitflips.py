"""Single flipped bits and cut files: checkpoints, weights, masks, registries and their copies; noticed, or harmless.

A flip is noticed where reading says in a line that the file is damaged, and harmless where what is read is the same.
All else is counted as missed. Files of tensors have a SHA-256 inside, kept weights another one in the registry, a copy
of a registry one beside it. A registry that is in use has none: what SQLite and our readers notice of it is counted
apart.

    python faults/bitflips.py --flips 1000 --cuts 200
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from command_lines import run_line, surroundings  # noqa: E402

MAKE = (
    "prune --space mlp --space-arg hidden_layers=2 --space-arg width=12 --dataset tiny.npz --epochs 2 --final-seeds 2"
)
NOTICED, HARMLESS, MISSED, CRASHED = "noticed", "harmless", "missed", "crashed"
Reader = Callable[[Path], Any]
Place = Callable[[random.Random, int], int]


def furnish() -> None:
    """Make a registry with kept weights, and checkpoints of a training whose mask moves, in this folder."""
    import numpy as np

    from snas.bench import open_bench
    from snas.pruning.methods import open_method
    from snas.settings import Settings
    from snas.training.checkpoints import Checkpoints
    from snas.training.task import Training

    rng = np.random.default_rng(0)
    np.savez("tiny.npz", x=rng.random((60, 1, 8, 8), dtype=np.float32), y=np.arange(60) % 3)
    for more in ("--method snip --density 0.3 --keep-weights", "--method rigl --density 0.5"):
        code, _, err = run_line([*MAKE.split(), *more.split(), "--quiet"], seconds=600.0)
        if code != 0:
            raise RuntimeError(err)
    with closing(sqlite3.connect("snas.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    settings = Settings(space="mlp", space_arg={"hidden_layers": 2, "width": 12}, dataset="tiny.npz", epochs=3)
    task = open_bench(settings).task
    training = Training(
        task, open_method("rigl"), 300, seed=1, key="trial-1", checkpoints=Checkpoints(Path("checkpoints"))
    )
    for epoch in training.run(start=0, until=3):
        if epoch.number == 2:
            break
    Path("checkpoints/trial-1-1.safetensors").unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Any:
    """The state, as a training reads it; raises LookupError where it says that there is none."""
    from snas.training.checkpoints import Checkpoints

    target = Path("read")
    target.mkdir(exist_ok=True)
    shutil.copy(path, target / "trial-1-2.safetensors")
    state = Checkpoints(target).load("trial-1", 2)
    if state is None:
        raise LookupError
    return {name: (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in state.items()}


def read_handed_on(path: Path) -> Any:
    """A file of weights that came without a registry."""
    from snas.weights import read_network

    found = read_network(path)
    return _plain(found.state), found.masks.checksum(), json.dumps(found.about, sort_keys=True)


def read_kept(path: Path) -> Any:
    """The weights that a registry knows, where they lie."""
    import snas

    shutil.copy(path, "snas.db.files/weights/row-1-seed-0.safetensors")
    return _plain(snas.load_network(1, registry="snas.db").state_dict())


def read_copy(path: Path) -> Any:
    """A copy of a registry with its SHA-256 beside it; raises LookupError where that tells of damage."""
    from snas.registries.copies import broken_seal, seal_of

    shutil.copy(seal_of(Path("copy.db")), seal_of(path))
    if broken_seal(path):
        raise LookupError
    return path.read_bytes()


def read_registry(path: Path) -> Any:
    """All that the commands tell of a registry; raises LookupError where they say that it is damaged."""
    shutil.copy(path, "live.db")
    for more in ("-wal", "-shm"):
        Path(f"live.db{more}").unlink(missing_ok=True)
    told = []
    for words in (
        ["leaderboard", "--format", "json"],
        ["show", "1", "--format", "json"],
        ["show", "2", "--format", "json"],
    ):
        code, out, err = run_line([*words, "--registry", "live.db"], seconds=60.0)
        if code not in (0, 1, 2) or "Traceback" in err:
            raise RuntimeError(err)
        if code:
            raise LookupError
        told.append(out)
    return told


def _plain(state: Any) -> Any:
    return {name: (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in state.items()}


def in_masks(path: Path) -> Place:
    """Places among the masks of a file of weights."""
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    offsets = json.loads(content[8 : 8 + header])
    spans = [part["data_offsets"] for name, part in offsets.items() if name.startswith("mask/")]

    def place(rng: random.Random, size: int) -> int:
        start, end = rng.choice(spans)
        return 8 + header + rng.randrange(start, end)

    return place


def anywhere(rng: random.Random, size: int) -> int:
    """Any place of a file."""
    return rng.randrange(size)


def early(rng: random.Random, size: int) -> int:
    """A place in the first part of a file, where its header is."""
    return rng.randrange(min(size, 1000))


def outcome(read: Reader, path: Path, whole: Any) -> str:
    """What reading a damaged file comes to."""
    from snas.errors import SnasError

    try:
        found = read(path)
    except (LookupError, SnasError) as error:
        return NOTICED if "\n" not in str(error) else CRASHED
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return CRASHED
    return HARMLESS if found == whole else MISSED


def damage(
    kind: str, path: Path, read: Reader, flips: int, cuts: int, place: Place, rng: random.Random
) -> Counter[str]:
    """Flip bits of a file, one at a time, and cut it short; count what reading it comes to."""
    content = path.read_bytes()
    copy = Path(f"damaged{path.suffix}")
    copy.write_bytes(content)
    whole = read(copy)
    found: Counter[str] = Counter()
    for number in range(flips + cuts):
        changed = bytearray(content)
        if number < flips:
            changed[place(rng, len(content))] ^= 1 << rng.randrange(8)
        else:
            del changed[rng.randrange(len(content)) :]
        copy.write_bytes(changed)
        found[outcome(read, copy, whole)] += 1
    copy.write_bytes(content)
    if outcome(read, copy, whole) != HARMLESS:
        raise RuntimeError(f"{kind} cannot be read again when they are whole")
    return found


def goes_on(rng: random.Random) -> bool:
    """Whether a training that finds its checkpoint damaged trains its epochs again and ends as if nothing had been."""
    from snas.bench import open_bench
    from snas.pruning.methods import open_method
    from snas.settings import Settings
    from snas.training.checkpoints import Checkpoints
    from snas.training.task import Training

    settings = Settings(space="mlp", space_arg={"hidden_layers": 2, "width": 12}, dataset="tiny.npz", epochs=3)
    task = open_bench(settings).task
    ends = []
    for damaged in (False, True):
        folder = Path("again")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree("checkpoints", folder)
        path = folder / "trial-1-2.safetensors"
        if damaged:
            content = bytearray(path.read_bytes())
            content[rng.randrange(len(content) // 2, len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        training = Training(task, open_method("rigl"), 300, seed=1, key="trial-1", checkpoints=Checkpoints(folder))
        ends.append(
            [(epoch.number, epoch.train_loss, epoch.validation_loss) for epoch in training.run(start=2, until=3)]
        )
    return ends[0] == ends[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Damage all kinds of files and say what was noticed; 0 where nothing was missed and nothing crashed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.flips, chosen.cuts = chosen.flips // 10, chosen.cuts // 10
    rng = random.Random(chosen.seed)
    logger, before = logging.getLogger("snas"), Path.cwd()
    level = logger.level
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, surroundings():
        os.chdir(folder)
        try:
            furnish()
            logger.setLevel(logging.CRITICAL)
            from snas.registries.backup import back_up

            back_up("snas.db", Path("copy.db"))
            kept = Path("kept.safetensors")
            shutil.copy("snas.db.files/weights/row-1-seed-0.safetensors", kept)
            checkpoint = Path("checkpoints/trial-1-2.safetensors")
            kinds: list[tuple[str, Path, Reader, Place, int]] = [
                ("checkpoints", checkpoint, read_checkpoint, anywhere, 2),
                ("headers of checkpoints", checkpoint, read_checkpoint, early, 1),
                ("weights with their registry", kept, read_kept, anywhere, 1),
                ("weights handed on", kept, read_handed_on, anywhere, 2),
                ("headers of weights handed on", kept, read_handed_on, early, 1),
                ("masks handed on", kept, read_handed_on, in_masks(kept), 1),
                ("copies of registries", Path("copy.db"), read_copy, anywhere, 2),
            ]
            shares = sum(share for *_, share in kinds)
            total: Counter[str] = Counter()
            for place, (kind, path, read, where, share) in enumerate(kinds):
                parts = [
                    _share(
                        number,
                        share,
                        shares,
                        last=place == len(kinds) - 1,
                        before=sum(one[-1] for one in kinds[:place]),
                    )
                    for number in (chosen.flips, chosen.cuts)
                ]
                found = damage(kind, path, read, *parts, where, rng)
                total += found
                print(f"{kind}: {parts[0]} flips and {parts[1]} cuts: {_told(found)}")
            again = sum(goes_on(rng) for _ in range(5))
            print(f"trainings that go on from a damaged checkpoint: {again} of 5 end as if it had been whole")
            live = damage(
                "registries", Path("snas.db"), read_registry, chosen.flips // 10, chosen.cuts // 10, anywhere, rng
            )
            print(
                f"registries in use, which have no digest (not counted): {chosen.flips // 10} flips and "
                f"{chosen.cuts // 10} cuts: {_told(live)}"
            )
            wrong = total[MISSED] + total[CRASHED] + live[CRASHED] + (5 - again)
            print(
                f"{sum(total.values())} damaged files: {_told(total)}; {live[CRASHED]} crashed among registries in use"
            )
        finally:
            logger.setLevel(level)
            with suppress(OSError):
                os.chdir(before)
    return 1 if wrong else 0


def _share(number: int, share: int, shares: int, *, last: bool, before: int) -> int:
    """A kind's share of a number; shares add up to it."""
    end = number if last else number * (before + share) // shares
    return end - number * before // shares


def _told(found: Counter[str]) -> str:
    return ", ".join(f"{found[name]} {name}" for name in (NOTICED, HARMLESS, MISSED, CRASHED))


if __name__ == "__main__":
    sys.exit(main())
