"""Paired comparison of two methods that were trained on the same seeds.

Seed k gives every method of one sweep, and of one search, the same initial weights, order of data and split, so that
differences are taken seed by seed. Two tests are told beside each other: the t test assumes normal differences and can
see much with few seeds; the signed-rank test assumes symmetric ones only, and cannot go below `smallest_p`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEVEL = 0.05
# Accuracies are quotients of whole numbers; differences nearer than this differ by rounding errors only.
DIGITS = 12


@dataclass(frozen=True)
class Difference:
    """How one method differs from another, over the seeds that both have. Accuracies are fractions.

    Attributes:
        seeds: how many both have.
        mean: mean of (method - other); None without a common seed.
        low: lower end of the 95 % t interval of the mean; None with fewer than 2 seeds, or if all differ alike.
        high: its upper end.
        t_p: two-sided p of the paired t test; 1 if no seed differs, None where there is no interval.
        wilcoxon_p: two-sided exact p of the signed-rank test; None with fewer than 2 seeds.
    """

    seeds: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    t_p: float | None = None
    wilcoxon_p: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A method beside the one that it is compared with, at one density.

    Attributes:
        density: of the column.
        method: that is compared.
        reference: that it is compared with.
        difference: paired, method - reference.
        t_adjusted: p of the t test, adjusted over the family of comparisons (Holm).
        wilcoxon_adjusted: the same for the signed-rank test.
    """

    density: float
    method: str
    reference: str
    difference: Difference
    t_adjusted: float | None
    wilcoxon_adjusted: float | None

    @property
    def indistinct(self) -> bool:
        """Whether the adjusted t test cannot tell the two apart at 5 %."""
        return self.t_adjusted is not None and self.t_adjusted >= LEVEL

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        values = asdict(self)
        return {**{name: values[name] for name in ("density", "method", "reference")}, **values.pop("difference")} | {
            "t_adjusted": self.t_adjusted,
            "wilcoxon_adjusted": self.wilcoxon_adjusted,
            "indistinct": self.indistinct,
        }


def paired_difference(method: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Compare two methods by the seeds that both have.

    Args:
        method: seed -> accuracy.
        other: of the method to compare with.

    Returns:
        Mean difference, interval and p values. If every seed has the same difference, and not 0, then there is no
        spread that a t test could judge by: interval and p are None.

    Example:
        >>> found = paired_difference({0: 0.5, 1: 0.75, 2: 0.75}, {0: 0.25, 1: 0.25, 2: 0.5, 3: 0.25})
        >>> found.seeds, round(found.mean, 4), round(found.t_p, 4), found.wilcoxon_p  # 1/3 and t = 4
        (3, 0.3333, 0.0572, 0.25)
    """
    from scipy import stats  # takes longer to import than most commands to run

    values = [round(method[seed] - other[seed], DIGITS) for seed in sorted(method.keys() & other.keys())]
    if len(values) < 2:
        return Difference(len(values), mean=values[0] if values else None)
    mean = statistics.fmean(values)
    ranked = signed_rank_p(values)
    if len(set(values)) == 1:
        same = values[0] == 0
        edge = 0.0 if same else None
        return Difference(len(values), mean, edge, edge, 1.0 if same else None, ranked)
    error = statistics.stdev(values) / math.sqrt(len(values))
    freedom = len(values) - 1
    margin = error * float(stats.t.ppf(1 - LEVEL / 2, freedom))
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Difference(len(values), mean, mean - margin, mean + margin, p, ranked)


def signed_rank_p(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact also with equal differences.

    Zeros are left out; equal sizes share their mean rank. All 2^n choices of signs are counted, by adding up the ranks'
    distribution one difference at a time; scipy's exact test takes neither zeros nor ties.

    Source:
        F. Wilcoxon: Individual comparisons by ranking methods, Biometrics Bulletin 1 (1945).

    Example:
        >>> signed_rank_p([1, 2, 3, 4, 5]), signed_rank_p([1, 1, -1]), signed_rank_p([0, 0])
        (0.0625, 1.0, 1.0)
    """
    from scipy.stats import rankdata

    signed = np.array([value for value in differences if value != 0], dtype=float)
    doubled = np.rint(2 * rankdata(np.abs(signed))).astype(int)  # mean ranks are halves
    chances = np.ones(1)
    for rank in doubled:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    place = int(doubled[signed > 0].sum())
    tail = min(chances[: place + 1].sum(), chances[place:].sum())
    return float(min(1.0, 2 * tail))


def smallest_p(seeds: int) -> float:
    """The smallest two-sided p that the signed-rank test can give with so many seeds: all signs alike, 2 of 2^n.

    Example:
        >>> smallest_p(5), smallest_p(6)
        (0.0625, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - seeds))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values of one family of tests, so that at most 5 % of families have a false one below 0.05.

    Args:
        values: p values; None where there was no test.

    Source:
        S. Holm: A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).

    Example:
        >>> holm([0.5, 0.01, None, 0.02])  # 1 x 0.5, 3 x 0.01, 2 x 0.02
        [0.5, 0.03, None, 0.04]
    """
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for tested, (value, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - tested) * value))
        adjusted[place] = highest
    return adjusted


def compare_all(
    density: float, pairs: Sequence[tuple[str, Mapping[int, float], str, Mapping[int, float]]]
) -> list[Comparison]:
    """Compare pairs of methods, as one family of tests.

    Args:
        density: of the networks.
        pairs: for each a method, its seed -> accuracy, the method to compare with, and seed -> accuracy of that.

    Example:
        >>> a, b, c = {0: 0.5, 1: 0.75, 2: 0.75}, {0: 0.25, 1: 0.25, 2: 0.5}, {0: 0.5, 1: 0.5, 2: 0.75}
        >>> found = compare_all(0.1, [("ours", a, "snip", b), ("ours", a, "erk", c)])
        >>> [(one.reference, round(one.difference.t_p, 3), round(one.t_adjusted, 3)) for one in found]
        [('snip', 0.057, 0.114), ('erk', 0.423, 0.423)]
    """
    differences = [paired_difference(ours, theirs) for _, ours, _, theirs in pairs]
    t_adjusted = holm([one.t_p for one in differences])
    ranked_adjusted = holm([one.wilcoxon_p for one in differences])
    return [
        Comparison(density, method, other, one, t, ranked)
        for (method, _, other, _), one, t, ranked in zip(pairs, differences, t_adjusted, ranked_adjusted, strict=True)
    ]
