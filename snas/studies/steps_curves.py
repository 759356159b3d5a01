"""What the trials of one sparsity say together: steps against batch size, and their law."""

from __future__ import annotations

import math
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
    """

    title: str
    sparsity: float
    trials: Mapping[int, Sequence[Trial]]
    every: int
    cap: float | None

    @property
    def sizes(self) -> list[int]:
        """Batch sizes that were tried."""
        return sorted(self.trials)

    @cached_property
    def known(self) -> dict[int, float]:
        """Batch size -> fewest steps of any trial; the mean over seeds. Those never reached are left out."""
        found = {size: self._fewest(trials) for size, trials in self.trials.items()}
        return {size: found[size] for size in self.sizes if found[size] is not None}  # type: ignore[misc]

    @staticmethod
    def _fewest(trials: Sequence[Trial]) -> float | None:
        seeds = sorted({trial["seed"] for trial in trials})
        least = [
            min((t["steps"] for t in trials if t["seed"] == seed and t["status"] == "complete"), default=None)
            for seed in seeds
        ]
        reached = [steps for steps in least if steps is not None]
        if len(reached) < len(least):
            return None
        return reached[0] if len(reached) == 1 else fmean(reached)

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
    def laws(self) -> list[Law]:
        """Laws of resampled trials; the same draws for every sparsity, whose trials have the same metaparameters."""
        if self.law is None:
            return []
        groups = [
            [trial["steps"] if trial["status"] == "complete" else None for trial in self.trials[size]]
            for size in self.known
        ]
        rows = resampled(groups, rounds=ROUNDS, seed=0, cap=self.cap)
        return fit_laws(list(self.known), rows, every=self.every)

    @property
    def spread(self) -> tuple[float, float] | None:
        """What 90 % of the resamples' critical batch sizes lie between."""
        if not self.laws:
            return None
        low, high = np.quantile([law.critical for law in self.laws], [0.05, 0.95])
        return float(low), float(high)

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


def curves_of(points: Sequence[Point], *, title: str) -> list[Curve]:
    """The curves of one workload's points, the least sparse first."""
    curves = []
    for sparsity in values_of(points, "sparsity"):
        trials: dict[int, list[Trial]] = {}
        own = [point for point in points if point["sparsity"] == sparsity]
        for point in own:
            told = [{**trial, "seed": point["seed"]} for trial in point.result["trials"]]
            trials.setdefault(point["batch_size"], []).extend(told)
        curves.append(Curve(title, sparsity, trials, own[0]["every"], own[0]["cap"] or None))
    return curves
