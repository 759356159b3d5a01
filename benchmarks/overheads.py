"""What a search adds to plain training, as ratios against alternatives measured in the same run, interleaved.

    make bench                                 # or: python benchmarks/overheads.py [--repeats 7]

(A) one epoch of a masked network: ours against a plain PyTorch loop without masks, and against torch.nn.utils.prune;
(B) one proposal of each strategy, in epochs of (A);
(C) one report's way into the registry and one checkpoint, in epochs of (A).

Machines are shared and noisy: read the ratios. Prints a table and writes benchmarks/results/overheads.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import prune

from snas.bench import Bench, open_bench
from snas.densities import Densities
from snas.pruning.methods import given_densities
from snas.pruning.prepare import prepare
from snas.registry import Registry
from snas.settings import Settings
from snas.strategies.base import make_strategy, strategies
from snas.training.checkpoints import Checkpoints
from snas.training.session import Session
from snas.training.task import score_batch
from snas.trials import Report, Status, Trial

DENSITY = 0.5


def interleaved(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each job, run in turn after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for round_number in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if round_number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def sparse_model(bench: Bench):
    densities = Densities.from_fractions(bench.space.layers, [DENSITY] * len(bench.space.layers))
    return prepare(bench.space, given_densities("random"), densities, score_batch(bench.task.data, seed=0), seed=0)


def plain_loop(bench: Bench, *, masked: bool) -> Callable[[], None]:
    """What one would write by hand: shuffle, step, validate; with torch.nn.utils.prune where masked."""
    data, rule = bench.task.data, bench.task.rule
    sparse = sparse_model(bench)
    model = sparse.model
    if masked:
        for layer in bench.space.layers:
            module = model.get_submodule(layer.parameter.rpartition(".")[0])
            prune.custom_from_mask(module, "weight", sparse.masks[layer.name])
    optimizer = rule.make_optimizer(model.parameters())

    def epoch() -> None:
        model.train()
        for batch in torch.randperm(len(data.train.y)).split(rule.batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(model(data.train.x[batch]), data.train.y[batch]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            float((model(data.validation.x).argmax(1) == data.validation.y).float().mean())

    return epoch


def our_loop(bench: Bench) -> Callable[[], object]:
    sparse = sparse_model(bench)
    device = torch.device("cpu")
    return Session(sparse.model, sparse.masks, bench.task.rule, bench.task.data, seed=0, device=device).train_epoch


def epochs(space: str, repeats: int) -> dict[str, float]:
    bench = open_bench(Settings(space=space, epochs=1000))
    return interleaved(
        {
            "snas": our_loop(bench),
            "plain PyTorch, no masks": plain_loop(bench, masked=False),
            "torch.nn.utils.prune": plain_loop(bench, masked=True),
        },
        repeats,
    )


def proposals(observations: int, dimensions: int, repeats: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    history = [
        Trial(n, rng.random(dimensions), Status.PAUSED, {1: float(rng.random())}, 1) for n in range(observations)
    ]

    def job(name: str) -> Callable[[], object]:
        strategy = make_strategy(name)
        return lambda: strategy.ask(history, 1, dimensions=dimensions, rng=np.random.default_rng(1))

    return interleaved({name: job(name) for name in strategies.names()}, repeats)


def storage(repeats: int) -> dict[str, float]:
    bench = open_bench(Settings(space="resnet32"))
    sparse = sparse_model(bench)
    device = torch.device("cpu")
    session = Session(sparse.model, sparse.masks, bench.task.rule, bench.task.data, seed=0, device=device)
    session.train_epoch()
    with tempfile.TemporaryDirectory() as folder, Registry(Path(folder) / "r.db") as registry:
        study = registry.add_study("x", identity={}, samples=1, environment={})
        training = registry.add_candidate(study, 0, seed=0, point=np.zeros(34), kept={"a": 1})
        checkpoints = Checkpoints(Path(folder) / "c")
        numbers = iter(range(10**6))
        return interleaved(
            {
                "registry, one report": lambda: registry.record(
                    training, Report(0, next(numbers), 1.0, 0.5, 1.0, 0.5, 1.0), status=Status.RUNNING
                ),
                "checkpoint of resnet32": lambda: checkpoints.save("x", next(numbers), session.tensors()),
            },
            repeats,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    environment = dict(open_bench(Settings(space="lenet-300-100")).environment)
    print(", ".join(f"{key} {value}" for key, value in environment.items()))
    print(f"digits, density {DENSITY}, batch 64; medians of {repeats} interleaved repeats\n")
    results: dict[str, dict[str, float]] = {}
    for space in ("lenet-300-100", "resnet32"):
        results[f"(A) epoch of {space}"] = epochs(space, repeats)
    for observations in (25, 100):
        title = f"(B) proposal, 34 dimensions, {observations} observations"
        results[title] = proposals(observations, 34, max(3, repeats // 2))
    results["(C) storage"] = storage(repeats)
    reference = results["(A) epoch of resnet32"]["snas"]
    for title, times in results.items():
        base = times.get("plain PyTorch, no masks", reference)
        unit = "x plain" if "plain PyTorch, no masks" in times else "epochs of resnet32"
        print(title)
        for name, seconds in times.items():
            print(f"  {name:<28}{seconds * 1e3:>10.1f} ms {seconds / base:>9.3f} {unit}")
    target = Path(__file__).parent / "results"
    target.mkdir(exist_ok=True)
    (target / "overheads.json").write_text(
        json.dumps({"environment": environment, "seconds": results}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
