"""Where networks are trained, and with how many threads."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

import snas
from snas.errors import InputError


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
