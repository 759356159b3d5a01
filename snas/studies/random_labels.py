"""Does a sparse network memorize shuffled labels? ([Lee2020b] section 3.5.6 and appendix 3.B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from snas.bench import Bench
from snas.data.split import Arrays
from snas.errors import InputError
from snas.exports.grids import Table
from snas.pruning.allocations import kept_from_density
from snas.report.figures import mean_and_spread
from snas.seeds import Stream, derive
from snas.studies.base import (
    Cell,
    Grid,
    Picture,
    Point,
    Result,
    Scale,
    Study,
    combinations,
    first_seed,
    measured,
    studies,
    values_of,
)
from snas.studies.lab import Lab, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = ("true", "shuffled")


@studies.register("random-labels")
class RandomLabels(Study):
    """Dense and sparse networks on true and on shuffled labels; the mask is always chosen by true labels."""

    shown = ("labels", "sparsity", "weight_decay")

    def grid(self, scale: Scale) -> Grid:
        """LeNet-5-Caffe on MNIST, dense and 99 % sparse; LeNet-300-100 on digits."""
        common = {"labels": LABELS}
        if scale == "tiny":
            return {"dataset": ("digits",), "space": ("lenet-300-100",), **common, "sparsity": (0.0, 0.9, 0.99),
                    "weight_decay": (0.0,), "examples": (0,), "epochs": (60,), "batch_size": (50,),
                    "optimizer": ("adam",), "lr": (0.002,), "schedule": ("constant",), "seed": (0,)}  # fmt: skip
        if scale == "small":
            return {"dataset": ("mnist",), "space": ("lenet-5-caffe",), **common, "sparsity": (0.0, 0.9, 0.99),
                    "weight_decay": (0.0, 0.0005), "examples": (2000,), "epochs": (30,), "batch_size": (50,),
                    "optimizer": ("adam",), "lr": (0.001,), "schedule": ("constant",), "seed": (0,)}  # fmt: skip
        return {"dataset": ("mnist",), "space": ("lenet-5-caffe",), **common,
                "sparsity": (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99),
                "weight_decay": (0.0, 0.0005), "examples": (0,), "epochs": (200,), "batch_size": (100,),
                "optimizer": ("sgd",), "lr": (0.02,), "schedule": ("step",), "seed": (0,)}  # fmt: skip

    def cells(self, grid: Grid) -> list[Cell]:
        """All combinations; more weight decays are for the dense network on shuffled labels, as in figure 3.4."""
        for name in grid["labels"]:
            if name not in LABELS:
                raise InputError(f"labels are {name!r}; choices: {', '.join(LABELS)}")
        for value in grid["sparsity"]:
            if not 0 <= value < 1:
                raise InputError(f"sparsity is {value}; expected 0 <= sparsity < 1")
        first = grid["weight_decay"][0]
        return [
            cell
            for cell in combinations(grid)
            if cell["weight_decay"] == first or (cell["labels"] == "shuffled" and cell["sparsity"] == 0)
        ]

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The training rule."""
        names = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay")
        return {name: cell[name] for name in names}

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """Losses and errors along one training; at its end the whole training data are classified once more."""
        bench = lab.bench(cell["space"], cell["dataset"], examples=cell["examples"], **self.settings(cell))
        method = "dense" if cell["sparsity"] == 0 else "snip"
        kept = kept_from_density(1 - cell["sparsity"], bench.space.total_weights)
        sparse = lab.prepare(bench, method, kept, seed=cell["seed"])  # from true labels
        if cell["labels"] == "shuffled":
            bench = with_shuffled_labels(bench, seed=seed_of(cell["seed"]))
        trained = lab.train(bench, method, kept, seed=cell["seed"], sparse=sparse)
        loss, accuracy = trained.session.evaluate(bench.task.data.train)
        return {
            "fitted_loss": loss,
            "fitted_error": 1 - accuracy,
            "test_error": None if trained.test_accuracy is None else 1 - trained.test_accuracy,
            "examples": len(bench.task.data.train.y),
            "kept": sparse.densities.kept_weights,
            **trained.curve,
        }

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """How far each network fits its labels."""
        rows = []
        found = measured(points)
        for labels in values_of(found, "labels"):
            for sparsity in values_of(found, "sparsity"):
                for decay in values_of(found, "weight_decay"):
                    own = measured(found, labels=labels, sparsity=sparsity, weight_decay=decay)
                    if own:
                        cells = [
                            _mean(own, name, factor) for name, factor in (("fitted_loss", 1), ("fitted_error", 100))
                        ]
                        test = _mean(own, "test_error", 100)
                        name = f"{labels}, {_sparsity(sparsity)}" + (f", L2 {decay:g}" if decay else "")
                        rows.append(
                            [name, f"{own[0].result['kept']:,}", f"{own[0].result['examples']:,}", *cells, test]
                        )
        titles = ["labels, network", "weights", "examples", "training loss", "training error %", "test error %"]
        notes = [
            "after the last epoch, over all training examples with the labels that were trained on; test errors are by "
            "true labels"
        ]
        return [Table("Fitting true and shuffled labels", titles, rows, notes)] if rows else []

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """Training loss along the training, as figures 3.4 and 3.7."""
        found = first_seed(measured(points))
        return [Picture("losses", lambda figure: _draw(figure, found), (8.6, 4.2))] if found else []


def with_shuffled_labels(bench: Bench, *, seed: int) -> Bench:
    """The bench with the labels of its training examples in another order; validation and test data have theirs."""
    train = bench.task.data.train
    generator = torch.Generator().manual_seed(derive(seed, Stream.SPLIT))
    order = torch.randperm(len(train.y), generator=generator).to(train.y.device)
    data = replace(bench.task.data, train=Arrays(train.x, train.y[order]))
    return replace(bench, task=replace(bench.task, data=data))


def _mean(points: Sequence[Point], name: str, factor: float) -> str:
    values = [factor * point.result[name] for point in points if point.result[name] is not None]
    if not values:
        return "-"
    (mean,), (spread,) = mean_and_spread([values])
    return f"{mean:.3g} ± {spread:.2g}" if len(values) > 1 else f"{mean:.3g}"


def _sparsity(sparsity: float) -> str:
    return "dense" if sparsity == 0 else f"{100 * sparsity:g} % sparse"


def _draw(figure: Figure, points: Sequence[Point]) -> None:
    from snas.report.figures import legend_beside, plain_axes, series_style, whole_axis

    axes: Any = figure.subplots()
    for number, point in enumerate(sorted(points, key=lambda one: (one["labels"] == "shuffled", one["sparsity"]))):
        decay = f", L2 {point['weight_decay']:g}" if point["weight_decay"] else ""
        losses = [max(loss, 1e-4) for loss in point.result["train_loss"]]
        style = {**series_style(number), "markevery": max(1, len(losses) // 10)}
        axes.plot(
            range(1, len(losses) + 1),
            losses,
            label=f"{point['labels']}, {_sparsity(point['sparsity'])}{decay}",
            **style,
        )
    axes.set_yscale("log")
    first = points[0]
    title = f"{first['space']} on {first.result['examples']:,} examples of {first['dataset']}, masks from true labels"
    plain_axes(axes, title=title, x="epoch", y="mean training loss of the epoch")
    whole_axis(axes.xaxis)
    legend_beside(axes, title="labels, network")
