"""What a search adds to plain training, as ratios against alternatives measured in the same run, interleaved.

    make bench-overheads                       # or: python benchmarks/overheads.py [--repeats 7]

(A) one epoch of a masked network: ours against a plain PyTorch loop without masks, and against torch.nn.utils.prune;
(B) one report's way into the registry and one checkpoint, in epochs of (A).

What proposals cost is in benchmarks/proposals.py.

Machines are shared and noisy: read the ratios. Prints a table and writes benchmarks/results/overheads.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import header, interleaved, print_header, save
from torch.nn import functional
from torch.nn.utils import prune

from snas.bench import Bench, open_bench
from snas.densities import Densities
from snas.pruning.methods import given_densities
from snas.pruning.prepare import prepare
from snas.registry import Registry
from snas.settings import Settings
from snas.training.checkpoints import Checkpoints
from snas.training.session import Session
from snas.training.task import score_batch
from snas.trials import Report, Status

DENSITY = 0.5


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
    about = header()
    print_header(about, f"digits, density {DENSITY}, batch 64; medians of {repeats} interleaved repeats")
    results: dict[str, dict[str, float]] = {}
    for space in ("lenet-300-100", "resnet32"):
        results[f"(A) epoch of {space}"] = epochs(space, repeats)
    results["(B) storage"] = storage(repeats)
    reference = results["(A) epoch of resnet32"]["snas"]
    for title, times in results.items():
        base = times.get("plain PyTorch, no masks", reference)
        unit = "x plain" if "plain PyTorch, no masks" in times else "epochs of resnet32"
        print(title)
        for name, seconds in times.items():
            print(f"  {name:<28}{seconds * 1e3:>10.1f} ms {seconds / base:>9.3f} {unit}")
    save("overheads", results, about=about)


if __name__ == "__main__":
    main()
