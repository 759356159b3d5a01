"""Same Capacity Sparse vs Dense Comparison: what favours sparse networks ([Tessera2021] chapter 3, table 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from snas.errors import InputError
from snas.exports.grids import Table, colour
from snas.studies.base import Cell, Grid, Picture, Point, Result, Scale, Study, combinations, measured, studies
from snas.studies.base import values_of as values
from snas.studies.lab import Lab
from snas.studies.same_capacity import NONE, OPTIMIZERS, measure_network, require_possible, settings_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05
# The best regularization of each optimizer, with which activations are compared in the source (table 3.3c).
BEST = {name: "DA_L2_SC_BN" if name in ("sgd", "momentum") else "DA_SC_BN" for name in OPTIMIZERS}
# What a comparison is of; the rest are the pairs: dense width and seed.
TABLE = ("dataset", "examples", "hidden_layers", "lr", "epochs")
OWN = 0  # epochs: the source's own
LENGTHS = {"fashion-mnist": 500, "cifar10": 1000, "cifar100": 1000}  # epochs of table 3.2


@dataclass(frozen=True)
class Comparison:
    """Sparse against dense networks of the same capacity, in pairs of one dense width and seed.

    Attributes:
        p: probability under the hypothesis that sparse networks are not better ([Tessera2021] eq. 3.4), by the exact
            one-tailed Wilcoxon signed-rank test; None without a pair that differs.
        difference: mean of sparse minus dense test accuracy; None without a pair.
        pairs: how many there are.
        missing: pairs of which a network has no result.
    """

    p: float | None
    difference: float | None
    pairs: int
    missing: int


def compare(points: Sequence[Point]) -> Comparison:
    """Compare the sparse with the dense networks among points of one configuration."""
    found: dict[tuple[Any, Any], dict[str, Point]] = {}
    for point in points:
        found.setdefault((point["dense_width"], point["seed"]), {})[point["network"]] = point
    both = [pair for pair in found.values() if len(pair) == 2]
    whole = [pair for pair in both if all(point.result for point in pair.values())]
    pairs = [
        (float(pair["sparse"].result["test_accuracy"]), float(pair["dense"].result["test_accuracy"])) for pair in whole
    ]
    differences = [sparse - dense for sparse, dense in pairs]
    difference = fmean(differences) if differences else None
    return Comparison(one_tailed(pairs), difference, len(pairs), len(both) - len(whole))


def one_tailed(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The exact one-tailed Wilcoxon signed-rank test of pairs (sparse, dense): that the first are larger.

    Example:
        >>> one_tailed([(0.9, 0.8), (0.8, 0.75), (0.7, 0.69)])
        0.125
    """
    from scipy.stats import wilcoxon

    if all(sparse == dense for sparse, dense in pairs):
        return None
    first, second = zip(*pairs, strict=True)
    p = float(wilcoxon(first, second, alternative="greater", method="exact").pvalue)
    return None if math.isnan(p) else p


@studies.register("sc-sdc")
class SameCapacity(Study):
    """Sparse against dense networks of equal weights in every layer: optimizers, regularizations, activations."""

    shown: tuple[str, ...] | None = (
        *TABLE, "dense_width", "optimizer", "regularization", "activation", "network", "pruning",
    )  # fmt: skip

    def grid(self, scale: Scale) -> Grid:
        """The source's grid is that of its table 3.2."""
        pair = {"network": ("sparse", "dense"), "pruning": ("random",), "init": ("he",)}
        if scale == "tiny":
            return {
                "dataset": ("digits",), "examples": (0,), "hidden_layers": (2,), "dense_width": (10, 30, 50, 70, 90),
                "optimizer": ("momentum", "adam"), "regularization": (NONE, "BN"), "activation": ("relu",),
                "lr": (0.01,), "epochs": (5,), "batch_size": (64,), **pair, "seed": (0, 1, 2),
            }  # fmt: skip
        if scale == "small":
            return {
                "dataset": ("mnist",), "examples": (10_000,), "hidden_layers": (4,),
                "dense_width": (10, 30, 50, 70, 90), "optimizer": ("sgd", "momentum"), "regularization": (NONE, "BN"),
                "activation": ("relu",), "lr": (0.01, 0.1), "epochs": (5,), "batch_size": (128,), **pair,
                "seed": (0, 1, 2),
            }  # fmt: skip
        return {
            "dataset": ("fashion-mnist", "cifar10", "cifar100"), "examples": (0,), "hidden_layers": (1, 2, 4),
            "dense_width": (10, 30, 50, 70, 90), "optimizer": tuple(OPTIMIZERS),
            "regularization": (
                NONE, "DA", "L2", "SC", "BN", "DA_BN", "L2_BN", "SC_BN", "DA_SC_BN", "DA_L2_SC_BN",
            ),
            "activation": ("relu", "swish", "prelu", "srelu", "sigmoid", "elu"), "lr": (0.001, 0.1),
            "epochs": (OWN,), "batch_size": (128,), **pair, "seed": (0, 1, 2),
        }  # fmt: skip

    def cells(self, grid: Grid) -> list[Cell]:
        """Where there are several regularizations, activations beside the first are measured with the optimizer's best
        one, as in table 3.3c. 0 epochs are as many as the source has for the data set."""
        require_possible(grid)
        activations, regularizations = grid["activation"], grid["regularization"]
        several = len(activations) > 1 and len(regularizations) > 1
        for optimizer in grid["optimizer"] if several else ():
            if BEST[optimizer] not in regularizations:
                raise InputError(
                    f"several activations are compared with the best regularization of {optimizer}, "
                    f"{BEST[optimizer]}, which is not among {', '.join(regularizations)}; add it, or give one alone"
                )
        cells = [_of_length(cell) for cell in combinations(grid) if self._wanted(cell, grid, several=several)]
        return [{**cell, "pruning": None} if cell["network"] == "dense" else cell for cell in cells]

    def _wanted(self, cell: Cell, grid: Grid, *, several: bool) -> bool:
        best = cell["regularization"] == BEST[cell["optimizer"]]
        return not several or best or cell["activation"] == grid["activation"][0]

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The training rule and the initial weights."""
        return settings_of(cell)

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """Train one network of a pair."""
        return measure_network(cell, lab)

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """Tables 3.3 a and b, and c where there are several activations; below each the mean differences."""
        tables = []
        for title, own in _blocks(points):
            for factor in _factors(own):
                tables += _comparison_tables(title, _of_factor(own, factor), factor)
        return tables

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """Test accuracy and gradient flow as figures 3.3 and 3.4, and the tables' p-values with their colours."""
        pictures = []
        for number, (title, own) in enumerate(_blocks(points)):
            if not measured(own):
                continue
            for factor in _factors(own):
                shown = _of_factor(own, factor)
                across = max(1, len(values(shown, "optimizer")))
                name = f"{factor}-{number + 1}"
                pictures.append(
                    Picture(name, _curves(title, shown, factor), (min(14.0, 2.2 + 2.6 * across), 5.4)),
                )
                size = (2.2 + 0.85 * len(values(shown, factor)), 1.3 + 0.42 * across)
                pictures.append(Picture(f"{name}-p", _heat(title, shown, factor), size))
        return pictures


def _of_length(cell: Cell) -> Cell:
    """The cell with the source's epochs written out."""
    if cell["epochs"] != OWN:
        return cell
    if cell["dataset"] not in LENGTHS:
        raise InputError(f"epochs is {OWN}, the source's own, but it has no data set {cell['dataset']!r}; give epochs")
    return {**cell, "epochs": LENGTHS[cell["dataset"]]}


def _blocks(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """Points of one table, and what they have in common, in words."""
    found: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        found.setdefault(tuple(point[name] for name in TABLE), []).append(point)
    blocks = []
    for key, own in found.items():
        named: Mapping[str, Any] = dict(zip(TABLE, key, strict=True))
        data = named["dataset"] + (f", {named['examples']:,} examples" if named["examples"] else "")
        layers = f"{named['hidden_layers']} hidden layer{'s' if named['hidden_layers'] > 1 else ''}"
        for pruning in (name for name in values(own, "pruning") if name):
            pruned = ", pruned by magnitude half-way" if pruning == "magnitude" else ""
            length = f"{named['epochs']} epoch{'s' if named['epochs'] > 1 else ''}"
            title = f"{data}: {layers}, lr {named['lr']:g}, {length}{pruned}"
            blocks.append((title, [point for point in own if point["pruning"] in (None, pruning)]))
    return blocks


def _factors(points: Sequence[Point]) -> list[str]:
    """What is compared: regularizations, activations, or both, each with the other fixed."""
    several = [name for name in ("regularization", "activation") if len(values(points, name)) > 1]
    return several or ["regularization"]


def _of_factor(points: Sequence[Point], factor: str) -> list[Point]:
    """The points in which nothing but this factor changes: those of the first activation, or of the regularization that
    has all of them."""
    if factor == "regularization":
        first = values(points, "activation")[0]
        return [point for point in points if point["activation"] == first]
    kept = []
    for optimizer in values(points, "optimizer"):
        own = [point for point in points if point["optimizer"] == optimizer]
        many = max(
            values(own, "regularization"),
            key=lambda name: len({point["activation"] for point in own if point["regularization"] == name}),
        )
        kept += [point for point in own if point["regularization"] == many]
    return kept


def _comparison_tables(title: str, points: Sequence[Point], factor: str) -> list[Table]:
    optimizers, columns = values(points, "optimizer"), values(points, factor)
    chances, differences = [], []
    shades, bold, missing = {}, set(), 0
    for row, optimizer in enumerate(optimizers):
        first, second = [optimizer], [optimizer]
        for column, value in enumerate(columns, start=1):
            own = [point for point in points if point["optimizer"] == optimizer and point[factor] == value]
            found = compare(own)
            missing += found.missing
            first.append("-" if found.p is None else f"{found.p:.3f}")
            pairs = "" if found.difference is None else f" (n={found.pairs})"
            second.append("-" if found.difference is None else f"{100 * found.difference:+.2f}{pairs}")
            if found.p is not None:
                shades[row, column] = found.p
                if found.p < LEVEL:
                    bold.add((row, column))
        chances.append(first)
        differences.append(second)
    titles = ["optimizer", *map(str, columns)]
    lost = [f"{missing} pairs are missing: a network was refused or failed"] if missing else []
    notes = [
        f"p of the exact one-tailed Wilcoxon signed-rank test, H1: sparse > dense; bold below {LEVEL:g}",
        "colours from blue (0: sparse is better) over pale (0.5) to orange (1: it is not)",
    ]
    return [
        Table(
            f"{title}: p that sparse is not better, by {factor}", titles, chances, notes + lost, shades, frozenset(bold)
        ),
        Table(
            f"{title}: test accuracy, sparse - dense, in points, by {factor}",
            titles,
            differences,
            ["means over pairs of one dense width and seed"],
        ),
    ]


def _curves(title: str, points: Sequence[Point], factor: str) -> Any:
    def draw(figure: Figure) -> None:
        from snas.report.figures import COLOURS, MARKERS, log_axis, plain_axes

        optimizers, lines = values(points, "optimizer"), values(points, factor)
        axes: Any = figure.subplots(2, len(optimizers), sharex=True, sharey="row", squeeze=False)
        for place, optimizer in enumerate(optimizers):
            for number, value in enumerate(lines):
                for network, dashes in (("sparse", "-"), ("dense", "--")):
                    own = measured(points, optimizer=optimizer, network=network, **{factor: value})
                    widths = values(own, "dense_width")
                    groups = [[point for point in own if point["dense_width"] == width] for width in widths]
                    style = {
                        "color": COLOURS[number % len(COLOURS)],
                        "marker": MARKERS[number % len(MARKERS)],
                        "linestyle": dashes,
                        "markersize": 4.5,
                        "markerfacecolor": None if network == "sparse" else "white",
                        "linewidth": 1.2,
                    }
                    label = f"{value}, {network}"
                    accuracies = [100 * fmean(point.result["test_accuracy"] for point in group) for group in groups]
                    axes[0, place].plot(widths, accuracies, label=label, **style)
                    flows = [fmean(point.result["flow"].get("egf2", math.nan) for point in group) for group in groups]
                    axes[1, place].plot(widths, flows, **style)
            axes[1, place].set_xticks(values(points, "dense_width"))
            plain_axes(axes[0, place], title=optimizer, y="" if place else "test accuracy %")
            plain_axes(axes[1, place], x="dense width %", y="" if place else "average EGF, p = 2")
            log_axis(axes[1, place].yaxis)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")

    return draw


def _heat(title: str, points: Sequence[Point], factor: str) -> Any:
    table = _comparison_tables(title, points, factor)[0]

    def draw(figure: Figure) -> None:
        axes: Any = figure.subplots()
        for row, cells in enumerate(table.rows):
            for column, text in enumerate(cells[1:]):
                shade = table.shades.get((row, column + 1))
                face = "white" if shade is None else tuple(part / 255 for part in colour(shade))
                axes.add_patch(_rectangle(column, row, face))
                weight = "bold" if (row, column + 1) in table.bold else "normal"
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, fontweight=weight)
        axes.set(xlim=(0, len(table.titles) - 1), ylim=(len(table.rows), 0))
        axes.set_xticks([place + 0.5 for place in range(len(table.titles) - 1)], table.titles[1:], fontsize=8)
        axes.set_yticks([place + 0.5 for place in range(len(table.rows))], [cells[0] for cells in table.rows])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("p (Wilcoxon, H1: sparse > dense)", fontsize=8)
        figure.suptitle(title, fontsize=8, x=0.01, ha="left")

    return draw


def _rectangle(column: int, row: int, face: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column, row), 1, 1, facecolor=face, edgecolor="white")
