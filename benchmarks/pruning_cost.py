"""What it costs to prune before training, against plain PyTorch in the same run, interleaved.

    python benchmarks/pruning_cost.py [--repeats 3] [--threads 1]

(A) the SNIP score of one batch, in plain forward-backward passes of the same batch (wanted: at most 2.5);
(B) the highest memory of a process that prunes with SNIP, above that of one that makes a step of SGD with momentum, in
    sizes of the network's parameters (wanted: at most 2); fresh processes, each at its own peak;
(C) the masks of a network's weights from scores that are there (wanted for 36.5 million weights: less than 2 s).

Times are seconds of this process's CPU time, in which waiting for a busy machine does not count; they are those of a
clock where nothing else runs and there is one thread. Machines are shared and noisy all the same: read the ratios.
Prints a table and writes benchmarks/results/pruning_cost.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch
from timing import cpu_seconds_of, header, highest_memory, in_child, interleaved, print_header, save
from torch import nn
from torch.nn import functional

from snas.initialization.variance import initialize
from snas.masks import Masks, choose
from snas.pruning.allocations import global_by_score, kept_from_density, uniform
from snas.pruning.scores import Batch, scores
from snas.search_spaces.base import SearchSpace, spaces

DENSITY = 0.05
# A pass of 128 images through wrn-28-10 takes a minute or two on one CPU core. The score's work beyond the passes and
# its memory beyond the activations do not depend on the batch: fewer images make both ratios larger.
BATCHES = {"vgg16": 128, "wrn-28-10": 16}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(name: str) -> tuple[SearchSpace, nn.Module, Batch]:
    """The space for 32x32 colour images, a network with initial weights, and random images and classes."""
    space = spaces.get(name)((3, 32, 32), 10)
    model = space.build(generator=generator(0))
    initialize(model, rule="he", nonlinearity="relu", generator=generator(1))
    size = BATCHES[name]
    x = torch.randn(size, 3, 32, 32, generator=generator(2))
    return space, model, Batch(x, torch.randint(10, (size,), generator=generator(3)))


def forward_backward(model: nn.Module, batch: Batch) -> None:
    model.train()
    model.zero_grad(set_to_none=True)
    functional.cross_entropy(model(batch.x), batch.y).backward()


def train(model: nn.Module, batch: Batch) -> None:
    """One step of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    forward_backward(model, batch)
    optimizer.step()


def prune(space: SearchSpace, model: nn.Module, batch: Batch) -> Masks:
    """SNIP from the score to the masked network."""
    sensitivities = scores.get("snip")(model, space.layers, batch, generator=generator(4))
    kept = kept_from_density(DENSITY, space.total_weights)
    densities = global_by_score(sensitivities, space.layers, kept, pinned={}, generator=generator(5))
    masks = choose(sensitivities, densities, generator=generator(6))
    masks.apply(model)
    return masks


def passes(name: str, repeats: int) -> dict[str, float]:
    space, model, batch = network(name)
    return interleaved(
        {
            "forward and backward": lambda: forward_backward(model, batch),
            "SNIP score": lambda: scores.get("snip")(model, space.layers, batch, generator=generator(4)),
        },
        repeats,
        measure=cpu_seconds_of,
    )


def peak(name: str, job: str, threads: int) -> int:
    """Bytes at the peak of a fresh process that does one job."""
    return in_child(__file__, "--measure", name, job, "--threads", str(threads))


def measure(name: str, job: str) -> int:
    """Do the job; return this process's highest resident memory in bytes."""
    space, model, batch = network(name)
    if job == "training step":
        train(model, batch)
    elif job == "SNIP":
        prune(space, model, batch)
    return highest_memory()


def memory(name: str, repeats: int, threads: int) -> dict[str, float]:
    """Medians of peaks in bytes, and the size of the network's parameters."""
    _, model, _ = network(name)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    jobs = ("network alone", "training step", "SNIP")
    peaks: dict[str, list[int]] = {job: [] for job in jobs}
    for _ in range(repeats):
        for job in jobs:
            peaks[job].append(peak(name, job, threads))
    return {"parameters": size, **{job: statistics.median(values) for job, values in peaks.items()}}


def choosing(name: str, repeats: int) -> dict[str, float]:
    """CPU seconds to choose masks: from scores all different, as SNIP has them, and all equal, where all are ties."""
    space = spaces.get(name)((3, 32, 32), 10)
    different = {layer.name: torch.randn(layer.shape, generator=generator(0)).abs() for layer in space.layers}
    equal = {layer.name: torch.zeros(layer.shape) for layer in space.layers}
    kept = kept_from_density(DENSITY, space.total_weights)
    given = uniform(space.layers, kept, pinned={})

    def shared(values: dict[str, torch.Tensor]) -> Masks:
        densities = global_by_score(values, space.layers, kept, pinned={}, generator=generator(1))
        return choose(values, densities, generator=generator(2))

    return interleaved(
        {
            "global by score": lambda: shared(different),
            "given densities": lambda: choose(different, given, generator=generator(2)),
            "global, all scores equal": lambda: shared(equal),
            "given, all scores equal": lambda: choose(equal, given, generator=generator(2)),
        },
        repeats,
        measure=cpu_seconds_of,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", nargs=2, metavar=("SPACE", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        sys.stdout.write(str(measure(*options.measure)))
        return
    about = header()
    print_header(about, f"32x32 colour images, density {DENSITY}; medians of {options.repeats} interleaved repeats")
    results: dict[str, dict[str, float]] = {}
    for name, batch in BATCHES.items():
        times = results[f"(A) CPU seconds, {name}, batch {batch}"] = passes(name, options.repeats)
        print(f"(A) {name}, batch of {batch}")
        for job, seconds in times.items():
            print(f"  {job:<28}{seconds:>10.2f} s  {seconds / times['forward and backward']:>9.3f} passes")
    for name, batch in BATCHES.items():
        peaks = results[f"(B) bytes, {name}, batch {batch}"] = memory(name, options.repeats, options.threads)
        size = peaks["parameters"]
        print(f"(B) {name}, batch of {batch}, parameters {size / 2**20:.1f} MiB")
        for job in ("network alone", "training step", "SNIP"):
            above = (peaks[job] - peaks["training step"]) / size
            print(f"  {job:<28}{peaks[job] / 2**20:>10.0f} MiB{above:>+9.2f} sizes above training")
    times = results["(C) CPU seconds, wrn-28-10"] = choosing("wrn-28-10", options.repeats)
    print("(C) masks of 36.5 million weights (wrn-28-10)")
    for job, seconds in times.items():
        print(f"  {job:<28}{seconds:>10.2f} s")
    save("pruning_cost", results, about=about)


if __name__ == "__main__":
    main()
