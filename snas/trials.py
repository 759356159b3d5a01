"""What a search knows of its candidates: the words that strategies, evaluators and the registry share."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]


class Status(enum.StrEnum):
    """Where a candidate stands."""

    RUNNING = "running"  # proposed or in training
    PAUSED = "paused"  # waits at a rung; may be promoted
    FINISHED = "finished"  # trained to the last rung
    FAILED = "failed"  # diverged or broke
    REFUSED = "refused"  # could not work; never trained


ENDED = Status.FINISHED, Status.FAILED, Status.REFUSED  # nothing comes after these


@dataclass(frozen=True, slots=True)
class Report:
    """One epoch of one candidate. Losses are mean cross-entropies, accuracies fractions in [0, 1].

    `signals`, where they are asked for, were measured before the training; the first epoch's report has them.
    `measured` is what was measured in this epoch beside losses.
    """

    trial: int
    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    mask_checksum: str = ""
    signals: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A candidate as strategies see it. Equal to another when all its values are.

    Attributes:
        number: 0, 1, 2 ... in the order of proposal.
        point: the proposed point of the unit cube, shape (dimensions,).
        status: where it stands.
        scores: epochs trained -> score at that epoch, higher is better; finite values only.
        kept_weights: weights that the candidate keeps.
        costs: what is to be small beside a high score, in the search's order of objectives; empty where the score is
            all that counts.
        bracket: number of successive halving's bracket that it is in; those of different brackets did not compete.
        given: whether it is a start that the search was given, not one that the strategy proposed.
    """

    number: int
    point: Point
    status: Status = Status.RUNNING
    scores: Mapping[int, float] = field(default_factory=dict)
    kept_weights: int = 0
    costs: tuple[float, ...] = ()
    given: bool = False
    bracket: int = 0

    __hash__ = None  # type: ignore[assignment]  # An array and a mapping have none.

    def __eq__(self, other: object) -> bool:
        # The comparison that a data class writes would ask an array for its truth.
        if not isinstance(other, Trial):
            return NotImplemented
        return (
            (self.number, self.status, self.kept_weights, self.costs, self.given, self.bracket)
            == (other.number, other.status, other.kept_weights, other.costs, other.given, other.bracket)
            and np.array_equal(self.point, other.point)
            and dict(self.scores) == dict(other.scores)
        )

    @property
    def epochs(self) -> int:
        """Epochs trained and scored so far."""
        return max(self.scores, default=0)

    @property
    def failed(self) -> bool:
        """Whether it has no score to hope for."""
        return self.status in (Status.FAILED, Status.REFUSED)


def comparable_length(history: Sequence[Trial], need: int) -> int:
    """The longest training length (in epochs) that enough trials have a finite score at.

    Enough are `need`, or more than half of the trials that have any: early on, what most share is the first rung of
    successive halving. Where no length has enough it is the shortest; 0 where nothing has a score. Failed and refused
    trials do not count. Scores of different lengths are never to be compared as if they were equal.

    Example:
        >>> point = np.zeros(1)
        >>> history = [Trial(0, point, scores={1: 0.5, 2: 0.6}), Trial(1, point, scores={1: 0.4})]
        >>> comparable_length(history, need=2), comparable_length(history, need=1)
        (1, 2)
    """
    lengths: dict[int, int] = {}
    scored = 0
    for trial in history:
        finite = [] if trial.failed else [epoch for epoch, score in trial.scores.items() if math.isfinite(score)]
        scored += bool(finite)
        for epoch in finite:
            lengths[epoch] = lengths.get(epoch, 0) + 1
    enough = [epoch for epoch, number in lengths.items() if number >= need or 2 * number > scored]
    return max(enough) if enough else min(lengths, default=0)
