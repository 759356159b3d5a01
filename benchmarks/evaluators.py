"""Epochs of candidates by the evaluators on a CPU: one process with all threads, stacked, and a process for each core.

    python benchmarks/evaluators.py [--repeats 3] [--candidates 8] [--cases resnet32-8,lenet-28]

Every evaluator trains the same number of candidates, random masks at a mean density of 0.3, on digits or random images
of the size that the case's name has; rounds are interleaved, and the first, in which processes begin, does not count.
Times are those of an epoch of one candidate, that is of the round divided by its epochs. Others that use the machine
disturb threads that wait for each other most; the shortest time is nearest to what an idle machine would give. Prints
it for each evaluator, with its ratio to that of processes, and writes benchmarks/results/evaluators.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timing import header, print_header, rounds, save, spread

import snas
from snas.bench import open_bench
from snas.densities import Densities
from snas.evaluators.base import Job, evaluators
from snas.pruning.methods import given_densities
from snas.settings import Settings
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task
from snas.trials import Report


@dataclass(frozen=True)
class Case:
    """A space, and as many random images as its epochs are to have; None for digits."""

    space: str
    arguments: dict[str, Any] = field(default_factory=dict)
    images: tuple[int, tuple[int, int, int]] | None = None
    stacks: bool = True


CASES = {
    "resnet32-8": Case("resnet32", stacks=False),
    "resnet20-16": Case("resnet20", images=(1000, (3, 16, 16)), stacks=False),
    "resnet20-28": Case("resnet20", images=(1000, (1, 28, 28)), stacks=False),
    "resnet32-32": Case("resnet32", images=(1000, (3, 32, 32)), stacks=False),
    "lenet-8": Case("lenet-300-100"),
    "lenet-28": Case("lenet-300-100", images=(6000, (1, 28, 28))),
    "mlp256-8": Case("mlp", {"hidden_layers": 3, "width": 256}),
    "mlp1024-28": Case("mlp", {"hidden_layers": 3, "width": 1024}, (4000, (1, 28, 28)), stacks=False),
}


class Queue:
    """Hands out jobs in order."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs

    def next(self) -> Job | None:
        return self._jobs.pop(0) if self._jobs else None

    def ahead(self) -> None:
        """Nothing is chosen while others train."""


def task_of(case: Case) -> Task:
    data = None
    if case.images is not None:
        number, shape = case.images
        x = np.random.default_rng(0).normal(size=(number, *shape)).astype(np.float32)
        y = np.arange(number) % 10
        data = snas.from_arrays(x, y, x[:10], y[:10])
    return open_bench(Settings(space=case.space, space_arg=case.arguments, epochs=2), dataset=data).task


def train(evaluator: Any, task: Task, candidates: int, numbers: dict[str, int], name: str) -> None:
    """Train one epoch of so many new candidates."""
    first = numbers[name] = numbers.get(name, 0) + candidates
    jobs = []
    for number in range(first, first + candidates):
        fractions = np.random.default_rng(number).uniform(0.1, 0.5, len(task.space.layers))
        densities = Densities.from_fractions(task.space.layers, fractions.tolist())
        method = given_densities("random")
        jobs.append(Job(number, task.space, method, densities, seed=number, start=0, until=1, key=f"trial-{number}"))
    found = [report for reports in evaluator.run(Queue(jobs)) for report in reports]
    if not all(isinstance(report, Report) for report in found) or len(found) != candidates:
        raise SystemExit(f"{name} did not train {candidates} epochs: {found}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--cases", default=",".join(CASES))
    chosen = parser.parse_args(arguments)
    about = header(candidates=chosen.candidates, repeats=chosen.repeats)
    print_header(about)
    results: dict[str, Any] = {}
    for name in chosen.cases.split(","):
        case = CASES[name]
        task = task_of(case)
        names = ["serial", "processes", *(["stacked"] if case.stacks else [])]
        numbers: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as folder:
            made = {each: evaluators.get(each)(task, Checkpoints(Path(folder) / each)) for each in names}
            jobs = {each: partial(train, made[each], task, chosen.candidates, numbers, each) for each in names}
            times = rounds(jobs, chosen.repeats)
            made.clear()
            jobs.clear()
        seconds = {each: [value / chosen.candidates for value in values] for each, values in times.items()}
        least = {each: min(values) for each, values in seconds.items()}
        results[name] = {each: spread(values) for each, values in seconds.items()}
        results[name] |= {"examples": len(task.data.train.y), "precision": task.rule.precision}
        told = [f"{each} {1e3 * value:.1f} ms ({value / least['processes']:.2f})" for each, value in least.items()]
        print(f"{name}: {', '.join(told)}", flush=True)
    save("evaluators", results, about=about)


if __name__ == "__main__":
    main()
