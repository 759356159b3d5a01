"""Prune on one data set, train on another ([Lee2020b] section 4.5.2, table 4.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snas.errors import InputError
from snas.exports.grids import Table
from snas.pruning.allocations import kept_from_density
from snas.report.figures import mean_and_spread
from snas.studies.base import (
    Cell,
    Grid,
    Picture,
    Point,
    Result,
    Scale,
    Study,
    combinations,
    measured,
    studies,
    values_of,
)
from snas.studies.lab import Lab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUPERVISED, UNSUPERVISED = "supervised", "unsupervised"
RANDOM = "random"
# All training examples are scored, as in the source; random weights are not rescaled, as those of the others are not.
METHODS = {
    SUPERVISED: "snip:examples=0",
    UNSUPERVISED: "snip:examples=0:target=uniform",
    RANDOM: "random:rescale=no",
}


@studies.register("transfer")
class Transfer(Study):
    """A mask from one data set, with and without its labels, trained on another; random masks are the control."""

    shown = ("prune", "dataset", "pruning")

    def grid(self, scale: Scale) -> Grid:
        """MNIST and Fashion-MNIST in the source; here, too, halves of the digits' classes."""
        names = {
            "tiny": ("digits:classes=0-4", "digits:classes=5-9"),
            "small": ("mnist:classes=0-4", "mnist:classes=5-9"),
            "paper": ("mnist", "fashion-mnist"),
        }[scale]
        return {
            "prune": names,
            "dataset": names,
            "space": ("lenet-300-100",),
            "pruning": tuple(METHODS),
            "sparsity": (0.9 if scale == "tiny" else 0.97,),
            "init": ("orthogonal-full",),
            "epochs": ({"tiny": 10, "small": 5, "paper": 148}[scale],),
            "batch_size": (100 if scale != "tiny" else 32,),
            "lr": (0.1,),
            "schedule": ("step",),
            "weight_decay": (0.0005,),
            "seed": tuple(range({"tiny": 3, "small": 3, "paper": 10}[scale])),
        }

    def cells(self, grid: Grid) -> list[Cell]:
        """All combinations; random masks are of no data set."""
        for name in grid["pruning"]:
            if name not in METHODS:
                raise InputError(f"pruning is {name!r}; choices: {', '.join(METHODS)}")
        for value in grid["sparsity"]:
            if not 0 < value < 1:
                raise InputError(f"sparsity is {value}; expected 0 < sparsity < 1")
        return [{**cell, "prune": None} if cell["pruning"] == RANDOM else cell for cell in combinations(grid)]

    def datasets(self, cell: Cell) -> tuple[str, ...]:
        """Both data sets."""
        return tuple(dict.fromkeys(name for name in (cell["prune"], cell["dataset"]) if name is not None))

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The training rule and the initial weights."""
        return {name: cell[name] for name in ("epochs", "batch_size", "lr", "schedule", "weight_decay", "init")}

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """The test error of one network."""
        rule = self.settings(cell)
        bench = lab.bench(cell["space"], cell["dataset"], **rule)
        source = bench if cell["prune"] is None else lab.bench(cell["space"], cell["prune"], **rule)
        if source.space.network != bench.space.network:
            raise InputError(
                f"{cell['prune']} and {cell['dataset']} do not have examples of one shape and equally many classes; a "
                "mask of one is none of the other"
            )
        kept = kept_from_density(1 - cell["sparsity"], bench.space.total_weights)
        method = METHODS[cell["pruning"]]
        sparse = lab.prepare(source, method, kept, seed=cell["seed"])
        trained = lab.train(bench, method, kept, seed=cell["seed"], sparse=sparse)
        if trained.test_accuracy is None:
            raise InputError(f"data set {cell['dataset']!r} has no test examples; give one that has")
        return {"test_error": 1 - trained.test_accuracy, "kept": sparse.densities.counts, **trained.curve}

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """As table 4.5: errors with and without labels, their difference, and those of random masks."""
        rows = []
        found = measured(points)
        for trained in values_of(found, "dataset"):
            for pruned in _pruned(found):
                errors = [_errors(found, trained, pruned, kind) for kind in (SUPERVISED, UNSUPERVISED)]
                chance = _errors(found, trained, None, RANDOM)
                category = "-" if pruned is None else "standard" if pruned == trained else "transfer"
                row = [category, pruned or "-", trained, *map(_text, errors), _difference(*errors), _text(chance)]
                rows.append(row)
        rows.sort(key=lambda row: (row[2], row[0]))
        titles = ["category", "prune", "train and test", "supervised", "unsupervised", "difference", "random"]
        notes = ["test errors in %, mean and standard deviation of seeds"]
        return [Table("Transfer of sparsity", titles, rows, notes)] if rows else []

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """Errors of all pairs of data sets."""
        return (
            [Picture("errors", lambda figure: _draw(figure, measured(points)), (8.2, 4.2))] if measured(points) else []
        )


def _pruned(points: Sequence[Point]) -> list[str | None]:
    """The data sets that masks are of; None alone where all masks are random."""
    return [name for name in values_of(points, "prune") if name is not None] or [None]


def _errors(points: Sequence[Point], trained: str, pruned: str | None, pruning: str) -> list[float]:
    own = measured(points, dataset=trained, prune=pruned, pruning=pruning)
    return [100 * point.result["test_error"] for point in own]


def _text(errors: Sequence[float]) -> str:
    if not errors:
        return "-"
    (mean,), (spread,) = mean_and_spread([errors])
    return f"{mean:.2f} ± {spread:.2f} (n={len(errors)})" if len(errors) > 1 else f"{mean:.2f}"


def _difference(one: Sequence[float], two: Sequence[float]) -> str:
    if not one or not two:
        return "-"
    (first, second), _ = mean_and_spread([one, two])
    return f"{second - first:+.2f}"


def _draw(figure: Figure, points: Sequence[Point]) -> None:
    from snas.report.figures import COLOURS, MARKERS, legend_beside, plain_axes

    axes: Any = figure.subplots()
    pairs = [(trained, pruned) for trained in values_of(points, "dataset") for pruned in _pruned(points)]
    for number, kind in enumerate(METHODS):
        groups = {
            place: _errors(points, trained, None if kind == RANDOM else pruned, kind)
            for place, (trained, pruned) in enumerate(pairs)
        }
        known = {place: errors for place, errors in groups.items() if errors}
        if not known:
            continue
        means, spreads = mean_and_spread(list(known.values()))
        axes.errorbar(
            [place + 0.15 * (number - 1) for place in known],
            means,
            yerr=spreads,
            linestyle="none",
            capsize=3,
            color=COLOURS[number],
            marker=MARKERS[number],
            markerfacecolor="white",
            label=kind,
        )
    named = [f"prune {pruned or '-'}\ntrain {trained}".replace(":", "\n") for trained, pruned in pairs]
    axes.set_xticks(range(len(pairs)), named, fontsize=8)
    axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])  # a marker at 0 is seen whole
    first = points[0]
    plain_axes(axes, title=f"{first['space']}, {100 * first['sparsity']:g} % sparse", y="test error %")
    legend_beside(axes, title="pruning")
