"""A search strategy of your own in ten lines: step away from the best candidate so far.

    python examples/custom_strategy.py                    # check the contract, then search with it

A strategy holds no state: all that it knows is in the history, so that a search can stop and go on at any point.
`snas search --strategy NAME` knows those that a package registers through the entry-point group "snas.strategies";
`snas.search` takes any object with `ask`.
"""

import tempfile

import snas
from snas.strategies import strategies
from snas.strategies.mutation import reflect
from snas.testing import check_strategy


@strategies.register("hill-climber")
class HillClimber:
    """Normal steps from the best of those trained longest."""

    def __init__(self, *, step: float = 0.2) -> None:
        self.step = step

    def ask(self, history, n, *, dimensions, rng):
        scored = [trial for trial in history if trial.scores and not trial.failed]
        if not scored:
            return [rng.random(dimensions) for _ in range(n)]
        best = max(scored, key=lambda trial: (trial.epochs, trial.scores[trial.epochs]))
        return [reflect(best.point + self.step * rng.standard_normal(dimensions)) for _ in range(n)]


if __name__ == "__main__":
    check_strategy(HillClimber)
    print("HillClimber keeps the contract")
    with tempfile.TemporaryDirectory() as folder:
        result = snas.search(
            "lenet-300-100", strategy=HillClimber(), samples=8, epochs=2, final_seeds=1, registry=f"{folder}/snas.db"
        )
    best = result.best
    print(f"best: validation accuracy {best.validation_accuracy:.3f} at density {best.densities.density:.3f}")
