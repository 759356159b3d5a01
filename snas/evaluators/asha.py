"""Asynchronous successive halving [Li2020] as arithmetic: no clock, thread or framework.

Promotion type: a candidate that reaches a rung pauses there, and goes on only when it is among the best 1/eta of all
that have reached that rung so far. A study promotes the top half, eta = 2 ([Tessera2021] section 4.3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from snas import pareto
from snas.errors import InputError
from snas.trials import Status, Trial

Decision = Literal["promote", "pause", "stop"]


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs, in epochs, and the rule for climbing them.

    Args:
        grace: epochs of the first rung.
        maximum: epochs of the last rung, where training ends.
        eta: reduction factor; the best 1/eta of a rung are promoted.
        brackets: how many ladders there are, each beginning one rung later than the one before, as a hedge against
            scores of short trainings that mislead ([Li2020] section 3.3, asynchronous Hyperband). Candidates of
            different brackets are not compared.

    Example:
        >>> Ladder(1, 16, 2).rungs
        (1, 2, 4, 8, 16)
        >>> Ladder(3, 10, 2).rungs
        (3, 6, 10)
        >>> ladder = Ladder(1, 4, 2, brackets=2)
        >>> [ladder.rungs_of(number) for number in range(3)]
        [(1, 2, 4), (2, 4), (1, 2, 4)]
    """

    grace: int
    maximum: int
    eta: int = 2
    brackets: int = 1

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise InputError(f"eta is {self.eta}; expected at least 2")
        if not 1 <= self.grace <= self.maximum:
            raise InputError(f"grace is {self.grace}; expected 1 <= grace <= epochs ({self.maximum})")
        if not 1 <= self.brackets <= len(self.rungs):
            raise InputError(
                f"brackets is {self.brackets}; expected 1 to {len(self.rungs)}, the number of rungs "
                f"({', '.join(map(str, self.rungs))} epochs)"
            )

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which candidates are compared, the last being the full training."""
        rungs, epochs = [], self.grace
        while epochs < self.maximum:
            rungs.append(epochs)
            epochs *= self.eta
        return (*rungs, self.maximum)

    def bracket_of(self, number: int) -> int:
        """The bracket of a candidate: 0, 1, 2 ... begin 0, 1, 2 ... rungs later.

        All brackets are to have their share at any time. As in Hyperband, they cost about the same: with R rungs in
        all, bracket s gets candidates in proportion to eta^-s R / (R - s).
        """
        if self.brackets == 1:
            return 0
        size = 1 << number.bit_length()
        return _assignment(size, levels=len(self.rungs), eta=self.eta, brackets=self.brackets)[number]

    def rungs_of(self, number: int) -> tuple[int, ...]:
        """The rungs of a candidate's bracket."""
        return self.rungs[self.bracket_of(number) :]

    def next_rung(self, epochs: int, number: int = 0) -> int:
        """The first rung of candidate `number` above `epochs`; the last one where there is none above."""
        return next((rung for rung in self.rungs_of(number) if rung > epochs), self.maximum)

    def decide(self, number: int, rung: int, scores: Mapping[int, float]) -> Decision:
        """Decide what a candidate at a rung does now.

        Args:
            number: the candidate.
            rung: epochs of the rung that it has reached.
            scores: candidate -> score at this rung, of all that have reached it, higher is better.

        Returns:
            "stop" at the last rung; "promote" for the best floor(len(scores) / eta), an earlier candidate winning a
            tie; else "pause".

        Example:
            >>> Ladder(1, 16).decide(3, 1, {0: 0.5, 1: 0.9, 2: 0.7, 3: 0.8})
            'promote'
        """
        if rung >= self.maximum:
            return "stop"
        ranking = sorted(scores, key=lambda other: (-scores[other], other))
        return "promote" if number in ranking[: len(scores) // self.eta] else "pause"

    def next_promotion(self, history: Sequence[Trial]) -> tuple[int, int] | None:
        """Find the paused candidate to promote now, looking at the highest rungs first.

        Returns:
            The candidate's number and the epochs to train it until; None where nothing is to be promoted.
        """
        brackets = self._by_bracket(history)
        for rung in reversed(self.rungs[:-1]):
            for trials in brackets:
                standings = standings_at(trials, rung)
                for number in self._waiting(trials, rung, standings):
                    if self.decide(number, rung, standings) == "promote":
                        return number, self.next_rung(rung, number)
        return None

    def last_resort(self, history: Sequence[Trial]) -> tuple[int, int] | None:
        """Find whom to promote when there is nothing else to do and nobody of a bracket has reached the last rung.

        A search of few candidates would otherwise end without one that is fully trained: the best of the highest rung
        that has anyone waiting goes on.
        """
        for trials in self._by_bracket(history):
            if any(self.maximum in trial.scores for trial in trials):
                continue
            for rung in reversed(self.rungs[:-1]):
                for number in self._waiting(trials, rung, standings_at(trials, rung)):
                    return number, self.next_rung(rung, number)
        return None

    def _by_bracket(self, history: Sequence[Trial]) -> list[list[Trial]]:
        """The candidates of each bracket that has any, the earliest ladder first."""
        brackets: dict[int, list[Trial]] = {}
        for trial in history:
            brackets.setdefault(self.bracket_of(trial.number), []).append(trial)
        return [trials for _, trials in sorted(brackets.items())]

    @staticmethod
    def _waiting(history: Sequence[Trial], rung: int, standings: Mapping[int, float]) -> list[int]:
        """Candidates that pause at the rung, best first; one whose score is no finite number waits for ever."""
        waiting = [
            trial.number
            for trial in history
            if trial.status is Status.PAUSED and trial.epochs == rung and math.isfinite(trial.scores[rung])
        ]
        return sorted(waiting, key=lambda number: (-standings[number], number))


@lru_cache
def _assignment(size: int, *, levels: int, eta: int, brackets: int) -> tuple[int, ...]:
    """The brackets of candidates 0 .. `size` - 1: each goes where most is missing of the bracket's share."""
    weights = [levels / (levels - s) * float(eta) ** -s for s in range(brackets)]
    counts = [0] * brackets
    chosen = []
    for _ in range(size):
        chosen.append(min(range(brackets), key=lambda s: ((counts[s] + 0.5) / weights[s], s)))
        counts[chosen[-1]] += 1
    return tuple(chosen)


def standings_at(history: Sequence[Trial], rung: int) -> dict[int, float]:
    """Candidate -> how it stands at a rung, higher is better: its score, or where costs count too, its place.

    A score that is no finite number stands below all that are. With costs, places follow the fronts of score and costs,
    and within a front loneliness ([Schmucker2021] R. Schmucker et al.: Multi-objective asynchronous successive halving,
    section 4).
    """
    there = sorted((trial for trial in history if rung in trial.scores), key=lambda trial: trial.number)
    if not any(trial.costs for trial in there):
        found = {trial.number: trial.scores[rung] for trial in there}
        return {number: score if math.isfinite(score) else -math.inf for number, score in found.items()}
    values = [[trial.scores[rung], *(-cost for cost in trial.costs)] for trial in there]
    return {there[index].number: -float(place) for place, index in enumerate(pareto.order(values))}
