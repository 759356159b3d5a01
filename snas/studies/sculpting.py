"""Larger networks pruned without labels to the weights of a small one ([Lee2020b] section 4.5.3, table 4.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snas.errors import InputError, SnasError
from snas.exports.grids import Table
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
from snas.studies.lab import Lab, split_space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = "base"
SCULPTED = "ldi:examples=0:isometry=none:target=uniform"  # orthogonal weights, SNIP on all examples, no labels
EQUIVALENTS = (  # of table 4.6: what the base network's blocks and widening are replaced with
    "widening=2", "widening=4", "widening=6", "widening=8",
    "widening=2:blocks=2", "widening=4:blocks=2", "widening=6:blocks=2",
    "blocks=5",
)  # fmt: skip


@studies.register("sculpting")
class Sculpting(Study):
    """Wider, shallower and deeper networks, pruned without labels to exactly the weights of the base network."""

    shown = ("network", "method")

    def grid(self, scale: Scale) -> Grid:
        """ResNet-20 on CIFAR-10 with all equivalents of table 4.6, or narrower ones on MNIST or digits."""
        space = {"tiny": "resnet20:width=6", "small": "resnet20:width=4", "paper": "resnet20"}[scale]
        few = ("widening=2", "widening=4", "widening=2:blocks=2", "blocks=5")
        return {
            "dataset": ({"tiny": "digits", "small": "mnist", "paper": "cifar10"}[scale],),
            "space": (f"{space}:shortcut=padding",),
            "network": (BASE, *(EQUIVALENTS if scale == "paper" else few)),
            "method": (SCULPTED,),
            "epochs": ({"tiny": 6, "small": 2, "paper": 284}[scale],),
            "batch_size": (128 if scale == "paper" else 64,),
            "lr": (0.1,),
            "schedule": ("step",),
            "seed": tuple(range({"tiny": 2, "small": 2, "paper": 5}[scale])),
        }

    def cells(self, grid: Grid) -> list[Cell]:
        """All combinations; the base network is dense."""
        for network in grid["network"]:
            _require_network(network)
        return [{**cell, "method": "dense"} if cell["network"] == BASE else cell for cell in combinations(grid)]

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """The training rule."""
        return {name: cell[name] for name in ("epochs", "batch_size", "lr", "schedule")}

    def measure(self, cell: Cell, lab: Lab) -> Result:
        """Train one network of exactly the base network's number of weights."""
        rule, dataset = self.settings(cell), cell["dataset"]
        base = lab.bench(cell["space"], dataset, **rule)
        same = cell["network"] == BASE
        bench = base if same else lab.bench(equivalent(cell["space"], cell["network"]), dataset, **rule)
        kept, total = base.space.total_weights, bench.space.total_weights
        if total < kept:
            raise InputError(
                f"network {cell['network']!r} has {total:,} weights, fewer than the {kept:,} of {cell['space']}; make "
                "it wider or deeper"
            )
        sparse = lab.prepare(bench, cell["method"], kept, seed=cell["seed"])
        if sparse.densities.kept_weights != kept:
            raise SnasError(
                f"network {cell['network']!r} has {sparse.densities.kept_weights} weights instead of {kept}"
            )
        trained = lab.train(bench, cell["method"], kept, seed=cell["seed"], sparse=sparse)
        blocks = {layer.block for layer in bench.space.layers if layer.block.startswith("stage1.")}
        return {
            "kept": kept,
            "total": total,
            "blocks": len(blocks) or None,
            "widening": int(bench.space.arguments.get("widening", 1)),
            "layers": sparse.densities.counts,
            "test_accuracy": trained.test_accuracy,
            **trained.curve,
        }

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """As table 4.6."""
        rows = []
        for network in values_of(measured(points), "network"):
            for method in values_of(points, "method"):
                own = measured(points, network=network, method=method)
                if not own:
                    continue
                one = own[0].result
                sparsity = 100 * (1 - one["kept"] / one["total"])
                told = [_shape(network, one), _plain(one["widening"]), _plain(one["blocks"]), _labels(method)]
                counts = [f"{one['total']:,}", f"{one['kept']:,}", f"{sparsity:.1f}"]
                rows.append([network, *told, *counts, _text(own)])
        titles = ["network", "shape", "widening", "blocks", "method", "weights", "kept", "sparsity %", "test error %"]
        notes = [f"sculpted: {SCULPTED}"]
        return [Table("Neural architecture sculpting", titles, rows, notes)] if rows else []

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """Errors of all networks beside that of the base network, as figure 4.3."""
        found = [point for point in measured(points) if point.result["test_accuracy"] is not None]
        return [Picture("errors", lambda figure: _draw(figure, found), (7.2, 3.8))] if found else []


def equivalent(space: str, network: str) -> str:
    """The base space with other arguments.

    Example:
        >>> equivalent("resnet20:shortcut=padding:blocks=3", "widening=2:blocks=2")
        'resnet20:shortcut=padding:blocks=2:widening=2'
    """
    name, arguments = split_space(space)
    _, changes = split_space(f"{name}:{network}")
    return ":".join([name, *(f"{key}={value}" for key, value in {**arguments, **changes}.items())])


def _require_network(network: str) -> None:
    """Raise InputError for what is neither the base network nor key=value:key=value, each once."""
    parts = [part.partition("=") for part in network.split(":")]
    different = {key for key, _, value in parts if key and value}
    if network != BASE and len(different) < len(parts):
        raise InputError(
            f"network is {network!r}; expected {BASE}, or arguments of the space that differ from its own, as in "
            f"{EQUIVALENTS[4]}"
        )


def _shape(network: str, one: Result) -> str:
    if network == BASE:
        return "base"
    wider = "wider" if "widening" in network else ""
    deep = "" if "blocks" not in network else "shallower" if wider else "deeper"
    return " and ".join(part for part in (wider, deep) if part) or "-"


def _plain(value: Any) -> str:
    return "-" if value is None else str(value)


def _labels(method: str) -> str:
    return {"dense": "dense", SCULPTED: "sculpted"}.get(method, method)


def _errors(points: Sequence[Point]) -> list[float]:
    return [100 * (1 - one.result["test_accuracy"]) for one in points if one.result["test_accuracy"] is not None]


def _text(points: Sequence[Point]) -> str:
    errors = _errors(points)
    if not errors:
        return "-"
    (mean,), (spread,) = mean_and_spread([errors])
    return f"{mean:.2f} ± {spread:.2f} (n={len(errors)})" if len(errors) > 1 else f"{mean:.2f}"


def _draw(figure: Figure, points: Sequence[Point]) -> None:
    from snas.report.figures import COLOURS, MARKERS, plain_axes

    axes: Any = figure.subplots()
    networks = [name for name in values_of(points, "network") if name != BASE]
    base = _errors(measured(points, network=BASE))
    if base:
        mean = sum(base) / len(base)
        axes.axhspan(min(base), max(base), color="#dddddd", zorder=0)
        axes.axhline(mean, color="#333333", linestyle="--", linewidth=1.2, label="base, dense (band: seeds)")
    for number, method in enumerate(name for name in values_of(points, "method") if name != "dense"):
        own = {place: _errors(measured(points, network=name, method=method)) for place, name in enumerate(networks)}
        known = {place: errors for place, errors in own.items() if errors}
        means, spreads = mean_and_spread(list(known.values()))
        axes.errorbar(
            list(known), means, yerr=spreads, linestyle="none", capsize=3, color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)], markerfacecolor="white", label=_labels(method),
        )  # fmt: skip
    axes.set_xticks(range(len(networks)), [name.replace(":", "\n") for name in networks], fontsize=8)
    first = points[0]
    title = f"{first.result['kept']:,} weights each: {first['space']} on {first['dataset']}"
    plain_axes(axes, title=title, y="test error %")
    axes.legend(fontsize=8, frameon=False)
