"""(C) Epochs of resnet32 and resnet32-x2 on 8x8 and 32x32 images: ours against plain eager PyTorch on the CPU.

    python benchmarks/convolutions.py [--repeats 3] [--density 0.1] [--only 3x32x32]

Random pixels, batch 128, SGD with momentum, the same masks, PyTorch's default threads, a validation after each epoch.
Plain PyTorch has channels first and float32, and multiplies the weights with their masks after every step. Ours is
`Session.train_epoch` in float32 and in bf16.

A short epoch is timed: 20 steps at 8x8, fewer where a step takes a second. What ours does besides (statistics of
BatchNorm measured anew on 512 images, whatever the epoch's length) would weigh too much there. Steps, validation and
calibration are therefore timed apart, and put together for an epoch of 45,000 images that validates 5,000, as CIFAR-10
has them; the seconds as measured are told too. Memory is what a fresh process has at its peak above what it has before
the network is made. Prints tables and writes benchmarks/results/convolutions.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain import Data, Rule, Trainer, validate
from timing import MIB, RESULTS, header, in_child, memory_of, print_header, save

from snas.data.base import Dataset
from snas.data.split import SearchData, split_data
from snas.densities import Densities
from snas.pruning.methods import given_densities
from snas.pruning.prepare import Sparse, prepare
from snas.search_spaces.base import SearchSpace, spaces
from snas.training.rule import TrainingRule
from snas.training.session import Session
from snas.training.task import score_batch

BATCH = 128
TRAIN, VALIDATION = 45_000, 5_000  # of CIFAR-10, a tenth of it held out


@dataclass(frozen=True)
class Case:
    """A network, images, and how many steps a timed epoch has."""

    space: str
    shape: tuple[int, int, int]
    steps: int

    def __str__(self) -> str:
        return f"{self.space} on {'x'.join(map(str, self.shape))}"


CASES = (
    Case("resnet32", (1, 8, 8), 20),
    Case("resnet32-x2", (1, 8, 8), 20),
    Case("resnet32", (3, 32, 32), 8),
    Case("resnet32-x2", (3, 32, 32), 2),
)


@dataclass(frozen=True)
class Parts:
    """Seconds of a step, of validating an image, of what else an epoch has, and of the epoch as it was timed."""

    step: float
    image: float
    rest: float
    whole: float

    @property
    def epoch(self) -> float:
        """Seconds of an epoch of CIFAR-10's length."""
        return self.step * -(-TRAIN // BATCH) + self.image * VALIDATION + self.rest


@dataclass(frozen=True)
class Setting:
    """What the alternatives have in common."""

    space: SearchSpace
    data: SearchData
    rule: TrainingRule
    densities: Densities

    def sparse(self) -> Sparse:
        """The same masked network again and again."""
        return prepare(self.space, given_densities("random"), self.densities, score_batch(self.data, seed=0), seed=0)


def setting_of(case: Case, density: float) -> Setting:
    """Random images, a ninth as many to validate, and a network with this density in every layer."""
    rng = np.random.default_rng(0)
    number = -(-case.steps * BATCH * 10 // 9)
    x = rng.integers(0, 256, (number, *case.shape), dtype=np.uint8)
    y = np.arange(number) % 10
    space = spaces.get(case.space)(case.shape, 10)
    data = split_data(Dataset("random", x, y, x[:0], y[:0], classes=10), seed=0)
    rule = TrainingRule(epochs=100, batch_size=BATCH, lr=0.01, augment="off")
    return Setting(space, data, rule, Densities.from_fractions(space.layers, [density] * len(space.layers)))


def ours(setting: Setting, precision: str) -> Callable[[], Parts]:
    """A session; each call trains an epoch."""
    sparse = setting.sparse()
    rule = replace(setting.rule, precision=precision)
    session = Session(sparse.model, sparse.masks, rule, setting.data, seed=0, device=torch.device("cpu"))
    taken = {"calibrate": 0.0, "evaluate": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                taken[name] += time.perf_counter() - start

        return wrapped

    session._calibrate = timed("calibrate", session._calibrate)
    session.evaluate = timed("evaluate", session.evaluate)
    images, steps = len(setting.data.validation.y), -(-len(setting.data.train.y) // BATCH)

    def epoch() -> Parts:
        taken.update(calibrate=0.0, evaluate=0.0)
        start = time.perf_counter()
        session.train_epoch()
        whole = time.perf_counter() - start
        training = whole - taken["calibrate"] - taken["evaluate"]
        return Parts(training / steps, taken["evaluate"] / images, taken["calibrate"], whole)

    return epoch


def plain(setting: Setting) -> Callable[[], Parts]:
    """What one writes by hand: shuffle, step, multiply by the masks, validate."""
    sparse, rule = setting.sparse(), setting.rule
    model = sparse.model
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    masked = [
        (model.get_parameter(layer.parameter), sparse.masks[layer.name].float()) for layer in setting.space.layers
    ]
    train, held = setting.data.train, setting.data.validation
    data = Data(train.x, train.y, held.x, held.y)
    trainer = Trainer(model, masked, data, Rule(rule.epochs, rule.batch_size, rule.lr, rule.weight_decay))
    steps = -(-len(data.y) // rule.batch_size)

    def epoch() -> Parts:
        start = time.perf_counter()
        trainer.train()
        trained = time.perf_counter()
        validate(model, data)
        end = time.perf_counter()
        return Parts((trained - start) / steps, (end - trained) / len(held.y), 0.0, end - start)

    return epoch


ALTERNATIVES: dict[str, Callable[[Setting], Callable[[], Parts]]] = {
    "plain PyTorch": plain,
    "snas, fp32": partial(ours, precision="fp32"),
    "snas, bf16": partial(ours, precision="bf16"),
}


def measure(case: Case, density: float, repeats: int) -> dict[str, Parts]:
    """Medians of the parts of an epoch; the alternatives take turns, the first round does not count."""
    setting = setting_of(case, density)
    jobs = {name: make(setting) for name, make in ALTERNATIVES.items()}
    found: dict[str, list[Parts]] = {name: [] for name in jobs}
    for number in range(repeats + 1):
        for name, job in jobs.items():
            parts = job()
            if number:
                found[name].append(parts)
    return {name: median_of(rows) for name, rows in found.items()}


def median_of(rows: Sequence[Parts]) -> Parts:
    names = ("step", "image", "rest", "whole")
    return Parts(*(statistics.median(getattr(row, name) for row in rows) for name in names))


def memory(case: Case, density: float) -> dict[str, dict[str, int]]:
    """Alternative -> bytes before the network is made, and above that at the peak of an epoch; fresh processes."""
    arguments = (case.space, json.dumps(case.shape), str(density))
    return {name: in_child(__file__, "--measure", name, *arguments) for name in ALTERNATIVES}


def measure_memory(name: str, space: str, shape: str, density: str) -> dict[str, int]:
    setting = setting_of(Case(space, tuple(json.loads(shape)), 2), float(density))
    return memory_of(lambda: ALTERNATIVES[name](setting)())


def ratios(parts: Mapping[str, Parts]) -> dict[str, float]:
    """How many times faster than plain PyTorch the others are, an epoch of CIFAR-10's length."""
    base = parts["plain PyTorch"].epoch
    return {name: base / own.epoch for name, own in parts.items() if name != "plain PyTorch"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--only", default="", help='cases with these words in their names, as "resnet32 on 3x32x32"')
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_memory(*options.measure)))
        return
    about = header(density=options.density, batch=BATCH, repeats=options.repeats)
    print_header(about, f"(C) an epoch of {TRAIN:,} images, put together from short ones; medians of repeats in turn")
    results: dict[str, Any] = {}
    summary: dict[str, float | str] = {}
    for case in CASES:
        if options.only not in str(case):
            continue
        parts = measure(case, options.density, options.repeats)
        faster = {"plain PyTorch": 1.0, **ratios(parts)}
        print(f"(C) {case}\n  {'':<16}{'ms/step':>9}{'s/epoch':>9}{'ratio':>8}{'as timed, s':>13}{'MiB (E)':>9}")
        bytes_of = memory(case, options.density)
        for name, own in parts.items():
            print(
                f"  {name:<16}{own.step * 1e3:>9.1f}{own.epoch:>9.1f}{faster[name]:>7.2f}x{own.whole:>13.2f}"
                f"{bytes_of[name]['above'] / MIB:>9.0f}",
                flush=True,
            )
        rows = {name: {**vars(own), "epoch": own.epoch, "ratio": faster[name]} for name, own in parts.items()}
        results[str(case)] = {"steps": case.steps, "seconds": rows, "memory": bytes_of}
        summary |= {f"{case}, {name} : plain PyTorch": ratio for name, ratio in ratios(parts).items()}
        base = bytes_of["plain PyTorch"]["above"]
        summary |= {
            f"{case}, memory of {name} : plain PyTorch": f"{bytes_of[name]['above'] / base:.2f}"
            for name in ALTERNATIVES
            if name != "plain PyTorch"
        }
    save("convolutions", results, about=about, summary=summary, folder=options.results)


if __name__ == "__main__":
    main()
