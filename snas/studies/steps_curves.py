"""What the trials of one sparsity say together: steps against batch size, and their law."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np

from snas.studies.base import Point, values_of
from snas.studies.scaling_law import FEWEST, Law, bounded, fit_law, fit_laws, resampled

ROUNDS = 1000  # resamples

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """The trials of one workload and sparsity.

    Attributes:
        title: of the workload.
        sparsity: of the networks.
        trials: batch size -> what came of each trial, of all seeds.
        every: steps between looks at the goal.
        cap: where trials were ended at so many times the fewest steps.
        seeds: that means are over, the same at every batch size.
    """

    title: str
    sparsity: float
    trials: Mapping[int, Sequence[Trial]]
    every: int
    cap: float | None
    seeds: frozenset[int]

    @property
    def sizes(self) -> list[int]:
        """Batch sizes that were tried."""
        return sorted(self.trials)

    @cached_property
    def known(self) -> dict[int, float]:
        """Batch size -> fewest steps of any trial; the mean over seeds. Those that a seed never reached, or has no
        trials of, are left out."""
        found = {size: self._fewest(size) for size in self.sizes}
        return {size: steps for size, steps in found.items() if steps is not None}

    def _fewest(self, size: int) -> float | None:
        if self.lacks(size):
            return None
        groups = _by_seed(self.trials[size]).values()
        reached = [min(steps) for group in groups if (steps := [one for one in group if one is not None])]
        if len(reached) < len(groups):
            return None
        return reached[0] if len(reached) == 1 else fmean(reached)

    def lacks(self, size: int) -> bool:
        """Whether a seed has no trials of a batch size: its network was refused, failed, or has not been measured."""
        return not self.seeds <= {trial["seed"] for trial in self.trials.get(size, ())}

    def best(self, size: int) -> Trial | None:
        """The trial with the fewest steps, where one was complete."""
        complete = [trial for trial in self.trials[size] if trial["status"] == "complete"]
        return min(complete, key=lambda trial: trial["steps"], default=None)

    @cached_property
    def law(self) -> Law | None:
        """The law of the known steps; None for too few."""
        if len(self.known) < FEWEST:
            return None
        return fit_law(list(self.known), list(self.known.values()), every=self.every)

    @cached_property
    def laws(self) -> list[Law | None]:
        """Laws of rounds of trials drawn anew, at the batch sizes whose steps are known; none without a law of these.
        None stands for a round with too few known steps."""
        return self._resampled(list(self.known)) if self.law else []

    def laws_at(self, sizes: Sequence[int]) -> list[Law | None]:
        """The same, at some of these batch sizes."""
        return self.laws if list(sizes) == list(self.known) else self._resampled(sizes)

    def _resampled(self, sizes: Sequence[int]) -> list[Law | None]:
        groups = {size: _by_seed(self.trials[size]) for size in sizes}
        return fit_laws(sizes, resampled(groups, rounds=ROUNDS, seed=0, cap=self.cap), every=self.every)

    @property
    def spread(self) -> str:
        """What 90 % of the resamples' critical batch sizes lie between, with "<" or ">" beyond what was measured."""
        found = [law.critical for law in self.laws if law is not None]
        if not found:
            return "-"
        ends = np.quantile(found, [0.05, 0.95])
        return " to ".join(bounded_text(float(end), list(self.known)) for end in ends)

    @property
    def beyond(self) -> str:
        """Whether the critical batch size is a bound only: "<", ">" or ""."""
        return bounded(self.law, list(self.known)) if self.law else ""

    @cached_property
    def sum(self) -> Law | None:
        """The same as a sum of both regimes (eq. 5.15)."""
        if self.law is None:
            return None
        return fit_law(list(self.known), list(self.known.values()), every=self.every, form="sum")

    def misfit(self, law: Law | None) -> float:
        """Root mean square of the logarithm of known steps over a law's; NaN without one."""
        if law is None:
            return math.nan
        expected = law.steps(list(self.known))
        return float(np.sqrt(np.mean(np.log(np.array(list(self.known.values())) / expected) ** 2)))


@dataclass(frozen=True)
class CriticalComparison:
    """The critical batch sizes of two curves in the same rounds of resampling, at the batch sizes known to both.

    Attributes:
        larger: rounds in which the second one's is larger.
        smaller: rounds in which it is not.
        open: rounds in which both lie beyond what was measured, on the same side: they are bounds, and say nothing.
        sizes: batch sizes that both are known at.
    """

    larger: int
    smaller: int
    open: int
    sizes: tuple[int, ...]

    @property
    def rounds(self) -> int:
        """How many there are of all three."""
        return self.larger + self.smaller + self.open


def compare_critical(one: Curve, other: Curve) -> CriticalComparison | None:
    """Whether the other curve's critical batch size is larger, a round of resampling at a time.

    Both laws of a round are of the same draws at the same batch sizes; rounds in which either has too few known steps
    are left out. None where fewer than `FEWEST` batch sizes are known to both, or no round has both laws, or their
    means are over different seeds.
    """
    sizes = tuple(size for size in one.known if size in other.known and one.seeds == other.seeds)
    if len(sizes) < FEWEST:
        return None
    counts = Counter[str]()
    for first, second in zip(one.laws_at(sizes), other.laws_at(sizes), strict=True):
        if first is not None and second is not None:
            beyond = bounded(first, sizes)
            if beyond and beyond == bounded(second, sizes):
                counts["open"] += 1
            else:
                counts["larger" if second.critical > first.critical else "smaller"] += 1
    if not counts:
        return None
    return CriticalComparison(counts["larger"], counts["smaller"], counts["open"], sizes)


def _by_seed(trials: Sequence[Trial]) -> dict[int, list[float | None]]:
    """Seed -> steps of each trial in the order of their numbers; None where the goal was not reached."""
    found: dict[int, list[float | None]] = {}
    for trial in sorted(trials, key=lambda trial: (trial["seed"], trial["number"])):
        found.setdefault(trial["seed"], []).append(trial["steps"] if trial["status"] == "complete" else None)
    return found


def bounded_text(critical: float, sizes: Sequence[int]) -> str:
    """A critical batch size; where it is beyond the batch sizes, the outermost one with "<" or ">"."""
    if critical <= min(sizes):
        return f"<{min(sizes):,}"
    return f">{max(sizes):,}" if critical >= max(sizes) else f"{critical:,.0f}"


def curves_of(points: Sequence[Point], *, title: str) -> list[Curve]:
    """The curves of one workload's points, the least sparse first. Means of all of them are over the same seeds."""
    curves = []
    seeds = frozenset(point["seed"] for point in points)
    for sparsity in values_of(points, "sparsity"):
        trials: dict[int, list[Trial]] = {}
        own = [point for point in points if point["sparsity"] == sparsity]
        for point in own:
            told = [{**trial, "seed": point["seed"]} for trial in point.result["trials"]]
            trials.setdefault(point["batch_size"], []).extend(told)
        curves.append(Curve(title, sparsity, trials, own[0]["every"], own[0]["cap"] or None, seeds))
    return curves
