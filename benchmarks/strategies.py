"""Which strategy finds good densities in few evaluations: regret on objectives that cost nothing and have known optima.

    make bench-strategies                 # or: python benchmarks/strategies.py [--only 34] [--strategies bayes random]

Each strategy searches the densities of 3, 9, 34 and 100 layers inside an exact budget, through the same encoding as
`snas search`: from nothing, or from the densities of the pruning rules ("rules", as a search with a budget does), once
under successive halving ("rungs"). Objectives are those of objectives.py and, where --reference exists, one that is
fitted to trained ResNet-32s (surrogates.py). Every repetition has sensitivities and noise of its own (the fitted
objective only noise), the same for all strategies.

Regret is what the incumbent, the candidate with the best score seen, lacks in true accuracy to the best densities that
the budget allows, in points. Ranks are among the strategies of a repetition, at 50 evaluations; p is of Wilcoxon's
signed-rank test against random, paired by repetition, two-sided.

Prints a table per objective, and writes benchmarks/results/strategies.json, .png and .svg.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curves import draw
from objectives import Objective, realistic_layers, sensitivity, with_rungs
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import rankdata, wilcoxon
from surrogates import best_power, errors_on_unseen, fitted, read_trained

from snas.errors import InputError
from snas.evaluators.asha import Ladder
from snas.seeds import Stream, numpy_generator
from snas.strategies.base import Bound, make_strategy, strategies
from snas.training.devices import environment
from snas.trials import Status, Trial
from snas.warm_starts import open_starts

RESULTS = Path(__file__).parent / "results"
REFERENCE = Path(__file__).parents[2] / "shared/reference/density_accuracy.csv.gz"
SHOWN = (10, 25, 50, 100)
EVALUATIONS = 100
DEAR = ("bayes", "bayes-hd")  # take much longer than the others: half as many evaluations
DEAREST = "bayes-hd"  # without --all only in the cases of 34 layers without rungs
EPOCHS = 16  # of the objective with rungs


@dataclass(frozen=True)
class Case:
    """An objective, and whether the search starts from the rules' densities."""

    objective: str  # number of layers, or "fitted"
    density: float
    rungs: bool = False
    rules: bool = False

    @property
    def name(self) -> str:
        what = "resnet32 fitted" if self.objective == "fitted" else f"{self.objective} layers"
        more = [f"density {self.density:g}", *(["rungs"] if self.rungs else []), *(["rules"] if self.rules else [])]
        return ", ".join([what, *more])


CASES = (
    Case("34", 0.02),
    Case("34", 0.02, rules=True),
    Case("34", 0.02, rungs=True),
    Case("fitted", 0.02, rules=True),
    Case("3", 0.02),
    Case("9", 0.02),
    Case("100", 0.05),
)
MORE = (
    Case("34", 0.02, rungs=True, rules=True),
    Case("fitted", 0.02),
    Case("fitted", 0.05),
    Case("fitted", 0.05, rules=True),
    Case("3", 0.02, rules=True),
    Case("9", 0.02, rules=True),
    Case("100", 0.05, rules=True),
)


@cache
def objective_of(case: Case, repetition: int, seed: int, reference: Path, power: float) -> Objective:
    """The objective of a repetition: the same in every process."""
    if case.objective == "fitted":
        return fitted(read_trained(reference), case.density, power=power, name=case.name)
    rng = np.random.default_rng([seed, int(case.objective), repetition])
    objective = sensitivity(realistic_layers(int(case.objective)), case.density, name=case.name, rng=rng)
    return with_rungs(objective, epochs=EPOCHS, rng=rng) if case.rungs else objective


@dataclass(frozen=True)
class Run:
    """One search: of a strategy, in a case, once."""

    case: Case
    strategy: str
    repetition: int
    evaluations: int
    seed: int
    reference: Path
    power: float


def search(run: Run) -> tuple[Run, list[float], float]:
    """Return the incumbent's regret after each candidate, in points, and the processor seconds of all proposals."""
    objective = objective_of(run.case, run.repetition, run.seed, run.reference, run.power)
    strategy = make_strategy(run.strategy)
    if isinstance(strategy, Bound):
        strategy = strategy.bind(objective.encoding)
    starts = [point for _, point in open_starts("rules", objective.encoding)] if run.case.rules else []
    ladder = Ladder(1 if run.case.rungs else objective.epochs, objective.epochs)
    history: list[Trial] = []
    regrets, seconds = [], 0.0
    for number in range(run.evaluations):
        if number < len(starts):
            point = starts[number]
        else:
            rng = numpy_generator(run.repetition, Stream.PROPOSAL, number)
            start = time.process_time()  # of one thread; other work on the machine does not count
            [point] = strategy.ask(list(history), 1, dimensions=objective.encoding.dimensions, rng=rng)
            seconds += time.process_time() - start
        history.append(Trial(number, objective.encoding.canonical(point)))
        train(history, number, ladder.next_rung(0), objective, run)
        while (promotion := ladder.next_promotion(history)) is not None:
            train(history, *promotion, objective, run)
        regrets.append(100 * (objective.best - objective.accuracy(incumbent(history).point)))
    return run, regrets, seconds


def train(history: list[Trial], number: int, until: int, objective: Objective, run: Run) -> None:
    """Train one candidate further; its scores depend on the repetition and its number, not on who else there is."""
    trial = history[number]
    scores = dict(trial.scores)
    for epoch in range(trial.epochs + 1, until + 1):
        rng = numpy_generator(run.repetition, Stream.CANDIDATE, number)
        scores[epoch] = objective.score(trial.point, epoch, rng=rng)
    status = Status.FINISHED if until >= objective.epochs else Status.PAUSED
    history[number] = Trial(number, trial.point, status, scores)


def incumbent(history: Sequence[Trial]) -> Trial:
    """Who would be named: the best of those that were trained the longest, as in a study."""
    return max(history, key=lambda trial: (trial.epochs, trial.scores[trial.epochs], -trial.number))


def usable(names: Sequence[str], console: Console) -> list[str]:
    """Those that can propose a point here; the others need an extra that is not installed."""
    found = []
    for name in names:
        history = [Trial(i, np.full(2, 0.1 * i), Status.FINISHED, {1: 0.1 * i}) for i in range(9)]
        try:
            make_strategy(name).ask(history, 1, dimensions=2, rng=np.random.default_rng(0))
            found.append(name)
        except InputError as error:
            console.print(f"[yellow]left out: {name}: {error}")
    return found


def carry_out(runs: Sequence[Run], workers: int, console: Console) -> dict[str, dict[str, dict[int, tuple]]]:
    """Case -> strategy -> repetition -> regrets and seconds."""
    found: dict[str, dict[str, dict[int, tuple]]] = {}
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers when they load NumPy
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, Progress(console=console, transient=True) as bar:
        task = bar.add_task("searching", total=len(runs))
        for future in as_completed([pool.submit(search, run) for run in runs]):
            run, regrets, seconds = future.result()
            found.setdefault(run.case.name, {}).setdefault(run.strategy, {})[run.repetition] = (regrets, seconds)
            bar.advance(task)
    return found


def summarize(runs: dict[str, dict[int, tuple]]) -> dict[str, Any]:
    """Strategy -> what the table and the curves show of one case."""
    regrets = {name: np.array([rows[r][0] for r in sorted(rows)]) for name, rows in runs.items()}
    at = min(50, *(rows.shape[1] for rows in regrets.values()))
    ranks = rankdata([rows[:, at - 1] for rows in regrets.values()], axis=0)
    summary = {}
    for place, (name, rows) in enumerate(regrets.items()):
        other = regrets.get("random", rows)
        difference = rows[:, at - 1] - other[:, at - 1]
        seconds = np.median([second for _, second in runs[name].values()]) / rows.shape[1]
        summary[name] = {
            "regret": {
                str(n): dict(zip(("q1", "median", "q3"), quartiles(rows[:, n - 1]), strict=True))
                for n in SHOWN
                if n <= rows.shape[1]
            },
            "quartiles": quartiles(rows[:, at - 1])[::2],
            "against random": round(float(np.median(rows[:, at - 1]) / np.median(other[:, at - 1])), 3),
            "p": float(wilcoxon(difference).pvalue) if difference.any() else None,
            "rank": [round(float(ranks[place].mean()), 2), round(float(ranks[place].std(ddof=1)), 2)],
            "seconds per proposal": round(float(seconds), 4),
            "regrets": rows[:, at - 1].round(4).tolist(),
            "curve": np.median(rows, axis=0).round(4).tolist(),
        }
    return summary


def quartiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, (0.25, 0.5, 0.75))]


def table(name: str, summary: dict[str, Any]) -> Table:
    """The strategies of a case, lowest rank first."""
    shown = Table(title=name, title_justify="left")
    shown.add_column("strategy")
    for heading in [*(f"at {n}" for n in SHOWN), "quartiles", "of random's", "p", "rank", "ms each"]:
        shown.add_column(heading, justify="right", no_wrap=True)
    for strategy, row in sorted(summary.items(), key=lambda item: item[1]["rank"][0]):
        medians = [f"{row['regret'][str(n)]['median']:.2f}" if str(n) in row["regret"] else "" for n in SHOWN]
        shown.add_row(
            strategy,
            *medians,
            "{:.2f} to {:.2f}".format(*row["quartiles"]),
            f"{row['against random']:.2f}",
            "" if row["p"] is None else f"{row['p']:.2g}",
            "{:.1f} ± {:.1f}".format(*row["rank"]),
            f"{1000 * row['seconds per proposal']:.0f}",
        )
    return shown


def overall(results: dict[str, Any]) -> dict[str, list[float]]:
    """Strategy -> mean rank of the cases that all took part in, and its standard deviation between them."""
    names = {name for summary in results.values() for name in summary}
    whole = [summary for summary in results.values() if set(summary) == names]
    ranks = {name: [summary[name]["rank"][0] for summary in whole] for name in names if whole}
    means = {name: [round(float(np.mean(row)), 2), round(float(np.std(row)), 2)] for name, row in ranks.items()}
    return dict(sorted(means.items(), key=lambda item: item[1][0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="*", default=strategies.names(), help="default: all")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose names contain one of these words")
    parser.add_argument("--all", action="store_true", help="more cases, and every strategy in each (more than an hour)")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help="the slow strategies make half as many")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="table of trained networks")
    parser.add_argument("--output", type=Path, default=RESULTS / "strategies.json")
    arguments = parser.parse_args()
    if arguments.repetitions < 2 or arguments.evaluations < 4:
        parser.error("at least 2 repetitions of 4 evaluations")
    console = Console(width=110)
    began = time.perf_counter()
    header = environment(torch.device("cpu")) | {"threads": 1, "workers": arguments.workers}
    console.print(", ".join(f"{key} {value}" for key, value in header.items()), highlight=False)

    cases = [case for case in (*CASES, *(MORE if arguments.all else ())) if chosen(case, arguments.only)]
    errors: dict[str, float] = {}
    if not arguments.reference.is_file():
        cases = [case for case in cases if case.objective != "fitted"]
        console.print(f"[yellow]{arguments.reference.name} is not there: the fitted objectives are left out")
    elif any(case.objective == "fitted" for case in cases):
        errors = errors_on_unseen(read_trained(arguments.reference))
        console.print("error on a method left out of the fit, in points:", errors)
    power = best_power(errors) if errors else 1.0
    names = usable(arguments.strategies, console)
    runs = [
        Run(case, name, repetition, evaluations(name, arguments), arguments.seed, arguments.reference, power)
        for name in sorted(names, key=lambda name: (name != DEAREST, name not in DEAR, name))  # the longest first
        for case in cases
        for repetition in range(arguments.repetitions)
        if name != DEAREST or arguments.all or (case.objective == "34" and not case.rungs)
    ]
    found = carry_out(runs, arguments.workers, console)
    results = {case.name: summarize(found[case.name]) for case in cases}
    for name, summary in results.items():
        console.print(table(name, summary))
    ranks = overall(results)
    console.print(
        "mean rank in the cases that all took part in ± spread between them:",
        ", ".join(f"{k} {m} ± {s}" for k, (m, s) in ranks.items()),
    )
    described = {case.name: describe(case, arguments, power) for case in cases}
    seconds = round(time.perf_counter() - began)
    console.print(f"{len(runs)} searches in {seconds} s")
    document = {
        "environment": header,
        "seed": arguments.seed,
        "repetitions": arguments.repetitions,
        "seconds": seconds,
        "errors on a method left out": errors,
        "power": power,
        "ranks": ranks,
        "cases": {name: {"objective": described[name], "strategies": results[name]} for name in results},
    }
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    draw({name: {s: row["curve"] for s, row in summary.items()} for name, summary in results.items()}, arguments.output)


def chosen(case: Case, words: Sequence[str]) -> bool:
    return not words or any(word in case.name for word in words)


def evaluations(name: str, arguments: argparse.Namespace) -> int:
    return arguments.evaluations // 2 if name in DEAR else arguments.evaluations


def describe(case: Case, arguments: argparse.Namespace, power: float) -> dict[str, float]:
    """Medians over the repetitions of what an objective offers, as accuracies."""
    rows = []
    for repetition in range(arguments.repetitions):
        objective = objective_of(case, repetition, arguments.seed, arguments.reference, power)
        rules = {name: objective.accuracy(point) for name, point in open_starts("rules", objective.encoding)}
        rows.append({"best": objective.best, "best in the cube": objective.reachable, **rules})
    return {key: round(float(np.median([row[key] for row in rows])), 4) for key in rows[0]}


if __name__ == "__main__":
    main()
