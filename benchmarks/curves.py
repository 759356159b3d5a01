"""Curves of regret against evaluations, a panel for each objective; legible in print and without colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

# M. Okabe and K. Ito's colours, and dashes for print in grey.
STYLES = {
    "random": ("#000000", ":"),
    "sobol": ("#999999", "--"),
    "bayes": ("#0072B2", (0, (7, 2))),
    "bayes-hd": ("#D55E00", "-"),
    "evolution": ("#009E73", "-"),
    "cmaes": ("#CC79A7", "--"),
    "nsga2": ("#E69F00", "-."),
}
OTHER = ("#56B4E9", (0, (1, 3)))


def draw(panels: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Write `path` with the endings .png and .svg.

    Args:
        panels: title -> strategy -> regret after each evaluation, in points of accuracy.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context({"svg.hashsalt": "snas", "font.size": 9}):
        figure = Figure(figsize=(3.1 * columns, 2.7 * rows + 0.6), layout="constrained")
        all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
        lines = {}
        for axes, (title, curves) in zip(all_axes, panels.items(), strict=False):
            for name, values in curves.items():
                colour, dashes = STYLES.get(name, OTHER)
                width = 2.4 if name == "bayes-hd" else 1.5  # its grey is close to that of evolution
                [lines[name]] = axes.plot(range(1, len(values) + 1), values, color=colour, linestyle=dashes, lw=width)
            axes.set_title(title, fontsize=9)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 4, 5, 7)))
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.grid(alpha=0.3, which="both", lw=0.4)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in all_axes[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("evaluations", fontsize=9)
        figure.supylabel("median regret, points of accuracy", fontsize=9)
        names = [name for name in (*STYLES, *lines) if name in lines]
        names = list(dict.fromkeys(names))
        figure.legend(
            [lines[name] for name in names], names, loc="outside upper center", ncols=len(names), frameon=False
        )
        figure.savefig(path.with_suffix(".png"), dpi=150)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
