"""Who is better than whom: the order of candidates that all evolutionary strategies share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from snas import pareto
from snas.strategies.fidelity import observe
from snas.trials import Trial


def is_scored(trial: Trial) -> bool:
    """Whether it has a finite last score, and has not failed since."""
    return not trial.failed and bool(trial.scores) and math.isfinite(trial.scores[trial.epochs])


def fitness(trial: Trial) -> tuple[int, float, int]:
    """Order candidates: by training length, then by the score at it, then the earlier one; higher is better.

    Scores of different lengths are never compared. Under successive halving a candidate is trained longer only for
    having outranked others at a length that they share, so that having got further says more than a score does; and,
    unlike comparing two candidates at the longest length both have, the order is total: a tournament's winner does
    not depend on who met whom first.
    """
    return trial.epochs, trial.scores[trial.epochs], -trial.number


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Those with a usable score, best first.

    Of several objectives none is more important: among candidates of equal training length the order is by front, and
    within a front the lonelier come first ([Deb2002] section III C). Longer training goes first as in `fitness`, for
    successive halving chooses by fronts too.

    Where there are several brackets a longer training says nothing of having outranked anybody: then all are compared
    by their scores carried over to the longest training (`fidelity.observe`).

    Example:
        >>> import numpy as np
        >>> point = np.zeros(1)
        >>> large = Trial(0, point, scores={1: 0.9}, costs=(50.0,))
        >>> small = Trial(1, point, scores={1: 0.8}, costs=(5.0,))
        >>> worse = Trial(2, point, scores={1: 0.7}, costs=(9.0,))
        >>> [trial.number for trial in ranked([worse, small, large])]
        [0, 1, 2]
    """
    trials = list(trials)
    if len({trial.bracket for trial in trials}) > 1:
        return _over_brackets(trials)
    scored = sorted(filter(is_scored, trials), key=fitness, reverse=True)
    if not any(trial.costs for trial in scored):
        return scored
    found: list[Trial] = []
    for _, group in itertools.groupby(scored, key=lambda trial: trial.epochs):
        equals = sorted(group, key=lambda trial: trial.number)
        values = [[trial.scores[trial.epochs], *(-cost for cost in trial.costs)] for trial in equals]
        found += [equals[index] for index in pareto.order(values)]
    return found


def _over_brackets(trials: Sequence[Trial]) -> list[Trial]:
    """The same for candidates of several brackets."""
    seen = observe(trials)
    good = [place for place, trial in enumerate(seen.trials) if not seen.failed[place] and is_scored(trial)]
    values = [[float(seen.values[place]), *(-cost for cost in seen.trials[place].costs)] for place in good]
    if not any(seen.trials[place].costs for place in good):
        return [
            seen.trials[good[index]] for index in sorted(range(len(good)), key=lambda index: (-values[index][0], index))
        ]
    return [seen.trials[good[index]] for index in pareto.order(values)]
