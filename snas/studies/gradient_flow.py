"""Gradient flow along training, and how it goes along with the test ([Tessera2021] tables 3.1 and 3.2)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from snas.analysis.gradient_flow import FlowObservation, correlation_table
from snas.exports.grids import Table
from snas.studies.base import Picture, Point, measured, studies
from snas.studies.base import values_of as values
from snas.studies.sc_sdc import SameCapacity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIED = ("dense_width", "seed", "network")  # within a configuration
CONFIGURATION = ("dataset", "examples", "hidden_layers", "epochs", "optimizer", "lr", "regularization", "activation")
PICTURE = ("dataset", "examples", "lr", "epochs")  # what each picture is of one of


@studies.register("gradient-flow")
class GradientFlow(SameCapacity):
    """Norms of the gradient along training, and their Kendall correlation with test loss and accuracy (table 3.1)."""

    filed = "sc-sdc"  # the same networks, as in the source
    shown = tuple(name for name in SameCapacity.shown or () if name != "pruning")

    def tables(self, points: Sequence[Point]) -> list[Table]:
        """Table 3.1, and the average EGF of each optimizer and regularization."""
        found = measured(points)
        rows = []
        names = [name for name in CONFIGURATION if len(values(found, name)) > 1]
        for key in dict.fromkeys(tuple(point[name] for name in names) for point in found):
            own = [point for point in found if tuple(point[name] for name in names) == key]
            cells = [" ".join(f"{name}={value}" for name, value in zip(names, key, strict=True)) or "all"]
            for network in ("sparse", "dense"):
                group = measured(own, network=network)
                flows = [point.result["flow"][name] for name in ("egf2",) for point in group if point.result["flow"]]
                cells.append(f"{fmean(flows):.3g}" if flows else "-")
                tests = [100 * point.result["test_accuracy"] for point in group]
                cells.append(f"{fmean(tests):.2f}" if tests else "-")
            rows.append(cells)
        titles = ["configuration", "sparse: EGF, p = 2", "sparse: test %", "dense: EGF, p = 2", "dense: test %"]
        notes = ["means over dense widths and seeds; EGF averaged at up to 11 epochs evenly spread over the training"]
        return [
            correlation_table(observe_points(points), every=True),
            Table("Average effective gradient flow", titles, rows, notes),
        ]

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """EGF along training for each optimizer; and average EGF against accuracy."""
        found = measured(points)
        if not found:
            return []
        across = len(values(found, "optimizer"))
        pictures = []
        for number, key in enumerate(dict.fromkeys(tuple(point[name] for name in PICTURE) for point in found)):
            own = measured(found, **dict(zip(PICTURE, key, strict=True)))
            dataset, examples, lr, epochs = key
            data = dataset + (f", {examples:,} examples" if examples else "")
            title = f"{data}, lr {lr:g}, {epochs} epoch{'s' if epochs > 1 else ''}"
            size = (min(14.0, 2.4 + 2.8 * across), 3.4)
            pictures += [
                Picture(f"training-{number + 1}", _along(title, own), size),
                Picture(f"accuracy-{number + 1}", _against(title, own), size),
            ]
        return pictures


def observe_points(points: Sequence[Point]) -> list[FlowObservation]:
    """Points with gradient flow as observations; a configuration is all but width, seed and network."""
    found = []
    for point in measured(points):
        if not point.result.get("flow") or point.result["test_loss"] is None:
            continue
        rest = {name: value for name, value in point.cell.items() if name not in VARIED}
        result = point.result
        found.append(
            FlowObservation(
                point["dataset"],
                json.dumps(rest, sort_keys=True),
                point["network"] == "sparse",
                result["flow"],
                result["test_loss"],
                result["test_accuracy"],
            )
        )
    return found


def _lines(points: Sequence[Point]) -> list[tuple[str, str, list[Point]]]:
    """Series: what varies beside the optimizer, each sparse and dense."""
    names = [name for name in ("regularization", "activation", "hidden_layers") if len(values(points, name)) > 1]
    keys = dict.fromkeys(tuple(point[name] for name in names) for point in points)
    series = []
    for key in keys:
        label = " ".join(map(str, key)) or str(points[0]["regularization"])
        for network in ("sparse", "dense"):
            own = [one for one in points if one["network"] == network and tuple(one[name] for name in names) == key]
            series.append((label, network, own))
    return series


def _legend(figure: Figure, axes: Sequence[Any]) -> None:
    """One legend of the series of all panels, of which some may lack some."""
    found = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    legend = figure.legend(found.values(), found, loc="outside right upper", fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _along(title: str, points: Sequence[Point]) -> Any:
    def draw(figure: Figure) -> None:
        from snas.report.figures import COLOURS, MARKERS, log_axis, plain_axes, whole_axis

        optimizers = values(points, "optimizer")
        axes: Any = figure.subplots(1, len(optimizers), sharey=True, squeeze=False)[0]
        for place, optimizer in enumerate(optimizers):
            for number, (label, network, own) in enumerate(_lines(points)):
                shown = measured(own, optimizer=optimizer)
                if not shown:
                    continue
                epochs = shown[0].result["flow_epochs"]
                curves = [point.result["flows"]["egf2"] for point in shown if point.result["flow_epochs"] == epochs]
                means = [fmean(column) for column in zip(*curves, strict=True)]
                axes[place].plot(
                    epochs,
                    means,
                    label=f"{label}, {network}",
                    color=COLOURS[number // 2 % len(COLOURS)],
                    marker=MARKERS[number // 2 % len(MARKERS)],
                    linestyle="-" if network == "sparse" else "--",
                    markerfacecolor=None if network == "sparse" else "white",
                    markersize=4.5,
                )
            plain_axes(axes[place], title=optimizer, x="epoch", y="" if place else "EGF, p = 2")
            log_axis(axes[place].yaxis)
            whole_axis(axes[place].xaxis)
        _legend(figure, axes)
        figure.suptitle(f"{title}: means over widths and seeds", fontsize=10, x=0.01, ha="left")

    return draw


def _against(title: str, points: Sequence[Point]) -> Any:
    def draw(figure: Figure) -> None:
        from snas.report.figures import COLOURS, MARKERS, log_axis, plain_axes

        optimizers = values(points, "optimizer")
        axes: Any = figure.subplots(1, len(optimizers), sharey=True, squeeze=False)[0]
        for place, optimizer in enumerate(optimizers):
            for number, (label, network, own) in enumerate(_lines(points)):
                shown = measured(own, optimizer=optimizer)
                colour = COLOURS[number // 2 % len(COLOURS)]
                axes[place].scatter(
                    [point.result["flow"].get("egf2", math.nan) for point in shown],
                    [100 * point.result["test_accuracy"] for point in shown],
                    label=f"{label}, {network}",
                    s=20,
                    marker=MARKERS[number // 2 % len(MARKERS)],
                    facecolors=colour if network == "sparse" else "none",
                    edgecolors=colour,
                )
            plain_axes(axes[place], title=optimizer, x="average EGF, p = 2", y="" if place else "test accuracy %")
            log_axis(axes[place].xaxis)
        _legend(figure, axes)
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")

    return draw
