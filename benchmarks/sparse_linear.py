"""(B) A step of training of a masked perceptron, 784-3076-3076-3076-10: ours against torch.nn.utils.prune.

    python benchmarks/sparse_linear.py [--repeats 7] [--threads N] [--clock wall|cpu] [--densities 0.5,0.02]

Random masks of one density for all layers, batch 128, ReLU, float32, SGD with momentum 0.9 and weight decay 5e-4; a
step is forward pass, loss, backward pass and the optimizer's. Ours is a step of `Session` with the kernels that it
chooses (`--kernel auto`), and with the dense ones; theirs is `prune.custom_from_mask` and torch.optim.SGD. Gradients of
both are compared with those of masked dense weights, in single and double precision. On a busy machine threads that
wait for each other disturb times most: there `--threads 1 --clock cpu` counts the process's own seconds.

Memory is that of a process of its own while it trains: the most after the network is ready, above what the process had
before there was one; Linux only. Prints a table and writes benchmarks/results/sparse_linear.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from timing import (
    MIB,
    cpu_seconds_of,
    forget_peak,
    header,
    highest_memory,
    in_child,
    interleaved,
    print_header,
    save,
    seconds_of,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from snas.data.arrays import from_arrays
from snas.data.split import SearchData, split_data
from snas.densities import Densities
from snas.kernels.sparse_linear import SparseLinear
from snas.masks import Masks
from snas.search_spaces.base import SearchSpace, spaces
from snas.training.rule import TrainingRule
from snas.training.session import Session

DENSITIES = 0.5, 0.2, 0.1, 0.05, 0.02, 0.01
TARGETS = {0.1: 5.0, 0.05: 10.0, 0.02: 20.0, 0.01: 30.0}
BATCH, WIDTH, STEPS = 128, 3076, 10
RULE = TrainingRule(epochs=1, batch_size=BATCH, lr=0.01, schedule="constant", augment="off")
OURS, OURS_DENSE, THEIRS = "snas", "snas, dense kernel", "torch.nn.utils.prune"
CPU = torch.device("cpu")
CLOCKS = {"wall": seconds_of, "cpu": cpu_seconds_of}
Step = Callable[[], object]


def random_data() -> SearchData:
    """A few hundred images of random pixels, as MNIST's are shaped."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4 * BATCH, 1, 28, 28, generator=generator)
    return split_data(from_arrays(x.numpy(), (torch.arange(4 * BATCH) % 10).numpy()), seed=0)


def perceptron(width: int) -> SearchSpace:
    return spaces.get("mlp-relu")((1, 28, 28), 10, layers=4, width=width)


def masked_network(density: float, width: int) -> tuple[nn.Module, Masks]:
    """A network as PyTorch initializes it, with random masks; the same at every call."""
    space = perceptron(width)
    model = space.build(generator=torch.Generator().manual_seed(0))
    counts = Densities.from_fractions(space.layers, [density] * len(space.layers)).counts
    generator = torch.Generator().manual_seed(1)
    masks = {}
    for layer in space.layers:
        flat = torch.zeros(layer.total, dtype=torch.bool)
        flat[torch.randperm(layer.total, generator=generator)[: counts[layer.name]]] = True
        masks[layer.name] = flat.reshape(layer.shape)
    chosen = Masks(space.layers, masks)
    chosen.apply(model)
    return model, chosen


def our_step(data: SearchData, density: float, width: int, *, kernel: str) -> Step:
    model, masks = masked_network(density, width)
    session = Session(model, masks, RULE, data, seed=0, device=CPU, kernel=kernel)
    x, y = data.train.x[:BATCH], data.train.y[:BATCH]
    model.train()

    def step() -> None:
        loss = functional.cross_entropy(model(x), y)
        session.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        session.take_step(0, 1)

    return step


def their_step(data: SearchData, density: float, width: int) -> Step:
    model, masks = masked_network(density, width)
    for layer in masks.layers:
        prune.custom_from_mask(model.get_submodule(layer.name), "weight", masks[layer.name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, y = data.train.x[:BATCH], data.train.y[:BATCH]

    def step() -> None:
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def alternatives(data: SearchData, density: float, width: int) -> dict[str, Callable[[], Step]]:
    return {
        OURS: partial(our_step, data, density, width, kernel="auto"),
        OURS_DENSE: partial(our_step, data, density, width, kernel="dense"),
        THEIRS: partial(their_step, data, density, width),
    }


def compare_gradients(density: float, width: int, dtype: torch.dtype) -> float:
    """The largest difference of a gradient from masked dense's, relative to the largest gradient of its tensor."""
    model, masks = masked_network(density, width)
    x = torch.randn(BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(2), dtype=dtype)
    y = torch.arange(BATCH) % 10
    dense = model.to(dtype)
    functional.cross_entropy(dense(x), y).backward()
    worst = 0.0
    wanted = {layer.name: _gradients(dense.get_submodule(layer.name), masks[layer.name]) for layer in masks.layers}
    for layer in masks.layers:
        linear = dense.get_submodule(layer.name)
        sparse = SparseLinear.from_dense(linear, masks[layer.name], features_first=True)
        sparse.bias = nn.Parameter(linear.bias.detach().clone())
        setattr(dense, layer.name, sparse)
    functional.cross_entropy(dense(x), y).backward()
    for layer in masks.layers:
        sparse = dense.get_submodule(layer.name)
        for found, expected in zip((sparse.values.grad, sparse.bias.grad), wanted[layer.name], strict=True):
            worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    return worst


def _gradients(linear: nn.Module, mask: Tensor) -> tuple[Tensor, Tensor]:
    return linear.weight.grad[mask].clone(), linear.bias.grad.clone()


def training_memory(name: str, density: float, width: int) -> dict[str, int]:
    """Bytes in training above what this process had before there was a network, and how many it takes to get ready."""
    data = random_data()
    alternatives(data, 0.5, 64)[name]()()  # whatever PyTorch sets up once
    gc.collect()
    base = forget_peak()
    step = alternatives(data, density, width)[name]()
    ready = highest_memory()
    gc.collect()
    forget_peak()
    for _ in range(STEPS):
        step()
    return {"base": base, "training": highest_memory() - base, "preparation": ready - base}


def step_times(density: float, width: int, repeats: int, clock: str) -> dict[str, float]:
    """Median seconds of a step of each alternative, in turn."""
    data = random_data()
    steps = {name: make() for name, make in alternatives(data, density, width).items()}
    start = time.perf_counter()
    steps[OURS]()
    several = max(1, int(0.05 / (time.perf_counter() - start)))  # short ones are repeated, so that clocks tell them

    def often(step: Step) -> None:
        for _ in range(several):
            step()

    jobs = {name: partial(often, step) if name == OURS else step for name, step in steps.items()}
    found = interleaved(jobs, repeats, measure=CLOCKS[clock])
    found[OURS] /= several
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="default: PyTorch's own choice")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--densities", default=",".join(map(str, DENSITIES)))
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "DENSITY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.memory_of:
        name, density = options.memory_of
        print(json.dumps(training_memory(name, float(density), options.width)))
        return
    run([float(text) for text in options.densities.split(",")], options)


def run(densities: Sequence[float], options: argparse.Namespace) -> None:
    width, repeats, threads = options.width, options.repeats, options.threads
    about = header(clock=options.clock)
    print_header(about, f"784-{width}x3-10, batch {BATCH}, float32; medians of {repeats} interleaved repeats")
    columns = f"{'snas':>12}{'dense kernel':>14}{'prune':>12}{'ratio':>9}{'target':>8}"
    print(f"{'density':>8}{columns}{'MiB, snas':>18}{'prune':>10}")
    results: dict[str, Any] = {}
    summary: dict[str, float | str] = {}
    for density in densities:
        seconds = step_times(density, width, repeats, options.clock)
        more = ("--width", str(width), *(("--threads", str(threads)) if threads else ()))
        memory = {
            name: in_child(__file__, "--memory-of", name, str(density), *more) for name in (OURS, OURS_DENSE, THEIRS)
        }
        ratio = seconds[THEIRS] / seconds[OURS]
        used = [memory[name]["training"] / MIB for name in (OURS, THEIRS)]
        times = [seconds[name] * 1e3 for name in (OURS, OURS_DENSE, THEIRS)]
        print(
            f"{density:>8g}{times[0]:>9.1f} ms{times[1]:>11.1f} ms{times[2]:>9.1f} ms{ratio:>8.1f}x"
            f"{TARGETS.get(density, 1.0):>7g}x{used[0]:>18.0f}{used[1]:>10.0f}",
            flush=True,
        )
        results[f"{density:g}"] = {"seconds": seconds, "ratio": ratio, "memory": memory}
        summary[f"step at density {density:g}"] = ratio
        summary[f"memory of training at density {density:g}"] = used[1] / used[0]
    gradients = {
        str(dtype).removeprefix("torch."): compare_gradients(0.05, width, dtype)
        for dtype in (torch.float32, torch.float64)
    }
    print("gradients at density 0.05, largest relative difference from masked dense:", gradients)
    results["gradients"] = gradients
    save("sparse_linear", results, about=about, summary=summary)


if __name__ == "__main__":
    main()
