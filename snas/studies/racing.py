"""Trials of one network with different metaparameters, side by side, until the first ones have reached the goal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from snas.training.stepwise import Goal, StepSession

Status = Literal["complete", "incomplete", "infeasible"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: "complete": the goal was reached; "incomplete": it was not in the steps that there were; "infeasible":
            the network's output was not finite.
        steps: until then.
    """

    status: Status
    steps: int


def race(
    trials: Sequence[StepSession],
    goals: Sequence[Goal],
    *,
    every: int,
    budget: int,
    cap: float | None = None,
    heard: Callable[[int, int], None] = lambda step, limit: None,
) -> list[Outcome]:
    """Train all trials in step, looking every few steps who has reached the goal.

    Args:
        trials: before their first step.
        goals: one for each.
        every: steps between looks.
        budget: most steps of a trial; a part of `every` at its end is not taken.
        cap: a trial ends, incomplete, at so many times the steps of the first to reach the goal (rounded up to a look).
            It cannot have been the best, so that the fewest steps of all trials are what they are without a cap. None:
            every trial has its whole budget.
        heard: told of the steps taken and the most there can be.

    Returns:
        What became of each.
    """
    outcomes: dict[int, Outcome] = {}
    step, limit = 0, float(budget // every * every)
    while step < limit and len(outcomes) < len(trials):
        step += every
        for number, (trial, goal) in enumerate(zip(trials, goals, strict=True)):
            if number in outcomes:
                continue
            trial.advance(every)
            reached = goal.reached_by(trial)
            if reached is None:
                outcomes[number] = Outcome("infeasible", step)
            elif reached:
                trial.finish()
                outcomes[number] = Outcome("complete", step)
                if cap is not None:
                    limit = min(limit, cap * step)
        heard(step, int(max(step, limit)))
    for trial in trials:
        if trial.taken == step:
            trial.finish()
    return [outcomes.get(number, Outcome("incomplete", step)) for number in range(len(trials))]
