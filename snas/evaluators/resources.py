"""What a candidate takes of a machine, as the command line says it: cpu=1,gpu=0.25."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from snas.checks import split_list
from snas.errors import InputError

EXAMPLE = "cpu=1,gpu=0.25"
STEP = 10_000  # Ray counts in ten-thousandths
NAMES = {"cpu": "CPU", "gpu": "GPU"}  # as Ray spells them; other names are the user's own


def read_resources(text: str) -> dict[str, float]:
    """The amounts that a text names, by name; those of nothing are left out.

    Raises:
        InputError: if one is no amount, is named twice, or cannot be had: a network trains on one GPU, or a part of it.

    Example:
        >>> read_resources("cpu=2, gpu=0.25"), read_resources("cpu=1,gpu=0,big=1")
        ({'cpu': 2.0, 'gpu': 0.25}, {'cpu': 1.0, 'big': 1.0})
    """
    amounts: dict[str, float] = {}
    for item in split_list("resources", text, example=EXAMPLE):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not name or not equals:
            raise InputError(f"resources has {item!r}; expected name=amount, as in {EXAMPLE}")
        name = name.lower() if name.lower() in NAMES else name
        if name in amounts:
            raise InputError(f"resources names {name!r} twice; name it once")
        amounts[name] = _amount(name, value)
    wanted = {name: amount for name, amount in amounts.items() if amount}
    if not wanted:
        raise InputError(f"resources is {text!r}, which is nothing; expected some, as in {EXAMPLE}")
    return wanted


def written(resources: Mapping[str, float]) -> str:
    """The text that `read_resources` reads.

    Example:
        >>> written({"cpu": 1.0, "gpu": 0.25})
        'cpu=1,gpu=0.25'
    """
    return ",".join(f"{name}={amount:g}" for name, amount in resources.items())


def as_ray_names(resources: Mapping[str, float]) -> dict[str, float]:
    """The same amounts under the names that Ray's nodes have them by."""
    return {NAMES.get(name, name): amount for name, amount in resources.items()}


def room(nodes: Iterable[Mapping[str, float]], resources: Mapping[str, float]) -> int:
    """How many candidates nodes have room for at a time.

    Args:
        nodes: what each has in all, by Ray's names.
        resources: what a candidate takes.

    Example:
        >>> room([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0}], {"cpu": 2.0}), room([{"CPU": 4.0}], {"gpu": 0.5})
        (3, 0)
    """
    wanted = as_ray_names(resources).items()
    return sum(
        min(round(node.get(name, 0.0) * STEP) // round(amount * STEP) for name, amount in wanted) for node in nodes
    )


def _amount(name: str, value: str) -> float:
    """One amount."""
    try:
        amount = float(value)
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount) or amount < 0 or amount > 1e6 or 0 < amount < 1 / STEP:
        raise InputError(f"resources has {name}={value}; expected an amount of at least 0, as in {EXAMPLE}")
    if name == "gpu" and amount > 1:
        raise InputError(f"resources has gpu={value}; expected at most 1, since a network trains on one GPU")
    return amount
