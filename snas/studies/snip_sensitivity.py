"""What SNIP depends on: the batch that it looks at, and the initial weights ([Lee2020b] section 3.5.5)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from snas.errors import InputError
from snas.exports.grids import Table
from snas.initialization import require_rule
from snas.initialization.variance import initialize
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
    slug,
    studies,
    values_of,
)
from snas.studies.lab import Lab, seed_of
from snas.studies.maps import as_image, draw_images, input_map, sees_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"normal": "RN", "truncated": "TN", "glorot": "VS-X", "he": "VS-H"}


@studies.register("snip-sensitivity")
class SnipSensitivity(Study):
    """SNIP with batches of 1 to all examples (figure 3.3), and from several initializations (table 3.3)."""

    shown = ("space", "examples", "init")

    def grid(self, scale: Scale) -> Grid:
        """90 % sparse networks. The first values are varied around: 100 examples, and VS-X."""
        tiny = scale == "tiny"
        lenets = ("lenet-300-100", "lenet-5-caffe")
        return {
            "dataset": ("digits" if tiny else "mnist",),
            "space": (*lenets, "lstm-s", "gru-s") if scale == "paper" else lenets[:1],
            "sparsity": (0.9,),
            "examples": (100, 1, 10, 1000, 0) if not tiny else (100, 1, 10, 0),  # 0: all
            "init": ("glorot", "normal", "truncated", "he"),
            "train_init": ("glorot",),
            "epochs": ({"tiny": 8, "small": 3, "paper": 200}[scale],),
            "batch_size": (100 if not tiny else 32,),
            "optimizer": ("adam",),
            "lr": (0.001,),
            "schedule": ("constant",),
            "seed": tuple(range({"tiny": 3, "small": 3, "paper": 20}[scale])),
        }

    def cells(self, grid: Grid) -> list[Cell]:
        """One of batch and initialization has its first value."""
        for value in grid["sparsity"]:
            if not 0 < value < 1:
                raise InputError(f"sparsity is {value}; expected 0 < sparsity < 1")
        for rule in (*grid["init"], *grid["train_init"]):
            require_rule(rule)
        for number in grid["examples"]:
            if number < 0:
                raise InputError(f"examples is {number}; expected at least 1, or 0 for all")
        usual = grid["examples"][0], grid["init"][0]
        return [cell for cell in combinations(grid) if usual[0] == cell["examples"] or usual[1] == cell["init"]]

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The training rule without weight decay, and the initial weights that are pruned."""
        names = ("epochs", "batch_size", "optimizer", "lr", "schedule", "init")
        return {"weight_decay": 0.0, **{name: cell[name] for name in names}}

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """Prune from one initialization, train from another, which is that of all networks of a seed."""
        bench = lab.bench(cell["space"], cell["dataset"], **self.settings(cell))
        method = f"snip:examples={cell['examples']}"
        kept = kept_from_density(1 - cell["sparsity"], bench.space.total_weights)
        sparse = lab.prepare(bench, method, kept, seed=cell["seed"])
        model = copy.deepcopy(sparse.model)
        generator = torch.Generator().manual_seed(derive(seed_of(cell["seed"]), Stream.REDRAW))
        initialize(model, rule=cell["train_init"], nonlinearity=bench.space.nonlinearity, generator=generator)
        sparse.masks.apply(model)
        trained = lab.train(bench, method, kept, seed=cell["seed"], sparse=replace(sparse, model=model))
        return {
            "test_error": None if trained.test_accuracy is None else 1 - trained.test_accuracy,
            "kept": sparse.densities.counts,
            "map": input_map(sparse.masks, bench.space) if sees_all(bench.space) else None,
            "shape": list(bench.space.input_shape),
            **trained.curve,
        }

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """Errors by batch, and by initialization as in table 3.3."""
        found = measured(points)
        tables = []
        for factor, title in (("examples", "Effect of the batch"), ("init", "Effect of the initialization")):
            if len(values_of(found, factor)) < 2:
                continue
            spaces = values_of(found, "space")
            rows = [
                [_name(factor, value), *(_text(_varied(found, factor, value, space)) for space in spaces)]
                for value in _in_order(values_of(found, factor))
            ]
            notes = ["test errors in %, mean and standard deviation of seeds; all networks are trained alike"]
            tables.append(Table(title, [factor, *spaces], rows, notes))
        return tables

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """As figure 3.3: kept connections of the first layer, and errors, against the size of the batch."""
        found = measured(points)
        pictures = []
        for space in values_of(found, "space"):
            images = [
                point
                for size in values_of(found, "examples")
                for point in first_seed(_varied(found, "examples", size, space))
                if point.result["map"] is not None
            ]
            if len(images) > 1:
                name = "maps" if space == found[0]["space"] else f"maps-{slug(space)}"
                pictures.append(Picture(name, _drawing(images), (1.2 + 1.3 * len(images), 2.0)))
        if len(values_of(found, "examples")) > 1:
            pictures.append(Picture("errors", lambda figure: _draw_errors(figure, found)))
        return pictures


def _drawing(points: Sequence[Point]) -> Callable[[Figure], None]:
    return lambda figure: _draw_maps(figure, points)


def _varied(points: Sequence[Point], factor: str, value: Any, space: str) -> list[Point]:
    """The points of a space with this value of a factor, and the usual one of the other: that with most values."""
    other = "init" if factor == "examples" else "examples"
    usual = max(values_of(points, other), key=lambda one: len(values_of(measured(points, **{other: one}), factor)))
    return measured(points, **{factor: value, "space": space, other: usual})


def _in_order(values: Sequence[Any]) -> list[Any]:
    """All examples (0) last."""
    return sorted(values, key=lambda value: value or 10**9) if all(isinstance(v, int) for v in values) else list(values)


def _name(factor: str, value: Any) -> str:
    if factor == "init":
        return NAMES.get(str(value), str(value))
    return "all" if value == 0 else f"{value:,}"


def _text(points: Sequence[Point]) -> str:
    errors = [100 * point.result["test_error"] for point in points if point.result["test_error"] is not None]
    if not errors:
        return "-"
    (mean,), (spread,) = mean_and_spread([errors])
    return f"{mean:.2f} ± {spread:.2f} (n={len(errors)})" if len(errors) > 1 else f"{mean:.2f}"


def _draw_maps(figure: Figure, points: Sequence[Point]) -> None:
    ordered = sorted(points, key=lambda point: point["examples"] or 10**9)
    images = [as_image(point.result["map"], point.result["shape"]) for point in ordered]
    first = ordered[0]
    title = f"kept first-layer connections by input: {first['space']} on {first['dataset']}, by examples scored"
    draw_images(
        figure, [images], rows=[""], columns=[_name("examples", one["examples"]) for one in ordered], title=title
    )


def _draw_errors(figure: Figure, points: Sequence[Point]) -> None:
    from snas.report.figures import legend_beside, plain_axes, series_style

    axes: Any = figure.subplots()
    sizes = _in_order(values_of(points, "examples"))
    for number, space in enumerate(values_of(points, "space")):
        groups = [
            [100 * one.result["test_error"] for one in _varied(points, "examples", size, space)] for size in sizes
        ]
        known = [place for place, group in enumerate(groups) if group]
        means, spreads = mean_and_spread([groups[place] for place in known])
        axes.errorbar(known, means, yerr=spreads, capsize=3, label=space, **series_style(number))
    axes.set_xticks(range(len(sizes)), [_name("examples", size) for size in sizes])
    first = points[0]
    plain_axes(
        axes,
        title=f"{100 * first['sparsity']:g} % sparse by SNIP, {first['dataset']}",
        x="examples scored",
        y="test error %",
    )
    legend_beside(axes)
