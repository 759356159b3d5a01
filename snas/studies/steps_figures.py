"""Pictures of steps to result: curves with their laws (figures 5.1 and 5.12), and all trials (5.3 and 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snas.report.figures import COLOURS, plain_axes, series_style
from snas.studies.steps_curves import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDS = {  # status -> marker, colour
    "complete": ("o", COLOURS[0]),
    "incomplete": ("^", "#888888"),
    "infeasible": ("x", COLOURS[1]),
}


def draw_curves(figure: Figure, curves: Sequence[Curve]) -> None:
    """Steps, steps normalized by those of the smallest batch, and ratios to the dense network, against batch size."""
    left, middle, right = figure.subplots(1, 3)
    _draw_steps(left, curves)
    _draw_normalized(middle, curves)
    _draw_ratios(right, curves)
    figure.suptitle(curves[0].title, x=0.01, ha="left", fontsize=10, parse_math=False)


def _draw_steps(axes: Any, curves: Sequence[Curve]) -> None:
    for number, curve in enumerate(curves):
        if not curve.known:
            continue
        style = series_style(number)
        sizes = list(curve.known)
        points = {**style, "linestyle": "none"}
        axes.plot(sizes, list(curve.known.values()), label=_name(curve), **points)
        if curve.law:
            dense = np.geomspace(sizes[0], sizes[-1], 200)
            axes.plot(dense, curve.law.steps(dense), color=style["color"], linewidth=1.2)
            if curve.sum:
                axes.plot(dense, curve.sum.steps(dense), color=style["color"], linewidth=1.0, linestyle=":")
            if not curve.beyond:
                axes.axvline(curve.law.critical, color=style["color"], linewidth=0.9, linestyle=style["linestyle"])
        start = curve.known[sizes[0]]
        axes.plot(sizes, [start * sizes[0] / size for size in sizes], color="#999999", linestyle="--", linewidth=0.9)
    axes.set_yscale("log")
    least = min(min(curve.known.values()) for curve in curves if curve.known)
    axes.set_ylim(bottom=least / 2)
    _batch_axis(axes, curves)
    plain_axes(axes, title="lines: Theorem 5.3.1, dotted: C/B + C/T", x="batch size", y="steps to result")
    axes.legend(fontsize=8, frameon=False, title="vertical: 2T, grey: linear", title_fontsize=8)


def _draw_normalized(axes: Any, curves: Sequence[Curve]) -> None:
    known = [curve for curve in curves if curve.known]
    shared = [size for size in known[0].known if all(size in curve.known for curve in known)]
    least = 1.0
    for number, curve in enumerate(curves):
        if curve.known:
            base = curve.known[shared[0]] if shared else next(iter(curve.known.values()))
            steps = [value / base for value in curve.known.values()]
            axes.plot(list(curve.known), steps, label=_name(curve), **series_style(number))
            least = min(least, *steps)
    sizes = sorted({size for curve in known for size in curve.known})
    start = shared[0] if shared else sizes[0]
    axes.plot(sizes, [start / size for size in sizes], color="#999999", linestyle="--", linewidth=0.9)
    axes.set_yscale("log")
    axes.set_ylim(bottom=least / 2)
    _batch_axis(axes, curves)
    below = f"steps / steps at batch size {start:,}" if shared else "steps / steps of the smallest batch"
    plain_axes(axes, title="normalized", x="batch size", y=below)


def _draw_ratios(axes: Any, curves: Sequence[Curve]) -> None:
    dense = next((curve for curve in curves if curve.sparsity == 0), None)
    drawn = False
    for number, curve in enumerate(curves):
        shared = [size for size in curve.known if dense and size in dense.known]
        if curve is dense or dense is None or not shared:
            continue
        ratios = [curve.known[size] / dense.known[size] for size in shared]
        axes.plot(shared, ratios, label=_name(curve), **series_style(number))
        drawn = True
    axes.axhline(1.0, color="#999999", linestyle="--", linewidth=0.9)
    axes.set_ylim(bottom=0)
    _batch_axis(axes, curves)
    plain_axes(
        axes, title="sparse / dense" if drawn else "sparse / dense: nothing to compare", x="batch size", y="ratio"
    )


def draw_trials(figure: Figure, curves: Sequence[Curve]) -> None:
    """Learning rate against momentum, or steps where there is none; a panel for each sparsity and batch size."""
    sizes = sorted({size for curve in curves for size in curve.sizes})
    panels: Any = figure.subplots(len(curves), len(sizes), sharex=True, sharey="row", squeeze=False)
    searched = any("momentum" in trial for curve in curves for trials in curve.trials.values() for trial in trials)
    for row, curve in enumerate(curves):
        for column, size in enumerate(sizes):
            axes = panels[row, column]
            _draw_panel(axes, curve, size, searched)
            axes.set_title(f"S {100 * curve.sparsity:g} %, B {size:,}", fontsize=8, loc="left")
            axes.tick_params(labelsize=7)
            axes.tick_params(which="minor", labelsize=6)
            axes.set_axisbelow(True)
            axes.grid(color="#e4e4e4", linewidth=0.5)
        panels[row, 0].set_ylabel("1 - momentum" if searched else "steps", fontsize=8)
    figure.supxlabel("learning rate", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(curves[0].title, x=0.01, ha="left", fontsize=9, parse_math=False)


def _draw_panel(axes: Any, curve: Curve, size: int, searched: bool) -> None:
    trials = curve.trials.get(size, ())

    def place(trial: Any) -> float:
        return float(1 - trial["momentum"]) if searched else float(trial["steps"])

    for status, (marker, colour) in ENDS.items():
        own = [trial for trial in trials if trial["status"] == status]
        axes.scatter([t["lr"] for t in own], [place(t) for t in own], marker=marker, color=colour, s=16, label=status)
    best = curve.best(size) if trials else None
    found = [best] if best else []
    axes.scatter(
        [t["lr"] for t in found],
        [place(t) for t in found],
        marker="*",
        s=110,
        color="#E69F00",
        edgecolor="black",
        linewidth=0.7,
        label="best",
        zorder=4,
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_formatter("")


def _batch_axis(axes: Any, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    sizes = sorted({size for curve in curves for size in curve.sizes})
    axes.set_xscale("log", base=2)
    shown = sizes if len(sizes) <= 7 else sizes[::2]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.set_xticklabels([f"{size:,}" for size in shown], fontsize=7)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name(curve: Curve) -> str:
    return "dense" if curve.sparsity == 0 else f"{100 * curve.sparsity:g} %"
