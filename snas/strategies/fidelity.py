"""What models may learn from trainings of different lengths: scores of short ones, carried over to the longest.

Scores of different lengths are not equal, but those of a candidate that was trained on say how they go together. Which
candidates these are was decided by the shorter length's score, and such a choice does not bias a regression *on* that
score, whereas means and spreads of the promoted ones would be those of the better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snas.trials import Status, Trial

Array = NDArray[np.float64]

TRUST = 3.0  # pairs' worth of belief that a point at one length is a point at the next
STEEPEST = 3.0


@dataclass(frozen=True)
class Observations:
    """One observation per trial that has a score to learn from.

    Attributes:
        trials: in the order of their numbers, shape (n,).
        values: scores at the longest length, measured or foretold, in units of the largest score, shape (n,).
        lengths: epochs after which each was measured, shape (n,).
        failed: which are no scores but stand for failures, shape (n,): as bad as the worst.
        pending: the trials that run and have no score yet.
    """

    trials: tuple[Trial, ...]
    values: Array
    lengths: NDArray[np.int64]
    failed: NDArray[np.bool_]
    pending: tuple[Trial, ...]


def rungs(history: Sequence[Trial]) -> list[int]:
    """Training lengths at which candidates are compared: those at which some have stopped, shortest first.

    While all are running it is the length that most have reached.

    Example:
        >>> point = np.zeros(1)
        >>> paused = Trial(0, point, Status.PAUSED, {1: 0.5, 2: 0.6})
        >>> rungs([paused, Trial(1, point, Status.FINISHED, {1: 0.4, 2: 0.6, 3: 0.7, 4: 0.7}), Trial(2, point)])
        [2, 4]
    """
    stopped = {trial.epochs for trial in history if trial.status in (Status.PAUSED, Status.FINISHED) and trial.scores}
    if stopped:
        return sorted(stopped)
    reached = sorted(trial.epochs for trial in history if trial.scores and not trial.failed)
    return [reached[(len(reached) - 1) // 2]] if reached else []


def observe(history: Sequence[Trial]) -> Observations:
    """One observation per trial: its score at the longest rung that it has reached, carried over to the longest of all.

    From each rung to the next, y = a + b x by least squares over the candidates that have both scores, with the slope
    drawn towards 1 as if by `TRUST` pairs more, and kept in [0, `STEEPEST`]. Where no candidate has both, the means of
    the two rungs are taken to be equal.

    Failed and refused trials, and scores that are not finite, count as the worst of the values.

    Example:
        >>> history = [
        ...     Trial(i, np.array([i / 8]), Status.FINISHED if i > 3 else Status.PAUSED,
        ...           {1: x, 4: x + 0.2} if i > 3 else {1: x})
        ...     for i, x in enumerate((0.1, 0.2, 0.3, 0.4, 0.6, 0.8))
        ... ]
        >>> observe(history).values.round(3).tolist()
        [0.3, 0.4, 0.5, 0.6, 0.8, 1.0]
    """
    ordered = sorted(history, key=lambda trial: trial.number)
    lengths = rungs(ordered)
    scale = max((abs(s) for t in ordered for s in t.scores.values() if math.isfinite(s)), default=0.0) or 1.0
    known, pending = [], []
    for trial in ordered:
        reached = [length for length in lengths if length in trial.scores]
        if trial.failed or reached:
            known.append((trial, max(reached, default=0)))
        elif trial.status is Status.RUNNING:
            pending.append(trial)
    scores = [trial.scores.get(length, math.nan) / scale for trial, length in known]
    good = np.array([not t.failed and math.isfinite(s) for (t, _), s in zip(known, scores, strict=True)], dtype=bool)
    if not good.any():
        return Observations((), np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=bool), tuple(pending))
    lines = dict(zip(lengths, _to_longest(ordered, lengths, scale), strict=True))
    values = np.full(len(known), math.nan)
    for place in np.flatnonzero(good):
        offset, slope = lines[known[place][1]]
        values[place] = offset + slope * scores[place]
    values[~good] = values[good].min()
    longest = max(k for (_, k), ok in zip(known, good, strict=True) if ok)
    measured = np.array([k if ok else longest for (_, k), ok in zip(known, good, strict=True)])
    return Observations(tuple(trial for trial, _ in known), values, measured, ~good, tuple(pending))


def _to_longest(history: Sequence[Trial], lengths: Sequence[int], scale: float) -> list[tuple[float, float]]:
    """Offset and slope that carry a score at each rung to the longest one."""
    lines = [(0.0, 1.0)]
    for short, long in reversed(list(itertools.pairwise(lengths))):
        offset, slope = _line(_scores(history, short, scale), _scores(history, long, scale))
        further, steeper = lines[0]
        lines.insert(0, (further + steeper * offset, steeper * slope))
    return lines


def _scores(history: Sequence[Trial], length: int, scale: float) -> dict[int, float]:
    return {
        trial.number: trial.scores[length] / scale
        for trial in history
        if not trial.failed and math.isfinite(trial.scores.get(length, math.nan))
    }


def _line(short: dict[int, float], long: dict[int, float]) -> tuple[float, float]:
    """Offset and slope from one rung to the next."""
    both = sorted(short.keys() & long.keys())
    if not both:
        means = [float(np.mean(list(scores.values()))) if scores else 0.0 for scores in (short, long)]
        return means[1] - means[0], 1.0
    x, y = np.array([short[i] for i in both]), np.array([long[i] for i in both])
    belief = TRUST * float(np.var(list(short.values())))
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy + belief) / (float(dx @ dx) + belief) if dx @ dx + belief > 0 else 1.0
    slope = min(max(slope, 0.0), STEEPEST)
    return float(y.mean() - slope * x.mean()), slope
