"""Random search: strong where few coordinates matter ([Bergstra2012]), and every other strategy's baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snas.strategies.base import strategies
from snas.trials import Point, Trial


@strategies.register("random")
class Random:
    """Uniform points of the unit cube, whatever the history.

    Example:
        >>> [point] = Random().ask([], 1, dimensions=3, rng=np.random.default_rng(0))
        >>> point.shape, point.dtype
        ((3,), dtype('float64'))
    """

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`."""
        return [rng.random(dimensions) for _ in range(n)]
