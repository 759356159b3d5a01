"""Rank correlation of a signal with a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import kendalltau

from snas.analysis.observations import Observation


@dataclass(frozen=True)
class Correlation:
    """How a signal goes along with the validation accuracy after some epochs.

    Attributes:
        signal: its name.
        epochs: after which the score was taken.
        tau: Kendall's tau-b, in [-1, 1]; None where it is not defined: fewer than two candidates, or all alike.
        p: two-sided probability of a tau as far from 0 without any relation; None where tau is.
        n: candidates that have both.
    """

    signal: str
    epochs: int
    tau: float | None
    p: float | None
    n: int


def correlate(observations: Sequence[Observation], signal: str, epochs: int) -> Correlation:
    """Correlate a signal with the score after `epochs`, over the candidates that have both.

    Source:
        [Kendall1945] M. Kendall: The treatment of ties in ranking problems, Biometrika 33 (tau-b).

    Example:
        >>> from snas.trials import Trial
        >>> import numpy as np
        >>> pairs = [(1.0, 0.5), (2.0, 0.6), (3.0, 0.55)]
        >>> some = [Observation("s", {"gf1": x}, Trial(0, np.zeros(1), scores={4: y})) for x, y in pairs]
        >>> round(correlate(some, "gf1", 4).tau, 4)
        0.3333
    """
    pairs = [
        (seen.signals[signal], seen.trial.scores[epochs])
        for seen in observations
        if signal in seen.signals and epochs in seen.trial.scores
    ]
    if len(pairs) < 2:
        return Correlation(signal, epochs, None, None, len(pairs))
    found = kendalltau(*zip(*pairs, strict=True))
    tau, p = float(found.statistic), float(found.pvalue)
    if math.isnan(tau):
        return Correlation(signal, epochs, None, None, len(pairs))
    return Correlation(signal, epochs, tau, p, len(pairs))
