"""The seam between a search and whatever proposes its candidates.

A strategy is a function of the history: it holds no state of its own, so resuming a search is reading the registry.
To add one, write a class with `ask`, decorate it, and check it with `snas.testing.check_strategy`:

    @strategies.register("mine")
    class Mine:
        \"\"\"One line that `snas list strategies` shows.\"\"\"

        def __init__(self, *, option: float = 1.0) -> None: ...

        def ask(self, history, n, *, dimensions, rng):
            return [rng.random(dimensions) for _ in range(n)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from snas.plugins import Family, bind_arguments
from snas.trials import Point, Trial

if TYPE_CHECKING:
    from snas.encoding import Encoding


class Strategy(Protocol):
    """Proposes points of the unit cube from the history alone."""

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points.

        Args:
            history: all trials so far in the order of their numbers: running, paused, finished, failed and refused.
            n: how many points to propose, at least 1.
            dimensions: length of a point.
            rng: the only source of randomness.

        Returns:
            `n` arrays of shape (dimensions,) and type float64 with entries in [0, 1].
        """
        ...


@runtime_checkable
class Bound(Protocol):
    """A strategy that also wants to know what its points mean; most do not. It still learns from the history alone."""

    def bind(self, encoding: Encoding) -> Strategy:
        """Return the strategy for this encoding (`snas.encoding.Encoding`), which is the same for a whole search."""
        ...


strategies: Family[type[Strategy]] = Family(
    "strategy",
    group="snas.strategies",
    modules=(
        "snas.strategies.random",
        "snas.strategies.bayes",
        "snas.strategies.bayes_hd",
        "snas.strategies.evolution",
        "snas.strategies.cmaes",
        "snas.strategies.sobol",
        "snas.strategies.nsga2",
    ),
)


def make_strategy(name: str, arguments: Mapping[str, Any] | None = None) -> Strategy:
    """Make the strategy called `name`; `arguments` are its options (text is converted).

    Raises:
        InputError: for an unknown strategy, option or value.
    """
    factory = strategies.get(name)
    return factory(**bind_arguments(factory.__init__, arguments or {}, what=f"strategy {name!r}"))
