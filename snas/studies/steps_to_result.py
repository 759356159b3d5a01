"""Steps to a goal error against batch size and sparsity, with tuned metaparameters ([Lee2020b] chapter 5).

After [Shallue2019] C. Shallue et al.: Measuring the effects of data parallelism on neural network training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from snas.errors import InputError
from snas.exports.grids import Table
from snas.pruning.allocations import kept_from_density
from snas.studies.base import Cell, Grid, Picture, Point, Result, Scale, Study, combinations, measured, slug, studies
from snas.studies.lab import Lab, seed_of
from snas.studies.metaparameters import Range, read_range, sobol_trials
from snas.studies.racing import race
from snas.studies.steps_curves import Curve, bounded_text, compare_critical, curves_of
from snas.studies.steps_figures import draw_curves, draw_trials
from snas.training.stepwise import Goal, StepRule, StepSession
from snas.training.task import network_at_fault

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = "own"
OWN_EVERY = 0
SOURCE: dict[str, dict[str, str | int]] = {  # data set -> workload of the source; steps between looks: appendix 5.B
    "mnist": {"space": "simple-cnn", "schedule": "constant", "goal": "0.02", "every": 16},
    "fashion-mnist": {"space": "simple-cnn", "schedule": "constant", "goal": "0.12", "every": 16},
    "cifar10": {"space": "resnet20:blocks=1", "schedule": "linear", "goal": "0.4", "every": 32},
}
OPTIMIZERS = {"sgd": "sgd", "momentum": "sgd", "nesterov": "nesterov"}
SCHEDULES = ("constant", "linear")
SETTING = ("dataset", "space", "optimizer", "schedule", "goal")
TELLING = {  # of a workload too, but told only where they tell it from another
    "every": "looked for every {} steps",
    "momentum": "momentum {}",
    "decay_factor": "decay factor {}",
    "decay_steps": "decay steps {}",
}
WORKLOAD = (*SETTING, *TELLING)  # what a curve is of. Without momentum there is no range of it: None is one of its own


@studies.register("steps-to-result")
class StepsToResult(Study):
    """Steps to a goal error against batch size: where does a larger batch stop to help, dense and sparse?"""

    shown = (*WORKLOAD, "block", "sparsity", "batch_size")

    def grid(self, scale: Scale) -> Grid:
        """The source's workloads with batch sizes 2 to 16,384, or LeNet-300-100 on digits or MNIST."""
        ranges = {"lr": ("0.003..0.3",), "momentum": ("0..0.97",)}
        decay = {"decay_factor": ("0.001..0.1",), "decay_steps": ("0.25..1",)}
        if scale == "paper":
            return {
                "dataset": tuple(SOURCE),
                "space": (OWN,),
                "optimizer": tuple(OPTIMIZERS),
                "schedule": (OWN,),
                "goal": (OWN,),
                "batch_size": tuple(2**power for power in range(1, 15)),
                "sparsity": (0.0, 0.5, 0.7, 0.9),
                "lr": ("0.0001..1",),
                "momentum": ("0..0.999",),
                **decay,
                "trials": (1,),
                "block": tuple(range(100)),
                "cap": (0.0,),  # 0: none
                "every": (OWN_EVERY,),
                "budget": (40_000,),
                "passes": (0.0,),  # 0: any number
                "seed": (0,),
            }
        tiny = scale == "tiny"
        return {
            "dataset": ("digits" if tiny else "mnist",),
            "space": ("lenet-300-100",),
            "optimizer": ("momentum",),
            "schedule": ("constant",),
            "goal": ("0.05",),
            "batch_size": (4, 16, 64, 256, 1024) if tiny else tuple(2**power for power in range(4, 13)),
            "sparsity": (0.0, 0.9),
            **ranges,
            **decay,
            "trials": (8 if tiny else 16,),
            "block": (0,),
            "cap": (1.5,),
            "every": (4 if tiny else 16,),
            "budget": (2000 if tiny else 15_000,),
            "passes": (400.0 if tiny else 60.0,),
            "seed": (0,),
        }

    def cells(self, grid: Grid) -> list[Cell]:
        """All combinations, with what is the source's own written out, and without ranges that are not searched."""
        return [_resolved(cell) for cell in combinations(grid)]

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """Run the trials of one batch size and sparsity; the fewest steps of any are the result."""
        bench = lab.bench(
            cell["space"], cell["dataset"], batch_size=cell["batch_size"], weight_decay=0.0, kernel="dense"
        )
        data = bench.task.data
        budget = _budget(cell, len(data.train.y))
        kept = kept_from_density(1 - cell["sparsity"], bench.space.total_weights)
        sparse = lab.prepare(bench, "dense" if cell["sparsity"] == 0 else "snip", kept, seed=cell["seed"])
        numbers = range(cell["block"] * cell["trials"], (cell["block"] + 1) * cell["trials"])
        trials = sobol_trials(_ranges(cell), numbers, seed=cell["seed"])
        rules = [_rule(cell, trial, budget) for trial in trials]
        seed = seed_of(cell["seed"])
        sessions = [StepSession(copy.deepcopy(sparse), rule, data, seed=seed, device=lab.device) for rule in rules]
        goals = [Goal(data.validation, float(cell["goal"])) for _ in trials]
        with network_at_fault():
            met = goals[0].reached_by(sessions[0])
        if met:
            raise InputError(
                f"goal is {cell['goal']}, and the network's error is that small before the first step; give a smaller "
                "goal"
            )
        with network_at_fault():
            outcomes = race(
                sessions, goals, every=cell["every"], budget=budget, cap=cell["cap"] or None, heard=lab.heard
            )
        found = [
            {"number": number, **trial, "status": outcome.status, "steps": outcome.steps}
            for number, trial, outcome in zip(numbers, trials, outcomes, strict=True)
        ]
        complete = [outcome.steps for outcome in outcomes if outcome.status == "complete"]
        return {
            "steps": min(complete, default=None),
            "trials": found,
            "budget": budget,
            "kept": sparse.masks.kept.kept_weights,
        }

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """Steps, ratios to the dense network, the law's constants, and the best metaparameters of each workload."""
        tables = []
        for curves in _workloads(points):
            tables += [_steps_table(curves), _law_table(curves), _best_table(curves)]
        return tables

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """Curves with their laws and ratios, and all trials, of each workload."""
        pictures = []
        workloads = _workloads(points)
        for curves in workloads:
            name = f"-{slug(curves[0].title)}" if len(workloads) > 1 else ""
            sizes = len({size for curve in curves for size in curve.sizes})
            if any(curve.known for curve in curves):
                pictures.append(Picture(f"curves{name}", _drawing(draw_curves, curves), (12.6, 3.9)))
            wide = (1.6 + 1.75 * sizes, 0.9 + 1.75 * len(curves))
            pictures.append(Picture(f"trials{name}", _drawing(draw_trials, curves), wide))
        return pictures


def _drawing(draw: Callable[[Figure, Sequence[Curve]], None], curves: Sequence[Curve]) -> Callable[[Figure], None]:
    return lambda figure: draw(figure, curves)


def _resolved(cell: Cell) -> Cell:
    """The cell with the source's own choices written out; raises InputError for contradictions."""
    found = dict(cell)
    source = SOURCE.get(cell["dataset"])
    for name in ("space", "schedule", "goal", "every"):
        if cell[name] == (OWN_EVERY if name == "every" else OWN):
            if source is None:
                raise InputError(
                    f"{name} is {cell[name]!r}, the source's own, but the source has no data set {cell['dataset']!r}; "
                    f"give {name}"
                )
            found[name] = source[name]
    for name, choices in (("optimizer", tuple(OPTIMIZERS)), ("schedule", SCHEDULES)):
        if found[name] not in choices:
            raise InputError(f"{name} is {found[name]!r}; choices: {', '.join(choices)}")
    try:
        goal = float(found["goal"])
    except ValueError:
        goal = -1.0
    found["goal"] = f"{goal:g}"
    for name, fine, allowed in (
        ("goal", 0 < goal < 1, "a fraction of misclassified examples with 0 < goal < 1"),
        ("sparsity", 0 <= cell["sparsity"] < 1, "0 <= sparsity < 1"),
        ("batch_size", cell["batch_size"] >= 1, "at least 1"),
        ("trials", cell["trials"] >= 1, "at least 1"),
        ("block", cell["block"] >= 0, "at least 0"),
        ("every", found["every"] >= 1, "at least 1 step"),
        ("budget", cell["budget"] >= found["every"], f"at least {found['every']}, the steps between evaluations"),
        ("passes", cell["passes"] >= 0, "a number above 0, or 0 for any"),
        ("cap", cell["cap"] == 0 or cell["cap"] >= 1, "at least 1, or 0 for none"),
    ):
        if not fine:
            raise InputError(f"{name.replace('_', '-')} is {cell[name]}; expected {allowed}")
    if found["optimizer"] == "sgd":
        found["momentum"] = None
    if found["schedule"] == "constant":
        found["decay_factor"] = found["decay_steps"] = None
    _ranges(found)
    return found


def _ranges(cell: Cell) -> dict[str, Range]:
    """What is searched."""
    scales = {"lr": "log", "momentum": "distance", "decay_factor": "log", "decay_steps": "linear"}
    found = {name: read_range(cell[name], name, by=by) for name, by in scales.items() if cell[name] is not None}
    if cell["optimizer"] == "nesterov" and found["momentum"].low == 0:
        found["momentum"] = Range(1e-6, found["momentum"].high, "distance")  # it is not defined without
    return found


def _budget(cell: Cell, examples: int) -> int:
    """Most steps of a trial: those of the cell, and those in which it sees all examples so many times."""
    if not cell["passes"]:
        return int(cell["budget"])
    return int(max(cell["every"], min(cell["budget"], cell["passes"] * examples // cell["batch_size"])))


def _rule(cell: Cell, trial: Mapping[str, float], budget: int) -> StepRule:
    """How the trial is trained."""
    return StepRule(
        epochs=1,
        batch_size=cell["batch_size"],
        lr=trial["lr"],
        optimizer=OPTIMIZERS[cell["optimizer"]],  # type: ignore[arg-type]
        momentum=trial.get("momentum", 0.0),
        weight_decay=0.0,
        schedule="constant",
        decay_factor=trial.get("decay_factor", 1.0),
        decay_steps=round(trial.get("decay_steps", 0.0) * budget),
    )


def _workloads(points: Sequence[Point]) -> list[list[Curve]]:
    """The curves of each workload, one for each sparsity."""
    found = measured(points)
    keys = list(dict.fromkeys(_workload(point) for point in found))
    return [curves_of([point for point in found if _workload(point) == key], title=_title(key, keys)) for key in keys]


def _workload(point: Point) -> tuple[str, ...]:
    return tuple(str(point.cell.get(name)) for name in WORKLOAD)


def _title(key: tuple[str, ...], keys: Sequence[tuple[str, ...]]) -> str:
    """A workload in words, with what tells it from others of the same setting."""
    dataset, space, optimizer, schedule, goal = key[: len(SETTING)]
    decay = "" if schedule == "constant" else f", {schedule} decay"
    told = f"{space} on {dataset}, {optimizer}{decay}, goal error {goal}"
    likes = [other for other in keys if other[: len(SETTING)] == key[: len(SETTING)]]
    for place, words in enumerate(TELLING.values(), len(SETTING)):
        if len({other[place] for other in likes}) > 1:
            told += f", {words.format(key[place])}"
    return told


def _steps_table(curves: Sequence[Curve]) -> Table:
    dense = next((curve for curve in curves if curve.sparsity == 0), None)
    others = [curve for curve in curves if curve.sparsity > 0] if dense else []
    titles = ["batch size", *(f"{100 * curve.sparsity:g} %" for curve in curves)]
    titles += [f"{100 * curve.sparsity:g} % / dense" for curve in others]
    rows = []
    sizes = sorted({size for curve in curves for size in curve.sizes})
    for size in sizes:
        row = [f"{size:,}", *(_number(curve.known.get(size)) for curve in curves)]
        for curve in others:
            both = dense is not None and size in curve.known and size in dense.known
            row.append(f"{curve.known[size] / dense.known[size]:.2f}" if both and dense else "-")
        rows.append(row)
    seeds = len(curves[0].seeds)
    of = f"means over {seeds} seeds of the fewest steps of any trial" if seeds > 1 else "fewest steps of any trial"
    notes = [f"{of}, looked for every {curves[0].every} steps; sparsity by SNIP before training"]
    places = len(sizes) * len(curves)
    lacking = sum(curve.lacks(size) for curve in curves for size in sizes)
    never = places - lacking - sum(len(curve.known) for curve in curves)
    if never:
        notes.append(
            f"-: no trial reached the goal, in {never} of {places} places; "
            "give a larger goal, or more budget, passes or trials"
        )
    if lacking:
        of = f"not all {seeds} seeds were" if seeds > 1 else "nothing was"
        why = ", so that all are of the same seeds" if seeds > 1 else ""
        notes.append(
            f"-: {of} measured, or a network was refused or failed, in {lacking} of {places} places; these are left "
            f"out of ratios and laws{why}"
        )
    return Table(f"Steps to result: {curves[0].title}", titles, rows, notes)


def _law_table(curves: Sequence[Curve]) -> Table:
    titles = ["sparsity", "C", "T", "critical batch size 2T", "90 % of resamples", "plateau C/T", "misfit"]
    titles += ["sum: critical", "sum: misfit"]
    rows = []
    for curve in curves:
        law = curve.law
        if law is None:
            rows.append([f"{100 * curve.sparsity:g} %", *["-"] * 8])
            continue
        row = [f"{100 * curve.sparsity:g} %", f"{law.c:,.0f}", f"{law.t:,.1f}"]
        row += [bounded_text(law.critical, list(curve.known)), curve.spread]
        row += [f"{law.plateau:,.0f}", f"{100 * curve.misfit(law):.0f} %"]
        added = curve.sum
        both = bounded_text(added.critical, list(curve.known)) if added else "-"
        rows.append([*row, both, f"{100 * curve.misfit(added):.0f} %"])
    notes = [
        "Theorem 5.3.1: K = 4 C/B up to 2T, then C (1/T + 1/(B - T)); weighted least squares of log K. Resamples draw "
        "the trials of each batch size and seed anew. Misfit: root mean square of log K. < or >: beyond what was "
        "measured. Sum: K = C/B + C/T (eq. 5.15), critical where both parts are equal"
    ]
    larger = _share_larger(curves)
    if larger:
        notes.append(larger)
    return Table(f"The law: {curves[0].title}", titles, rows, notes)


def _share_larger(curves: Sequence[Curve]) -> str:
    """In how many resamples the critical batch size of the sparsest network is larger than the dense one's."""
    first, last = curves[0], curves[-1]
    found = None if first.sparsity or first is last else compare_critical(first, last)
    if found is None:
        return ""
    told = (
        f"critical batch size at {100 * last.sparsity:g} % larger than dense: in {_share(found.larger, found.rounds)}"
    )
    if found.open:
        told += f", undecided in {_share(found.open, found.rounds)} (both beyond what was measured)"
    sizes = sorted({size for curve in (first, last) for size in curve.sizes})
    apart = "" if len(found.sizes) == len(sizes) else f", at the {len(found.sizes)} batch sizes that both reached"
    return f"{told} of {found.rounds:,} resamples, the same trials drawn for both{apart}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _best_table(curves: Sequence[Curve]) -> Table:
    rows = []
    for curve in curves:
        for size in curve.sizes:
            trials = curve.trials[size]
            ends = [
                sum(trial["status"] == status for trial in trials)
                for status in ("complete", "incomplete", "infeasible")
            ]
            best = curve.best(size)
            told = [_number(None if best is None else best.get(name)) for name in ("lr", "momentum")]
            rows.append([f"{100 * curve.sparsity:g} %, {size:,}", *told, *map(str, ends)])
    titles = ["sparsity, batch size", "best lr", "best momentum", "complete", "incomplete", "infeasible"]
    return Table(f"Metaparameters: {curves[0].title}", titles, rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
