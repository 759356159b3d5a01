"""Metaparameters of trials from a Sobol sequence, and the ranges that they are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from snas.errors import InputError
from snas.seeds import Stream, derive


@dataclass(frozen=True)
class Range:
    """Where a metaparameter is looked for.

    Attributes:
        low: smallest value.
        high: largest value.
        by: what is uniform in it: "log" the value's logarithm, "linear" the value, "distance" the logarithm of
            1 - value, which is the scale of a momentum.
    """

    low: float
    high: float
    by: str = "log"

    def at(self, place: float) -> float:
        """The value at a place in [0, 1].

        Example:
            >>> round(Range(0.01, 1.0).at(0.5), 6), round(Range(0.0, 0.99, "distance").at(0.5), 6)
            (0.1, 0.9)
        """
        if self.by == "linear":
            return self.low + place * (self.high - self.low)
        if self.by == "distance":
            return 1 - Range(1 - self.high, 1 - self.low).at(1 - place)
        return math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))


def read_range(text: str, name: str, *, by: str = "log") -> Range:
    """A range from text.

    Args:
        text: "low..high", or one number for a value that is not searched.
        name: of the metaparameter, for errors.
        by: as in `Range`.

    Raises:
        InputError: for what is no range, or one that its scale does not have.

    Example:
        >>> read_range("0.01..0.3", "lr")
        Range(low=0.01, high=0.3, by='log')
    """
    parts = text.split("..")
    try:
        low, high = (float(part) for part in (parts if len(parts) == 2 else parts * 2))
    except ValueError:
        raise InputError(f"{name} is {text!r}; expected low..high or one number, as in 0.01..0.3") from None
    top = {"distance": 1.0, "linear": math.inf, "log": math.inf}[by]
    if not (low <= high < top and (low > 0 or (by != "log" and low == 0))):
        allowed = {"distance": "0 <= low <= high < 1", "linear": "0 <= low <= high", "log": "0 < low <= high"}[by]
        raise InputError(f"{name} is {text!r}; expected {allowed}")
    return Range(low, high, by)


def sobol_trials(ranges: Mapping[str, Range], numbers: Sequence[int], *, seed: int) -> list[dict[str, float]]:
    """Trials of a quasi-random search: points of one scrambled Sobol sequence.

    A trial is known by its number in the sequence, so that a budget can be extended, and equal numbers are the same
    metaparameters whatever batch size and sparsity they are tried on.

    Args:
        ranges: name -> where it is looked for.
        numbers: of the trials, from 0.
        seed: of the scrambling.

    Returns:
        For each number, name -> value.

    Example:
        >>> trials = sobol_trials({"lr": Range(0.01, 1.0)}, range(4), seed=0)
        >>> sorted(int(4 * math.log10(trial["lr"] / 0.01) / 2) for trial in trials)
        [0, 1, 2, 3]
    """
    if not numbers:
        return []
    generator = np.random.default_rng(derive(seed, Stream.PROPOSAL))
    sequence = qmc.Sobol(len(ranges), scramble=True, rng=generator)
    points = sequence.random_base2(max(numbers).bit_length())
    return [
        {name: own.at(float(place)) for (name, own), place in zip(ranges.items(), points[number], strict=True)}
        for number in numbers
    ]
