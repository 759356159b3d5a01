"""A search strategy of your own in ten lines: step away from the best candidate so far.

    python examples/custom_strategy.py                    # check the contract, then search with it

A strategy holds no state: all that it knows is in the history, so that a search can stop and go on at any point.
`snas search` takes it by name where a package registers it through the entry-point group "snas.strategies"; from
Python any object with `ask` will do.
"""

import numpy as np

import snas
from snas.strategies import strategies
from snas.testing import check_strategy


@strategies.register("hill-climber")
class HillClimber:
    """Normal steps from the best candidate of those trained longest."""

    def __init__(self, *, step: float = 0.1) -> None:
        self.step = step

    def ask(self, history, n, *, dimensions, rng):
        scored = [trial for trial in history if trial.scores and not trial.failed]
        if not scored:
            return [rng.random(dimensions) for _ in range(n)]
        best = max(scored, key=lambda trial: (trial.epochs, trial.scores[trial.epochs]))
        return [np.clip(best.point + self.step * rng.standard_normal(dimensions), 0.01, 1.0) for _ in range(n)]


if __name__ == "__main__":
    check_strategy(HillClimber)
    print("HillClimber keeps the contract")
    result = snas.search("lenet-300-100", strategy=HillClimber(step=0.2), samples=6, epochs=2, final_seeds=1)
    print(f"best: density {result.best.density:.3f}, validation accuracy {result.best.validation_accuracy:.3f}")
