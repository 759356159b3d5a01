"""Sparse neural architecture search: find how much of each layer of a network to keep.

import snas
result = snas.search("resnet32", dataset="digits", strategy="bayes")
print(result.best.test_accuracy, result.best.densities.fractions)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "search": "snas.api",
    "prune": "snas.api",
    "sweep": "snas.sweeps.command",
    "run_study": "snas.studies.command",
    "train": "snas.api",
    "transfer": "snas.transfers",
    "leaderboard": "snas.api",
    "analyze_signals": "snas.analysis.signals",
    "analyze_gradient_flow": "snas.analysis.gradient_flow",
    "SearchResult": "snas.results",
    "SweepResult": "snas.sweeps.result",
    "StudyResult": "snas.studies.result",
    "TransferResult": "snas.transfers",
    "Result": "snas.results",
    "Budget": "snas.budget",
    "Densities": "snas.densities",
    "Layer": "snas.densities",
    "SnasError": "snas.errors",
    "InputError": "snas.errors",
    "Listener": "snas.listener",
    "Registry": "snas.registry",
    "SearchSpace": "snas.search_spaces.base",
    "spaces": "snas.search_spaces.base",
    "Strategy": "snas.strategies.base",
    "Dataset": "snas.data.base",
    "datasets": "snas.data.base",
    "from_arrays": "snas.data.arrays",
    "load_dataset": "snas.data.base",
    "load_network": "snas.weights",
    "Trial": "snas.trials",
}

__all__ = [
    "Budget",
    "Dataset",
    "Densities",
    "InputError",
    "Layer",
    "Listener",
    "Registry",
    "Result",
    "SearchResult",
    "SearchSpace",
    "SnasError",
    "Strategy",
    "StudyResult",
    "SweepResult",
    "TransferResult",
    "Trial",
    "__version__",
    "analyze_gradient_flow",
    "analyze_signals",
    "datasets",
    "from_arrays",
    "leaderboard",
    "load_dataset",
    "load_network",
    "prune",
    "run_study",
    "search",
    "spaces",
    "sweep",
    "train",
    "transfer",
]

if TYPE_CHECKING:
    from snas.analysis.gradient_flow import analyze_gradient_flow
    from snas.analysis.signals import analyze_signals
    from snas.api import leaderboard, prune, search, train
    from snas.budget import Budget
    from snas.data.arrays import from_arrays
    from snas.data.base import Dataset, datasets, load_dataset
    from snas.densities import Densities, Layer
    from snas.errors import InputError, SnasError
    from snas.listener import Listener
    from snas.registry import Registry
    from snas.results import Result, SearchResult
    from snas.search_spaces.base import SearchSpace, spaces
    from snas.strategies.base import Strategy
    from snas.studies.command import run_study
    from snas.studies.result import StudyResult
    from snas.sweeps.command import sweep
    from snas.sweeps.result import SweepResult
    from snas.transfers import TransferResult, transfer
    from snas.trials import Trial
    from snas.weights import load_network


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: torch takes a second that `import snas` need not."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'snas' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
