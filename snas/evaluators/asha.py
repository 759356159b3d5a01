"""Asynchronous successive halving [Li2020] as arithmetic: no clock, thread or framework.

Promotion type: a candidate that reaches a rung pauses there, and goes on only when it is among the best 1/eta of all
that have reached that rung so far. A study promotes the top half, eta = 2 ([Tessera2021] section 4.3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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

    Example:
        >>> Ladder(1, 16, 2).rungs
        (1, 2, 4, 8, 16)
        >>> Ladder(3, 10, 2).rungs
        (3, 6, 10)
    """

    grace: int
    maximum: int
    eta: int = 2

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise InputError(f"eta is {self.eta}; expected at least 2")
        if not 1 <= self.grace <= self.maximum:
            raise InputError(f"grace is {self.grace}; expected 1 <= grace <= epochs ({self.maximum})")

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which candidates are compared, the last being the full training."""
        rungs, epochs = [], self.grace
        while epochs < self.maximum:
            rungs.append(epochs)
            epochs *= self.eta
        return (*rungs, self.maximum)

    def next_rung(self, epochs: int) -> int:
        """The first rung above `epochs`; the last one where there is none above."""
        return next((rung for rung in self.rungs if rung > epochs), self.maximum)

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
        for rung in reversed(self.rungs[:-1]):
            scores = {trial.number: trial.scores[rung] for trial in history if rung in trial.scores}
            for number in self._waiting(history, rung):
                if self.decide(number, rung, scores) == "promote":
                    return number, self.next_rung(rung)
        return None

    def last_resort(self, history: Sequence[Trial]) -> tuple[int, int] | None:
        """Find whom to promote when there is nothing else to do and nobody has reached the last rung.

        A search of few candidates would otherwise end without one that is fully trained: the best of the highest rung
        that has anyone waiting goes on.
        """
        if any(self.maximum in trial.scores for trial in history):
            return None
        for rung in reversed(self.rungs[:-1]):
            for number in self._waiting(history, rung):
                return number, self.next_rung(rung)
        return None

    @staticmethod
    def _waiting(history: Sequence[Trial], rung: int) -> list[int]:
        """Candidates that pause at the rung, best first."""
        waiting = [trial for trial in history if trial.status is Status.PAUSED and trial.epochs == rung]
        return [trial.number for trial in sorted(waiting, key=lambda trial: (-trial.scores[rung], trial.number))]
