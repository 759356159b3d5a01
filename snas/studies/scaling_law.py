"""How steps to a result fall with the batch size: Theorem 5.3.1, its fit, and how sure the critical batch size is.

Beside the theorem there is the older form of appendix 5.A, eq. 5.15, a sum of both regimes that bends more slowly.

[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020, section 5.3.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snas.errors import InputError

TUNING = 0.1  # relative deviation of steps, beside that of looking every few steps: of tuning and of the seed
GRID = 2000  # values of T that are tried
BEYOND = 4.0  # how far outside the measured batch sizes a critical one is looked for, as a factor
FEWEST = 3  # batch sizes that two constants can be fitted to


Form = Literal["theorem", "sum"]


@dataclass(frozen=True)
class Law:
    """Steps K(B), which fall to C/T at most.

    By the theorem 4 C / B up to the critical batch size 2 T, and C (1/T + 1/(B - T)) from there; the two meet at 2 T
    with the same slope. By eq. 5.15, as a sum, C / B + C / T, with c1 = C and c2 = C / T.

    Attributes:
        c: C, in steps times examples; in the theorem 2 Delta beta L / (epsilon^2 mu^2).
        t: T, in examples; in the theorem beta / (mu^2 epsilon) - M_V / (2 mu^2).
        form: "theorem" or "sum".
    """

    c: float
    t: float
    form: Form = "theorem"

    @property
    def critical(self) -> float:
        """The theorem's critical batch size 2 T; of a sum, the one at which both parts are equal."""
        return 2 * self.t if self.form == "theorem" else self.t

    @property
    def plateau(self) -> float:
        """Steps that no batch size gets below."""
        return self.c / self.t

    def steps(self, sizes: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Steps at batch sizes, shape (n,).

        Example:
            >>> Law(c=1000.0, t=10.0).steps([10, 20, 1010]).tolist()
            [400.0, 200.0, 101.0]
        """
        return self.c * shape(np.asarray(sizes, dtype=np.float64), self.t, self.form)


def shape(sizes: NDArray[np.float64], t: float, form: Form = "theorem") -> NDArray[np.float64]:
    """Steps for C = 1."""
    if form == "sum":
        return 1 / sizes + 1 / t
    beyond = 1 / t + 1 / np.maximum(sizes - t, t)
    return np.asarray(np.where(sizes <= 2 * t, 4 / sizes, beyond))


def fit_law(sizes: Sequence[float], steps: Sequence[float], *, every: int = 1, form: Form = "theorem") -> Law:
    """The law that is nearest to measured steps, by weighted least squares of their logarithms.

    For a given T the best logarithm of C is a weighted mean, so that one number alone is searched: all of its range
    on a grid, refined by the parabola through the best three. The theorem is a bound; the constants found here are
    those of the curve, which need not be those of the formulas.

    Args:
        sizes: batch sizes, at least `FEWEST` different ones.
        steps: at each, above 0.
        every: steps between looks at the goal: the fewer steps, the coarser they are, and the less they weigh.
        form: of the law.

    Returns:
        The law. A critical size at an end of what was measured (see `bounded`) is a bound only.

    Raises:
        InputError: for too few batch sizes.
    """
    if len(set(sizes)) < FEWEST:
        raise InputError(f"a law of two constants cannot be fitted to {len(set(sizes))} batch sizes; give {FEWEST}")
    (law,) = fit_laws(sizes, np.asarray([steps], dtype=np.float64), every=every, form=form)
    if law is None:
        raise InputError("a law cannot be fitted to steps that are not finite; leave those batch sizes out")
    return law


def fit_laws(
    sizes: Sequence[float], rows: NDArray[np.float64], *, every: int, form: Form = "theorem"
) -> list[Law | None]:
    """The laws of many rows of steps at the same batch sizes.

    Args:
        sizes: batch sizes, shape (n,).
        rows: steps, shape (rows, n); NaN where they are not known.
        every: as in `fit_law`.
        form: the same.

    Returns:
        One for each row; None where fewer than `FEWEST` steps are known.
    """
    b = np.asarray(sizes, dtype=np.float64)
    enough = np.isfinite(rows).sum(1) >= FEWEST
    rows = rows[enough]
    known = np.isfinite(rows)
    steps = np.where(known, rows, 1.0)
    weights = np.where(known, 1 / (TUNING**2 + (every / steps) ** 2 / 12), 0.0)
    weights /= weights.sum(1, keepdims=True)
    logs = np.log(steps)
    log_t = np.linspace(math.log(b.min() / 2 / BEYOND), math.log(b.max() / 2 * BEYOND), GRID)
    curves = np.log(np.stack([shape(b, float(t), form) for t in np.exp(log_t)], axis=1))  # (n, GRID)
    mean = (weights * logs).sum(1, keepdims=True) - weights @ curves  # logarithm of the best C for each T
    squares = (weights * logs**2).sum(1, keepdims=True) - 2 * (weights * logs) @ curves + weights @ curves**2
    losses = squares - mean**2
    laws: list[Law | None] = [None] * len(enough)
    for row, (number, place) in enumerate(zip(np.flatnonzero(enough), losses.argmin(1), strict=True)):
        at = float(place)
        if 0 < place < GRID - 1:
            left, least, right = losses[row, place - 1 : place + 2]
            curvature = left - 2 * least + right
            at += 0.5 * float((left - right) / curvature) if curvature > 0 else 0.0
        places = np.arange(GRID)
        t = float(np.exp(np.interp(at, places, log_t)))
        laws[number] = Law(float(np.exp(np.interp(at, places, mean[row]))), t, form)
    return laws


def bounded(law: Law, sizes: Sequence[float]) -> str:
    """What the measured batch sizes say of a critical one: "" where it lies among them, "<" or ">" where beyond."""
    return "<" if law.critical <= min(sizes) else ">" if law.critical >= max(sizes) else ""


def resampled(
    trials: Mapping[int, Mapping[int, Sequence[float | None]]], *, rounds: int, seed: int, cap: float | None
) -> NDArray[np.float64]:
    """Fewest steps of each batch size with its trials drawn anew, with replacement: as another search might have it.

    The steps of a batch size are the mean over seeds of the fewest steps of each, and so are those of a round: trials
    are drawn from those of one seed for it, as many as it has. Drawn from all seeds at once, the fewest of all would be
    taken for the mean of the fewest of each, which is more.

    The draws of a batch size and seed depend on nothing else, so that round k draws the same trials for every sparsity
    which has as many, whatever batch sizes are missing.

    Args:
        trials: batch size -> seed -> the steps of each trial, in the order of their numbers; None where the goal was
            not reached.
        rounds: how often.
        seed: of the draws.
        cap: where trials were ended at so many times the fewest steps. A draw without any trial that was completed
            stands for that many then: the true number is larger.

    Returns:
        Shape (rounds, batch sizes), in their order; NaN where a seed has no trial among those drawn that reached the
        goal.
    """
    columns = []
    for size, groups in trials.items():
        least = []
        for number, group in groups.items():
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(size, number)))
            steps = np.array([math.inf if one is None else float(one) for one in group])
            drawn = steps[rng.integers(len(steps), size=(rounds, len(steps)))].min(1)
            least.append(np.minimum(drawn, steps.min() * (cap or math.inf)))
        columns.append(np.mean(least, axis=0))
    found = np.stack(columns, axis=1)
    return np.where(np.isfinite(found), found, math.nan)
