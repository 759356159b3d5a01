"""What a search is to bring about: a high accuracy, alone or together with little of something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from snas.densities import Densities
from snas.errors import InputError

COSTS: Mapping[str, Callable[[Densities], float]] = {
    "kept_weights": lambda densities: float(densities.kept_weights),
    "flops": lambda densities: float(densities.flops),
}


def read_objectives(text: str) -> tuple[str, ...]:
    """The costs beside the accuracy that a list with commas names.

    Raises:
        InputError: for an unknown objective, one named twice, or a list without the accuracy.

    Example:
        >>> read_objectives("accuracy,kept-weights"), read_objectives("accuracy")
        (('kept_weights',), ())
    """
    names = [name.strip().replace("-", "_") for name in text.split(",")]
    for name in names:
        if name not in ("accuracy", *COSTS):
            raise InputError(f"objective {name!r} is unknown; choices: accuracy, {', '.join(COSTS)}")
        if names.count(name) > 1:
            raise InputError(f"objective {name!r} is given twice; give each once")
    if "accuracy" not in names:
        raise InputError(f"objectives are {text!r}; accuracy has to be one of them")
    return tuple(name for name in names if name != "accuracy")


def costs_of(densities: Densities, objectives: tuple[str, ...]) -> tuple[float, ...]:
    """What a candidate costs, in the order of the objectives."""
    return tuple(COSTS[name](densities) for name in objectives)
