"""Where networks are trained, and with how many threads."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np
import torch

import snas
from snas.densities import Layer
from snas.errors import InputError
from snas.training.rule import Precision


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: for an unknown device, or one that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; choices: auto, cpu, cuda, cuda:0, mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {name!r} is not supported; choices: auto, cpu, cuda, cuda:0, mps")
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[device.type]:
        raise InputError(f"device {name!r} is not available on this machine; use --device auto")
    return device


def set_threads(threads: int | None) -> int:
    """Set the number of threads of one operation, once; None leaves PyTorch's choice. Returns the number in force."""
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; expected at least 1")
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


@contextmanager
def intraop_threads(number: int) -> Iterator[None]:
    """Have operations use so many threads inside, and as many as before afterwards, whoever has changed that inside."""
    before = torch.get_num_threads()
    if number != before:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on the device, or on the machine for the CPU; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return None  # not Linux


def choose_precision(precision: str, device: torch.device, layers: Sequence[Layer]) -> Precision:
    """The arithmetic that "auto" stands for: "bf16" for networks with convolutions where the device multiplies bfloat16
    faster, else "fp32". Weights, gradients' sums and the optimizer stay in single precision either way.

    Args:
        precision: "auto", "fp32" or "bf16".
        device: where networks are trained.
        layers: of the network; one that is used at several positions is a convolution or recurrent.
    """
    if precision != "auto":
        return cast(Precision, precision)
    convolutions = any(len(layer.shape) > 2 for layer in layers)
    return "bf16" if convolutions and multiplies_bfloat16(device) else "fp32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool({"avx512_bf16", "amx_bf16", "bf16"} & _processor_flags())


@cache
def _processor_flags() -> frozenset[str]:
    """What the processor says it can; empty where nobody tells (not Linux)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass  # not Linux: nothing is claimed
    return frozenset()


def environment(device: torch.device) -> dict[str, Any]:
    """What a result depends on besides its settings: versions, device, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "snas": snas.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": version("scikit-learn"),
        "scipy": version("scipy"),
        "bayesian-optimization": version("bayesian-optimization"),
        "cmaes": version("cmaes"),
        **{name: found for name in ("botorch", "gpytorch") if (found := _version(name))},
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    """The version of a package that need not be there; "" where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the portable name below serves
    return platform.processor() or platform.machine()
