"""(A) Candidates per hour: 20 MLPs (64-256-256-256-10) on digits, at most 16 epochs under ASHA (grace 1, eta 2).

    python benchmarks/candidates.py [--seeds 5] [--ray-rounds 1]      # Ray Tune: pip install 'snas[ray]'

All train the same candidates: random proposals, without a budget and at density 0.05, on the same split, batch 64, SGD
with momentum 0.9, weight decay 5e-4, cosine learning rate, a validation after each epoch.

- snas: `snas.search`, registry and checkpoints on disk, from the first proposal to the last report, with each evaluator
  that there is, at PyTorch's number of threads and at one;
- plain loop: one network after another in this process, each for exactly the epochs that ours trained it; with both
  numbers of threads, and compared with the faster;
- Ray Tune: the same plain training as trials of a CPU each, two at once, under Ray's own ASHA (which stops where ours
  pauses and promotes, so that its number of epochs differs), from the first suggestion to the last report. Import and
  start of Ray come before and are told apart. As set up by default, with a process for each trial, and with
  reuse_actors=True, which one has to know of.

Ratios are medians over the seeds, of pairs. The best accuracy is that of validation, of the fully trained candidates,
after their last epoch. Memory is what a fresh process (for Ray, with all that it starts) has at its peak above what it
has once everything is imported and loaded.
Prints tables and writes benchmarks/results/candidates.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from plain import Data, Rule, mask_randomly, perceptron, train_epochs
from timing import MIB, RESULTS, header, in_child, memory_of, print_header, save, spread, version_of

import snas
from snas.bench import Bench, open_bench
from snas.evaluators.base import evaluators
from snas.listener import Listener
from snas.registry import Registry
from snas.settings import SearchSettings
from snas.trials import Report

EVALUATORS = ("processes", "serial", "stacked")
WARM_UP = 1000  # seed of the round that does not count
BUDGETS: dict[str, dict[str, Any]] = {"no budget": {}, "density 0.05": {"density": 0.05}}
RAY = {"Ray Tune": False, "Ray Tune, actors reused": True}


@dataclass(frozen=True)
class Case:
    """What is searched: the network, how many candidates, and ASHA's settings."""

    samples: int = 20
    epochs: int = 16
    width: int = 256
    hidden: int = 3
    grace: int = 1
    eta: int = 2

    @property
    def space(self) -> dict[str, Any]:
        return {"space": "mlp", "space_arg": {"hidden_layers": self.hidden, "width": self.width}}


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        seconds: from the first proposal to the last report.
        epochs: of each candidate, in their order.
        best: accuracy of the best candidate that was trained fully, 0 where there is none.
        kept: weights of each layer, of each candidate; () where they were given.
        start_seconds: what comes before and is not counted.
    """

    seconds: float
    epochs: tuple[int, ...]
    best: float
    kept: tuple[tuple[int, ...], ...] = ()
    start_seconds: float = 0.0


@dataclass
class Clock(Listener):
    """Notes the beginning of a search and its last report."""

    start: float = 0.0
    last: float = 0.0
    reports: int = field(default=0)

    def on_study(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_report(self, report: Report, **_: Any) -> None:
        self.last = time.perf_counter()
        self.reports += 1


def best_of(accuracies: Sequence[Sequence[float]], epochs: int) -> float:
    """The best last accuracy of the candidates that were trained for all `epochs`.

    Example:
        >>> best_of([[0.9], [0.5, 0.7], [0.8, 0.6]], 2)
        0.7
    """
    return max((row[-1] for row in accuracies if len(row) == epochs), default=0.0)


def ours(case: Case, seed: int, **settings: Any) -> Run:
    """A search by snas."""
    began = time.perf_counter()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "snas.db"
        result = snas.search(
            **case.space,
            dataset="digits",
            strategy="random",
            samples=case.samples,
            epochs=case.epochs,
            grace=case.grace,
            eta=case.eta,
            seed=seed,
            final_seeds=0,
            confirm_seeds=0,
            registry=str(file),
            listener=clock,
            **settings,
        )
        with Registry(file) as registry:
            study = registry.find_study(result.study)
            records = registry.candidates(study)
    accuracies = [[report.validation_accuracy for report in record.reports] for record in records]
    return Run(
        clock.last - clock.start,
        tuple(record.epochs for record in records),
        best_of(accuracies, case.epochs),
        tuple(tuple(record.kept.values()) for record in records),
        clock.start - began,
    )


@cache
def bench_of(case: Case, seed: int) -> Bench:
    """The data, split as the search of this seed splits them, and the training rule."""
    return open_bench(SearchSettings(**case.space, epochs=case.epochs, seed=seed))


def setting_of(case: Case, seed: int) -> tuple[Data, Rule, list[int], int]:
    """The same for plain PyTorch: data, rule, widths and number of classes."""
    task = bench_of(case, seed).task
    data = Data(task.data.train.x, task.data.train.y, task.data.validation.x, task.data.validation.y)
    rule = Rule(task.rule.epochs, task.rule.batch_size, task.rule.lr, task.rule.weight_decay)
    sizes = [data.x[0].numel(), *[case.width] * case.hidden]
    return data, rule, sizes, task.data.classes


def plain(case: Case, seed: int, given: Run) -> Run:
    """One network after another, each for as many epochs as it was given."""
    data, rule, sizes, classes = setting_of(case, seed)
    accuracies = []
    start = time.perf_counter()
    for number, (kept, epochs) in enumerate(zip(given.kept, given.epochs, strict=True)):
        torch.manual_seed(1000 * seed + number)
        model = perceptron(sizes, classes)
        masks = mask_randomly(model, kept)
        accuracies.append(list(train_epochs(model, masks, data, rule, epochs=epochs)))
    return Run(time.perf_counter() - start, given.epochs, best_of(accuracies, case.epochs))


def by_ray(case: Case, seed: int, given: Run, *, reuse: bool) -> Run:
    """The same candidates under Ray Tune."""
    import tuned

    data, rule, sizes, classes = setting_of(case, seed)
    candidates = [kept for kept, epochs in zip(given.kept, given.epochs, strict=True) if epochs]
    with tempfile.TemporaryDirectory() as folder:
        found = tuned.search(
            candidates,
            data,
            rule,
            sizes=sizes,
            classes=classes,
            grace=case.grace,
            eta=case.eta,
            seed=seed,
            folder=folder,
            reuse=reuse,
        )
    epochs = tuple(len(row) for row in found.accuracies)
    return Run(found.seconds, epochs, best_of(found.accuracies, case.epochs), (), found.start_seconds)


def our_alternatives(names: Sequence[str] = EVALUATORS) -> dict[str, dict[str, Any]]:
    """Alternative -> settings of the search."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in evaluators.names():
            print(f"there is no evaluator {name!r} yet; it is left out")
            continue
        found[f"snas, {name}"] = {"evaluator": name}
        if name != "processes":
            found[f"snas, {name}, 1 thread"] = {"evaluator": name, "threads": 1}
    return found


def ray_alternatives(rounds: int) -> dict[str, bool]:
    """Alternative -> whether processes are reused; none where Ray is missing."""
    if not rounds:
        return {}
    try:
        import ray  # noqa: F401
    except ImportError:
        print("Ray Tune is left out; it needs: pip install 'snas[ray]'")
        return {}
    return RAY


def one_round(
    case: Case, seed: int, budget: Mapping[str, Any], alternatives: Mapping[str, Mapping[str, Any]], threads: int
) -> dict[str, Run]:
    """Ours, and the plain loop at one thread and at `threads` beside each."""
    found: dict[str, Run] = {}
    known: dict[tuple[Any, ...], dict[str, Run]] = {}  # evaluators that train alike share their plain loops
    for name, settings in alternatives.items():
        torch.set_num_threads(threads)
        gc.collect()
        given = found[name] = ours(case, seed, **budget, **settings)
        alike = (given.kept, given.epochs)
        if alike not in known:
            known[alike] = {}
            for number in dict.fromkeys((threads, 1)):
                torch.set_num_threads(number)
                known[alike][str(number)] = plain(case, seed, given)
        found |= {f"plain loop, {number} threads, as {name}": run for number, run in known[alike].items()}
    torch.set_num_threads(threads)
    return found


def summarize(runs: Sequence[Run], samples: int) -> dict[str, Any]:
    seconds = spread([run.seconds for run in runs])
    return {
        "seconds": seconds,
        "each, seconds": [run.seconds for run in runs],
        "epochs": spread([sum(run.epochs) for run in runs]),
        "seconds per epoch": statistics.median(run.seconds / sum(run.epochs) for run in runs),
        "candidates per hour": samples / seconds["median"] * 3600,
        "best accuracy": spread([run.best for run in runs]),
        "before the first proposal": statistics.median(run.start_seconds for run in runs),
    }


def measure(
    case: Case, seeds: int, ray_rounds: int, names: Sequence[str] = EVALUATORS, budgets: Sequence[str] = tuple(BUDGETS)
) -> dict[str, dict[str, dict[str, Any]]]:
    """Budget -> alternative -> figures."""
    threads = torch.get_num_threads()
    alternatives, rays = our_alternatives(names), ray_alternatives(ray_rounds)
    runs: dict[str, dict[str, list[Run]]] = {budget: {} for budget in budgets}
    for seed in (WARM_UP, *range(seeds)):
        for budget in budgets:
            found = one_round(case, seed, BUDGETS[budget], alternatives, threads)
            if seed == WARM_UP:
                continue
            if seed < ray_rounds:
                first = next(iter(found.values()))
                found |= {name: by_ray(case, seed, first, reuse=reuse) for name, reuse in rays.items()}
            for name, run in found.items():
                runs[budget].setdefault(name, []).append(run)
            told = "; ".join(f"{name} {run.seconds:.1f}" for name, run in found.items())
            print(f"  seed {seed}, {budget}, in s: {told}", flush=True)
    return {
        budget: {name: summarize(of_one, case.samples) for name, of_one in found.items()}
        for budget, found in runs.items()
    }


def paired(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> float:
    """The median ratio of their seconds and ours, each pair of one seed and so of one time of the machine."""
    pairs = zip(theirs["each, seconds"], own["each, seconds"], strict=False)  # Ray has the first seeds alone
    return statistics.median(other / ours for other, ours in pairs)


def ratios(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times faster each of ours is: than its faster plain loop, and than Ray Tune."""
    found = {}
    for name, own in figures.items():
        if not name.startswith("snas"):
            continue
        loops = [other for key, other in figures.items() if key.startswith("plain") and key.endswith(f"as {name}")]
        found[f"{name} : plain loop"] = min(paired(other, own) for other in loops)
        found |= {f"{name} : {key}": paired(figures[key], own) for key in RAY if key in figures}
    return found


def show(budget: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    print(f"(A) {budget}")
    print(f"  {'':<46}{'seconds':>9}{'epochs':>8}{'ms/epoch':>10}{'per hour':>10}   best accuracy")
    shown: list[Mapping[str, Any]] = []
    for name, row in figures.items():
        if row in shown:  # the plain loop of two alternatives that trained alike
            continue
        shown.append(row)
        best = row["best accuracy"]
        print(
            f"  {name:<46}{row['seconds']['median']:>9.2f}{row['epochs']['mean']:>8.0f}"
            f"{1e3 * row['seconds per epoch']:>10.1f}{row['candidates per hour']:>10.0f}   "
            f"{best['mean']:.4f} ± {best['std']:.4f} (n {best['n']})"
        )
    for text, ratio in ratios(figures).items():
        print(f"  {text:<64}{ratio:>8.1f}x")
    print()


def memory(case: Case, alternatives: Sequence[str]) -> dict[str, dict[str, int]]:
    """Alternative -> bytes before and above that, each in a process of its own."""
    given = ours(case, 0)
    passed = json.dumps([given.kept, given.epochs])
    return {name: in_child(__file__, "--measure", name, passed, json.dumps(asdict(case))) for name in alternatives}


def measure_memory(name: str, given: str, case_text: str) -> dict[str, int]:
    """One alternative in this process."""
    case = Case(**json.loads(case_text))
    kept, epochs = json.loads(given)
    run = Run(0.0, tuple(epochs), 0.0, tuple(map(tuple, kept)))
    setting_of(case, 0)  # reads the data
    if name in RAY:
        import ray  # noqa: F401

        return memory_of(lambda: by_ray(case, 0, run, reuse=RAY[name]), tree=True)
    if name == "plain loop":
        return memory_of(lambda: plain(case, 0, run), tree=True)  # measured like the others
    return memory_of(lambda: ours(case, 0, **our_alternatives()[name]), tree=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ray-rounds", type=int, default=1, help="seeds for Ray Tune too; each takes a minute or two")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=3, metavar=("ALTERNATIVE", "GIVEN", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_memory(*options.measure)))
        return
    case = Case()
    about = header(seeds=options.seeds, ray=version_of("ray"))
    print_header(about, f"(A) {case}; medians of {options.seeds} seeds, alternatives in turn")
    figures = measure(case, options.seeds, options.ray_rounds)
    for budget, rows in figures.items():
        show(budget, rows)
    names = [name for name in figures["no budget"] if name.startswith("snas") and "1 thread" not in name]
    rays = [name for name in RAY if name in figures["no budget"]][:1]
    bytes_of = memory(case, [*names, "plain loop", *rays])
    print("(E) memory above that of the process before, in MiB")
    for name, row in bytes_of.items():
        print(f"  {name:<36}{row['above'] / MIB:>8.0f}   (before: {row['base'] / MIB:.0f})")
    summary = {f"{budget}, {text}": ratio for budget, rows in figures.items() for text, ratio in ratios(rows).items()}
    summary |= {f"memory, {name}": f"{row['above'] / MIB:.0f} MiB" for name, row in bytes_of.items()}
    results = {"case": asdict(case), "searches": figures, "memory": bytes_of}
    save("candidates", results, about=about, summary=summary, folder=options.results)


if __name__ == "__main__":
    main()
