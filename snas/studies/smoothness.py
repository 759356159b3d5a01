"""Local Lipschitz constants of the gradient along training at several sparsities ([Lee2020b] eq. 5.16, figure 5.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from snas.diagnostics.smoothness import DELTA, SmoothnessWatcher
from snas.errors import InputError, SnasError
from snas.exports.grids import Table
from snas.pruning.allocations import kept_from_density
from snas.studies.base import Cell, Grid, Picture, Point, Result, Scale, Study, measured, studies, values_of
from snas.studies.lab import Lab
from snas.training.rule import WITH_MOMENTUM

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@studies.register("smoothness")
class Smoothness(Study):
    """Local Lipschitz constant of the gradient along training: is it larger the sparser the network?"""

    shown = ("sparsity",)

    def grid(self, scale: Scale) -> Grid:
        """Simple-CNN with 0, 50, 70 and 90 % of its weights removed by SNIP, as in the source's figure 5.5."""
        common = {"method": ("snip",), "optimizer": ("sgd",), "momentum": (0.0,), "schedule": ("constant",)}
        if scale == "tiny":
            data = {"dataset": ("digits",), "space": ("lenet-300-100",), "examples": (0,), "every": (20,)}
            return data | {"sparsity": (0.0, 0.5, 0.9), "epochs": (10,), "batch_size": (64,), "lr": (0.1,)} | common | {
                "seed": (0, 1)
            }  # fmt: skip
        if scale == "small":
            data = {"dataset": ("mnist",), "space": ("lenet-300-100",), "examples": (5_000,), "every": (300,)}
            return (
                data
                | {"sparsity": (0.0, 0.5, 0.7, 0.9, 0.98), "epochs": (3,), "batch_size": (100,), "lr": (0.1,)}
                | (common | {"seed": (0, 1, 2)})
            )
        data = {"dataset": ("mnist",), "space": ("simple-cnn",), "examples": (0,), "every": (100,)}
        return (
            data
            | {"sparsity": (0.0, 0.5, 0.7, 0.9), "epochs": (74,), "batch_size": (100,), "lr": (0.1,)}
            | (common | {"seed": (0, 1, 2)})
        )

    def cells(self, grid: Grid) -> list[Cell]:
        """All combinations; what is dense has no method of pruning, and momentum is of optimizers that have one."""
        for value in grid["sparsity"]:
            if not 0 <= value < 1:
                raise InputError(f"sparsity is {value}; expected 0 <= sparsity < 1")
        for value in grid["every"]:
            if value < 1:
                raise InputError(f"every is {value}; expected at least 1 step")
        return [
            {
                **cell,
                "method": None if cell["sparsity"] == 0 else cell["method"],
                "momentum": cell["momentum"] if cell["optimizer"] in WITH_MOMENTUM else None,
            }
            for cell in super().cells(grid)
        ]

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The training rule, without weight decay."""
        names = ("epochs", "batch_size", "lr", "optimizer", "momentum", "schedule")
        rule = {name: cell[name] for name in names if cell[name] is not None}
        return {**rule, "weight_decay": 0.0, "kernel": "dense"}

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """The constants along one training."""
        bench = lab.bench(cell["space"], cell["dataset"], **self.settings(cell))
        batch = lab.sample(bench, cell["examples"])
        watcher = SmoothnessWatcher(batch, every=cell["every"])
        kept = kept_from_density(1 - cell["sparsity"], bench.space.total_weights)
        method = cell["method"] or "dense"
        trained = lab.train(bench, method, kept, seed=cell["seed"], watcher=watcher)
        if not watcher.found:
            raise SnasError("no step was measured")
        return {
            "steps": [step for step, _ in watcher.found],
            "constants": [constant for _, constant in watcher.found],
            "mean": fmean(constant for _, constant in watcher.found),
            "examples": len(batch.y),
            **trained.curve,
            "test_accuracy": trained.test_accuracy,
        }

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """The constant at the first step and after it, and what the networks reach, at each sparsity."""
        rows = []
        for sparsity in values_of(points, "sparsity"):
            own = measured(points, sparsity=sparsity)
            if own:
                first = [point.result["constants"][0] for point in own]
                later = [fmean(point.result["constants"][1:]) for point in own if len(point.result["constants"]) > 1]
                tests = [
                    100 * point.result["test_accuracy"] for point in own if point.result["test_accuracy"] is not None
                ]
                cells = [f"{100 * sparsity:g} %", *map(_mean, (first, later, tests)), str(len(own))]
                rows.append(cells)
        titles = ["sparsity", "at the first step", "mean after it", "test accuracy %", "seeds"]
        notes = [f"eq. 5.16 with delta {DELTA}: means over the training and seeds, with the least and the largest seed"]
        return [Table("Local Lipschitz constant of the gradient along training", titles, rows, notes)]

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """The constant along training, a curve for each sparsity, as figure 5.5."""
        found = measured(points)
        return [Picture("constants", lambda figure: _draw(figure, found))] if found else []


def _mean(numbers: Sequence[float]) -> str:
    """The mean with its range."""
    if not numbers:
        return "-"
    spread = f" ({min(numbers):.3g} to {max(numbers):.3g})" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.4g}{spread}"


def _draw(figure: Figure, points: Sequence[Point]) -> None:
    from snas.report.figures import legend_beside, log_axis, plain_axes, series_style, whole_axis

    axes: Any = figure.subplots()
    for number, sparsity in enumerate(values_of(points, "sparsity")):
        own = measured(points, sparsity=sparsity)
        steps = own[0].result["steps"]
        curves = [point.result["constants"] for point in own if point.result["steps"] == steps]
        means = [fmean(values) for values in zip(*curves, strict=True)]
        axes.plot(steps, means, label=f"{100 * sparsity:g} %", **series_style(number))
    first = points[0]
    plain_axes(axes, title=f"{first['space']} on {first['dataset']}", x="training steps", y="local Lipschitz constant")
    log_axis(axes.yaxis)
    whole_axis(axes.xaxis)
    legend_beside(axes, title="sparsity")
