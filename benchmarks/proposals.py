"""(D) What one proposal costs each strategy, and how the cost grows with the observations.

    python benchmarks/proposals.py [--repeats 5] [--observations 25 100 300] [--dimensions 34]

Points and scores are random: what is timed is the strategy alone. "grows as" is the exponent p of n^p between the
fewest observations and the most. Prints a table and writes benchmarks/results/proposals.json.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from timing import RESULTS, header, interleaved, print_header, save

from snas.errors import InputError
from snas.strategies.base import make_strategy, strategies
from snas.trials import Status, Trial


def history(observations: int, dimensions: int) -> list[Trial]:
    """Trials that have reached rung 1, half of them rung 2, as under ASHA."""
    rng = np.random.default_rng(0)
    return [
        Trial(
            n,
            rng.random(dimensions),
            Status.PAUSED,
            {epoch: float(rng.random()) for epoch in range(1, 2 + n % 2)},
            1000,
        )
        for n in range(observations)
    ]


def one(name: str, observations: int, dimensions: int) -> Callable[[], object]:
    strategy, trials = make_strategy(name), history(observations, dimensions)
    return lambda: strategy.ask(trials, 1, dimensions=dimensions, rng=np.random.default_rng(1))


def measure(names: Sequence[str], counts: Sequence[int], dimensions: int, repeats: int) -> dict[str, dict[int, float]]:
    """Strategy -> observations -> median seconds of a proposal. All take turns; the first round does not count."""
    jobs = {f"{name} {count}": one(name, count, dimensions) for name in names for count in counts}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits to random scores
        found = interleaved(jobs, repeats)
    return {name: {count: found[f"{name} {count}"] for count in counts} for name in names}


def exponent(seconds: dict[int, float]) -> float:
    """p where the seconds grow as n^p from the fewest observations to the most; 0 for a single number of them.

    Example:
        >>> exponent({10: 1.0, 100: 100.0})
        2.0
    """
    first, last = min(seconds), max(seconds)
    return math.log(seconds[last] / seconds[first]) / math.log(last / first) if first < last else 0.0


def usable() -> list[str]:
    """The strategies that are here; one needs a package of its own."""
    names = []
    for name in strategies.names():
        try:
            one(name, 4, 2)()
        except InputError as error:
            print(f"{name} is left out: {error}")
        else:
            names.append(name)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--observations", type=int, nargs="+", default=[25, 100, 300])
    parser.add_argument("--dimensions", type=int, default=34)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    names = usable()
    about = header(dimensions=chosen.dimensions, repeats=chosen.repeats)
    print_header(about, "(D) one proposal, in ms; medians of repeats in turn")
    found = measure(names, chosen.observations, chosen.dimensions, chosen.repeats)
    print(f"  {'observations':<16}" + "".join(f"{count:>10}" for count in chosen.observations) + "   grows as")
    for name, seconds in found.items():
        shown = "".join(f"{value * 1e3:>10.3g}" for value in seconds.values())
        print(f"  {name:<16}{shown}   n^{exponent(seconds):.2f}")
    results = {name: {"seconds": seconds, "exponent": exponent(seconds)} for name, seconds in found.items()}
    last = chosen.observations[-1]
    summary = {
        f"{name}, {last} observations": f"{seconds[last] * 1e3:.3g} ms, as n^{exponent(seconds):.2f}"
        for name, seconds in found.items()
    }
    save("proposals", results, about=about, summary=summary, folder=chosen.results)


if __name__ == "__main__":
    main()
