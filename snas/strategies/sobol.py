"""A scrambled Sobol sequence: spreads points more evenly than chance does, whatever the history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snas.strategies.base import strategies
from snas.trials import Point, Trial

BITS = 30


@strategies.register("sobol")
class Sobol:
    """Points of one scrambled Sobol sequence ([Sobol1967], [Matousek1998]): a more even random search.

    The k-th trial proposed by the strategy is the k-th point, however many are asked for at a time. A point is made of
    30 bits per coordinate. The sequence has a linear scramble, which breaks up the patterns that two late coordinates
    show together; its seed depends on the dimension alone, since the generator of a later proposal is another one.
    What differs between searches is a digital shift: the exclusive or of all points with one. The generator draws it
    at the first proposal, and as the sequence itself begins at the origin, the first point is the shift: the history
    keeps it.

    Where a coordinate is a choice, the search moves it to the middle of its part, which leaves the sequence as it is
    but for the shift of that coordinate.

    Sources:
        [Sobol1967] I. Sobol: On the distribution of points in a cube and the approximate evaluation of integrals.
        [Matousek1998] J. Matousek: On the L2-discrepancy for anchored boxes.

    Example:
        >>> first, second = Sobol().ask([], 2, dimensions=1, rng=np.random.default_rng(0))
        >>> [again] = Sobol().ask([Trial(0, first)], 1, dimensions=1, rng=np.random.default_rng(7))
        >>> bool(again == second), bool((first < 0.5) != (second < 0.5))
        (True, True)
    """

    def ask(self, history: Sequence[Trial], n: int, *, dimensions: int, rng: np.random.Generator) -> list[Point]:
        """Propose `n` points of shape (dimensions,); see `Strategy.ask`. The order of `history` does not matter."""
        own = sorted((trial for trial in history if not trial.given), key=lambda trial: trial.number)
        if own:
            shift = np.minimum(np.floor(own[0].point * 2**BITS), 2**BITS - 1).astype(np.int64)
        else:
            shift = rng.integers(2**BITS, size=dimensions)
        shifted = scrambled(dimensions, len(own), n) ^ shift
        return list(shifted / float(2**BITS))


def scrambled(dimensions: int, start: int, n: int) -> NDArray[np.int64]:
    """Points `start` to `start + n - 1` of the sequence without its shift, as integers below 2^30.

    Args:
        dimensions: at most 21,201, for which direction numbers are known.
        start: at least 0; point 0 is the origin.
        n: at least 1.

    Returns:
        Shape (n, dimensions).
    """
    from scipy.stats import qmc

    engine = qmc.Sobol(dimensions, scramble=True, bits=BITS, rng=np.random.default_rng(dimensions))
    points = [engine.random(1)]  # alone: of another number than a power of 2 SciPy warns
    if start > 1:
        engine.fast_forward(start - 1)
    points.append(engine.random(n - (start == 0)))
    integers = (np.concatenate(points) * 2**BITS).astype(np.int64)
    unshifted: NDArray[np.int64] = integers ^ integers[0]
    return unshifted[-n:]
