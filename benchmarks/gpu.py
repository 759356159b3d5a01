"""(F) On a GPU: candidates per hour for resnet32, wrn-28-10 and mlp on images of CIFAR-10's shape and number.

    python benchmarks/gpu.py [--samples 8] [--epochs 2]

Random pixels, 45,000 to train on and 5,000 to validate, batch 128, density 0.1, no augmentation. An eager float32 epoch
of plain PyTorch, data on the device, against `snas.search` in bf16 with each evaluator, timed from the first proposal
to the last report, in seconds per trained epoch; the first search of each kind does not count, it compiles. Operations
a second are those of the dense network, as a share of what a large bf16 matrix product reaches on the same card.
Without CUDA it says so in one line and measures nothing. Prints a table and writes benchmarks/results/gpu.json.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import EVALUATORS, Clock
from plain import Data, Rule, Trainer, mask_randomly, prunable, validate
from timing import MIB, RESULTS, header, print_header, save, seconds_of

import snas
from snas.data.base import Dataset
from snas.data.split import split_data
from snas.evaluators.base import evaluators
from snas.search_spaces.base import spaces

SPACES = ("resnet32", "wrn-28-10", "mlp")
BATCH, DENSITY = 128, 0.1
MATRIX = 8192


@dataclass(frozen=True)
class Case:
    """How much is trained."""

    samples: int = 8
    epochs: int = 2
    images: int = 50_000
    shape: tuple[int, int, int] = (3, 32, 32)


def images(case: Case) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (case.images, *case.shape), dtype=np.uint8)
    y = np.arange(case.images) % 10
    return Dataset("random", x, y, x[:0], y[:0], classes=10)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def eager(space: str, dataset: Dataset, case: Case, device: torch.device) -> dict[str, float]:
    """Seconds of an epoch of plain PyTorch, its second one."""
    torch.manual_seed(0)
    split = split_data(dataset, seed=0, device=device)
    data = Data(split.train.x, split.train.y, split.validation.x, split.validation.y)
    family = spaces.get(space)(case.shape, 10)
    model = family.build(generator=torch.Generator().manual_seed(0))
    masks = mask_randomly(model, [math.ceil(DENSITY * weight.numel()) for weight in prunable(model)])
    model = model.to(device)
    masked = [(weight, mask.to(device)) for weight, mask in zip(prunable(model), masks, strict=True)]
    trainer = Trainer(model, masked, data, Rule(case.epochs + 1, BATCH, family.learning_rate))

    def epoch() -> None:
        trainer.train()
        validate(model, data)
        synchronize(device)

    epoch()
    return {"seconds per epoch": seconds_of(epoch)}


def searched(space: str, dataset: Dataset, case: Case, device: torch.device, evaluator: str) -> dict[str, float]:
    """Seconds per trained epoch and candidates per hour of a search."""

    def search(samples: int) -> tuple[float, int]:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            snas.search(
                space,
                dataset=dataset,
                strategy="random",
                density=DENSITY,
                samples=samples,
                epochs=case.epochs,
                batch_size=BATCH,
                precision="bf16",
                augment="off",
                evaluator=evaluator,
                device=str(device),
                final_seeds=0,
                confirm_seeds=0,
                registry=str(Path(folder) / "snas.db"),
                listener=clock,
            )
        return clock.last - clock.start, clock.reports

    search(1 if evaluator == "serial" else case.samples)
    seconds, epochs = search(case.samples)
    return {"seconds per epoch": seconds / epochs, "candidates per hour": case.samples / seconds * 3600}


def operations(space: str, case: Case) -> float:
    """Floating-point operations of training the dense network on one image: forward, and twice that backward."""
    layers = spaces.get(space)(case.shape, 10).layers
    return 3.0 * sum(2 * layer.total * layer.positions for layer in layers)


def matrix_rate(device: torch.device, size: int = MATRIX) -> float:
    """Operations a second of a bf16 matrix product."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)

    def products() -> None:
        for _ in range(20):
            a @ a
        synchronize(device)

    products()
    return 20 * 2 * size**3 / min(seconds_of(products) for _ in range(3))


def measure(
    case: Case, device: torch.device, names: Sequence[str] = SPACES, kinds: Sequence[str] = EVALUATORS
) -> dict[str, dict[str, dict[str, float]]]:
    """Space -> alternative -> figures."""
    dataset = images(case)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for space in names:
        jobs: dict[str, Callable[[], dict[str, float]]] = {
            "plain eager fp32": lambda space=space: eager(space, dataset, case, device)
        }
        for kind in kinds:
            if kind in evaluators.names():
                jobs[f"snas, {kind}"] = lambda space=space, kind=kind: searched(space, dataset, case, device, kind)
        found[space] = {}
        for name, job in jobs.items():
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            row = job()
            row["operations a second"] = operations(space, case) * 0.9 * case.images / row["seconds per epoch"]
            if device.type == "cuda":
                row["bytes"] = float(torch.cuda.max_memory_allocated())
            found[space][name] = row
    return found


def ratios(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """How many times as many epochs a second as plain eager PyTorch."""
    return {
        f"{space}, {name} : plain eager fp32": rows["plain eager fp32"]["seconds per epoch"] / row["seconds per epoch"]
        for space, rows in found.items()
        for name, row in rows.items()
        if name.startswith("snas")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("(F) there is no CUDA device; the GPU part is skipped")
        return
    device, case = torch.device("cuda"), Case(options.samples, options.epochs)
    about = header("cuda", density=DENSITY, batch=BATCH, samples=case.samples, epochs=case.epochs)
    print_header(about, "(F) on a GPU")
    rate = matrix_rate(device)
    print(f"bf16 matrix product of {MATRIX}: {rate / 1e12:.0f} TFLOP/s")
    found = measure(case, device)
    summary: dict[str, Any] = ratios(found)
    for space, rows in found.items():
        print(f"(F) {space}")
        for name, row in rows.items():
            share = row["operations a second"] / rate
            hour = f"{row['candidates per hour']:.0f} candidates per hour" if "candidates per hour" in row else ""
            print(
                f"  {name:<20}{row['seconds per epoch']:>8.3f} s/epoch {share:>7.1%} of the matrix rate"
                f"{row['bytes'] / MIB:>9.0f} MiB  {hour}"
            )
            if hour:
                summary[f"{space}, {name}"] = hour
    results = {"matrix operations a second": rate, "spaces": found}
    save("gpu", results, about=about, summary=summary, folder=options.results)


if __name__ == "__main__":
    main()
