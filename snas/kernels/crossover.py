"""Below which density a linear layer trains faster with its kept weights alone: measured on the machine at hand.

A choice between kernels changes results by floating-point reordering, and a training has to give the same report again
on the same machine, whether or not it was interrupted. So what was measured is written down once, in the user's cache
folder, and read from then on. What is measured is CPU time of one thread, which other processes disturb little (the
kernels gain alike from more threads: both share out the rows), rounded to a coarse scale with a margin for the dense
kernel, so that even a machine that forgets seldom chooses otherwise.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from snas.kernels.sparse_linear import SparseLinear

log = logging.getLogger("snas")

SMALLEST = 2**14  # weights: what a smaller layer could save, the overhead of its calls takes
FEATURES = 8, 2048  # a layer is measured as one of this many at least and at most: a weight of more costs the same
EXAMPLES = 16, 1024
DENSITIES = 0.02, 0.1  # that the sparse kernel is measured at; its time is a line in between and beyond
LARGEST = 0.25  # density above which the sparse kernel gains too little to be worth a thought
MARGIN = 1.25
ROUNDS, ENOUGH = 3, 0.1  # fewest rounds of measuring, and seconds after which no more are made


def crossover(
    out_features: int, in_features: int, examples: int, dtype: torch.dtype, *, features_first: bool = False
) -> float:
    """The density below which a step of such a layer is faster with the sparse kernel.

    Args:
        out_features: rows of the weight.
        in_features: columns of the weight.
        examples: rows of the input: the batch, times the positions at which the layer is used.
        dtype: float32 or float64.
        features_first: whether layers around it lay out what they give so (see `SparseLinear`), which narrow dense
            layers are slow with.

    Returns:
        0 (never), or a power of the square root of a half, at most 0.25.
    """
    if out_features * in_features < SMALLEST:
        return 0.0
    sizes = _class(out_features, FEATURES), _class(in_features, FEATURES), _class(examples, EXAMPLES)
    layout = "features-first" if features_first else "rows"
    key = " ".join(map(str, (*sizes, str(dtype).removeprefix("torch."), layout)))
    known = _KNOWN.setdefault(_machine(), {})
    if key not in known:
        known[key] = _recorded(key, lambda: measure(*sizes, dtype, features_first=features_first))
    return known[key]


_KNOWN: dict[str, dict[str, float]] = {}  # machine -> what this process has measured or read


def measure(
    out_features: int, in_features: int, examples: int, dtype: torch.dtype, *, features_first: bool = False
) -> float:
    """Measure the crossover of such a layer: whole steps of SGD, the best of a few rounds; up to a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(out_features, in_features, examples, dtype, features_first)
    finally:
        torch.set_num_threads(threads)


def _measure(out_features: int, in_features: int, examples: int, dtype: torch.dtype, features_first: bool) -> float:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(out_features, in_features, generator=generator)
    x = torch.randn(examples, in_features, generator=generator, dtype=dtype)
    if features_first:
        x = x.t().contiguous().t()
    linear: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, in_features, out_features, dtype=dtype
    )
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.normal_(0, in_features**-0.5, generator=generator)
    sparse = [SparseLinear.from_dense(linear, draws < density, features_first=features_first) for density in DENSITIES]
    mask = (draws < DENSITIES[-1]).to(dtype)
    dense_time, *sparse_times = _best([_step(linear, x, mask), *(_step(layer, x, None) for layer in sparse)])
    slope = (sparse_times[1] - sparse_times[0]) / (DENSITIES[1] - DENSITIES[0])
    fixed = sparse_times[0] - slope * DENSITIES[0]
    if sparse_times[0] * MARGIN >= dense_time:
        return 0.0
    return _coarse((dense_time / MARGIN - fixed) / slope if slope > 0 else LARGEST)


def _step(layer: nn.Module, x: Tensor, mask: Tensor | None) -> Callable[[], None]:
    """A step of training: forward, both gradients, momentum and weight decay, and the mask where there is one."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    x = x.clone().requires_grad_()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        x.grad = None
        with torch.enable_grad():
            functional.relu(layer(x)).sum().backward()  # type: ignore[no-untyped-call]
        weight = next(layer.parameters())
        if mask is not None and weight.grad is not None:
            weight.grad.mul_(mask)
        optimizer.step()
        if mask is not None:
            weight.detach().mul_(mask)

    return step


def _best(jobs: list[Callable[[], None]]) -> list[float]:
    """The shortest of some times of each job, taken in turn after a round that does not count; CPU seconds."""
    times = [math.inf] * len(jobs)
    begin, number = time.thread_time(), 0
    while number <= ROUNDS or time.thread_time() - begin < ENOUGH:
        for index, job in enumerate(jobs):
            start = time.thread_time()
            job()
            if number:
                times[index] = min(times[index], time.thread_time() - start)
        number += 1
    return times


def _coarse(density: float) -> float:
    """The next lower power of the square root of a half, at most the largest.

    Example:
        >>> [round(_coarse(density), 3) for density in (0.9, 0.4, 0.25, 0.1)]
        [0.25, 0.25, 0.25, 0.088]
    """
    if density <= 0:
        return 0.0
    if density >= LARGEST:
        return LARGEST
    return float(0.5 ** (math.ceil(-2 * math.log2(density) - 1e-9) / 2))


def _class(number: int, limits: tuple[int, int]) -> int:
    """The nearest power of two within limits."""
    low, high = limits
    return int(min(high, max(low, 2 ** round(math.log2(number)))))


def _machine() -> str:
    return f"{platform.node()} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__}"


def cache_file() -> Path:
    """Where crossovers are kept: in the folder of environment variable SNAS_CACHE, else the user's cache folder."""
    from platformdirs import user_cache_dir  # as pooch has it, which takes long to import

    return Path(os.environ.get("SNAS_CACHE") or user_cache_dir("snas")).expanduser() / "crossovers.json"


def _recorded(key: str, measured: Callable[[], float]) -> float:
    """What the file has for this machine and key; where it has nothing, what is measured now, which is written there.

    Processes that come together wait for the first, and read what it wrote. Without a file to write to, every process
    measures for itself.
    """
    try:
        path = cache_file()
    except RuntimeError:  # nobody's home, as in some containers
        return measured()
    with _locked(path):
        everything = _read(path)
        own = everything.setdefault(_machine(), {})
        value = own.get(key)
        if not isinstance(value, (int, float)) or not 0 <= value <= LARGEST:
            value = own[key] = measured()
            _write(path, everything)
        return float(value)


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {machine: entries for machine, entries in found.items() if isinstance(entries, dict)}


def _write(path: Path, everything: dict[str, dict[str, float]]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        log.info("crossovers of kernels are measured anew by every process: cannot write %s (%s)", path, error)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file for this process, where the system can."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl

        file = open(path.with_suffix(".lock"), "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except (ImportError, OSError):
        yield
        return
    with file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
