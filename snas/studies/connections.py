"""Which connections of the first layer are kept, and why these ([Lee2020b] section 3.5.4, figures 3.2, 3.5 and 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from snas.errors import InputError
from snas.exports.grids import Table
from snas.initialization.variance import initialize
from snas.pruning.allocations import kept_from_density
from snas.pruning.goal import Goal
from snas.pruning.scores import Batch, scores
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
    slug,
    studies,
    values_of,
)
from snas.studies.lab import Lab, seed_of
from snas.studies.maps import as_image, correlation, draw_images, input_map
from snas.training.task import network_at_fault

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIX = ":inverted"


@studies.register("connections")
class Connections(Study):
    """First-layer connections that survive, for batches of one class, on inverted data, and by the gradient alone."""

    shown = ("dataset", "score", "sparsity")

    def grid(self, scale: Scale) -> Grid:
        """LeNet-300-100 from 10 to 90 % sparsity, scored by SNIP and by the gradient, on data and on inverted data."""
        tiny = scale == "tiny"
        names = ("mnist", "fashion-mnist") if scale == "paper" else ("digits",) if tiny else ("mnist",)
        return {
            "dataset": tuple(name + suffix for name in names for suffix in ("", SUFFIX)),
            "space": ("lenet-300-100",),
            "score": ("snip", "gradient"),
            "sparsity": (0.1, 0.5, 0.9) if tiny else (0.1, 0.3, 0.5, 0.7, 0.9),
            "examples": (50 if tiny else 100,),
            "init": ("he",),
            "seed": (0,),
        }

    def cells(self, grid: Grid) -> list[Cell]:
        """All combinations."""
        for value in grid["sparsity"]:
            if not 0 < value < 1:
                raise InputError(f"sparsity is {value}; expected 0 < sparsity < 1")
        for name in grid["score"]:
            scores.get(name)
        for number in grid["examples"]:
            if number < 1:
                raise InputError(f"examples is {number}; expected at least 1 of each class")
        return combinations(grid)

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The initial weights."""
        return {"init": cell["init"]}

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """The map of each class; nothing is trained, and networks that could not be trained count too."""
        bench = lab.bench(cell["space"], cell["dataset"], **self.settings(cell))
        space, data, seed = bench.space, bench.task.data, seed_of(cell["seed"])
        kept = kept_from_density(1 - cell["sparsity"], space.total_weights)
        score, goal = scores.get(cell["score"]), Goal(space.layers, kept)
        with network_at_fault():
            model = space.build(generator=_generator(seed, Stream.BUILD))
            weights = _generator(seed, Stream.WEIGHTS)
            initialize(model, rule=cell["init"], nonlinearity=space.nonlinearity, generator=weights)
            model = model.to(lab.device)
        maps, means = [], []
        for number in range(data.classes):
            index = torch.nonzero(data.train.y == number)[:, 0][: cell["examples"]]
            batch = Batch(data.train.x[index], data.train.y[index])
            with network_at_fault():
                values = score(model, space.layers, batch, generator=_generator(seed, Stream.SCORE))
            masks = goal.masks(values, generator=_generator(seed, Stream.MASK))
            maps.append(input_map(masks, space))
            means.append([round(float(value), 4) for value in batch.x.abs().mean(0).flatten()])
        return {"maps": maps, "means": means, "shape": list(space.input_shape), "kept": kept}

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """What the maps have in common: with the inputs' sizes, with the sparsest, and with inverted data."""
        rows = []
        for name in values_of(measured(points), "dataset"):
            for score in values_of(points, "score"):
                for sparsity in values_of(points, "sparsity"):
                    own = measured(points, dataset=name, score=score, sparsity=sparsity)
                    if own:
                        told = [_mean_text(found) for found in _likenesses(own, points)]
                        rows.append([f"{name}, {score}, {100 * sparsity:g} %", *told])
        titles = [
            "data, score, sparsity",
            "mean size of inputs",
            "the sparsest",
            "other classes",
            "inverted data",
        ]
        notes = [
            "means over classes and seeds of the correlation, over inputs, of the share of first-layer units that keep "
            "a weight from it: with the mean absolute value of the input in the class's batch; with the map of the "
            "same class at the largest sparsity; with the maps of the other classes; with those of the same class on "
            "inverted data"
        ]
        return [Table("Maps of kept first-layer connections: how alike they are", titles, rows, notes)] if rows else []

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """A picture for each data set and score: a column for each class, a row for each sparsity."""
        pictures = []
        for name in values_of(measured(points), "dataset"):
            for score in values_of(points, "score"):
                own = first_seed(measured(points, dataset=name, score=score))
                if own:
                    text = slug(f"{name}-{score}")
                    size = (0.6 + 0.8 * len(own[0].result["maps"]), 0.6 + 0.8 * len(own))
                    pictures.append(Picture(text, _drawing(own), size))
        return pictures


def _drawing(points: Sequence[Point]) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        rows = sorted(points, key=lambda point: float(point["sparsity"]))
        images = [[as_image(one, point.result["shape"]) for one in point.result["maps"]] for point in rows]
        first = rows[0]
        draw_images(
            figure,
            images,
            rows=[f"{100 * point['sparsity']:g} %" for point in rows],
            columns=[str(number) for number in range(len(images[0]))],
            title=f"kept connections by input, {first['score']}: {first['space']} on {first['dataset']}, by class",
        )

    return draw


def _likenesses(own: Sequence[Point], points: Sequence[Point]) -> list[list[float | None]]:
    """The correlations behind each column of the table, of one data set, score and sparsity."""
    inputs, depths, others, inverted = [], [], [], []
    most = max(values_of(measured(points), "sparsity"))
    for point in own:
        maps = point.result["maps"]
        inputs += [correlation(one, mean) for one, mean in zip(maps, point.result["means"], strict=True)]
        others += [correlation(one, two) for i, one in enumerate(maps) for two in maps[:i]]
        if point["sparsity"] < most:
            depths += _by_class(maps, _like(point, points, sparsity=most))
        inverted += _by_class(maps, _like(point, points, dataset=_swapped(point["dataset"])))
    return [inputs, depths, others, inverted]


def _like(point: Point, points: Sequence[Point], **changes: Any) -> Sequence[Point]:
    """The point that is like this one but for the changes, if it is measured."""
    return measured(points, **{**point.cell, **changes})


def _by_class(maps: Sequence[Sequence[float]], others: Sequence[Point]) -> list[float | None]:
    return [correlation(*pair) for one in others for pair in zip(maps, one.result["maps"], strict=True)]


def _swapped(name: str) -> str:
    return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else name + SUFFIX


def _mean_text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.2f}" if known else "-"


def _generator(seed: int, stream: Stream) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, stream))
