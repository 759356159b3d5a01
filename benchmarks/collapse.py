"""At which density each method leaves VGG-16 without a path from input to output.

    python benchmarks/collapse.py [--examples 64] [--seed 0]

VGG-16 for 3x32x32 (14.7M weights, He initialization), pruned by each method to ever lower densities, down to one weight
per layer; data are the digits of scikit-learn, enlarged. A method stops at the first density at which its network is
refused. Prints a table and writes benchmarks/results/collapse.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from snas.errors import RefusedError
from snas.pruning.methods import open_method
from snas.pruning.prepare import prepare
from snas.pruning.scores import Batch
from snas.search_spaces.base import SearchSpace, spaces
from snas.training.devices import environment

# Ten rounds are the default of the code published with FORCE; sixty, as in the paper, take six times as long.
METHODS = ("magnitude", "snip", "grasp", "snip-iterative:iterations=10", "force:iterations=10", "synflow")
DENSITIES = (0.1, 0.01, 5e-3, 2e-3, 1e-3, 1e-4, 1e-5, 1e-6, 0.0)  # 0: one weight per layer
SHAPE = (3, 32, 32)


def digits(examples: int) -> Batch:
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images[:examples]).float().reshape(-1, 1, 8, 8) / 16
    x = functional.interpolate((x - x.mean()) / x.std(), size=SHAPE[1:], mode="bilinear")
    return Batch(x.repeat(1, SHAPE[0], 1, 1), torch.from_numpy(labels[:examples]).long())


def outcome(space: SearchSpace, name: str, kept: int, batch: Batch, seed: int) -> dict[str, object]:
    start = time.perf_counter()
    try:
        sparse = prepare(space, open_method(name), kept, batch, seed=seed)
        result: dict[str, object] = {"fewest in a layer": min(sparse.densities.kept)}
    except RefusedError as error:
        result = {"refused": str(error)}
    return {**result, "kept": kept, "seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    space = spaces.get("vgg16")(SHAPE, 10)
    total = sum(layer.total for layer in space.layers)
    batch = digits(arguments.examples)
    header = environment(torch.device("cpu"))
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print(
        f"vgg16, {total:,} weights in {len(space.layers)} layers, {arguments.examples} digits, seed {arguments.seed}\n"
    )
    results: dict[str, list[dict[str, object]]] = {}
    target = Path(__file__).parent / "results"
    target.mkdir(exist_ok=True)
    for name in METHODS:
        results[name] = []
        for density in DENSITIES:
            kept = max(len(space.layers), round(density * total))
            row = {"density": kept / total, **outcome(space, name, kept, batch, arguments.seed)}
            results[name].append(row)
            said = row.get("refused", f"path; at least {row.get('fewest in a layer')} weights in a layer")
            print(f"{name:<30}{row['density']:>10.2g}{kept:>11,}{row['seconds']:>8} s   {said}", flush=True)
            (target / "collapse.json").write_text(
                json.dumps({"environment": header, **vars(arguments), "results": results}, indent=2) + "\n"
            )
            if "refused" in row:
                break


if __name__ == "__main__":
    main()
