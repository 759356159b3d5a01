"""The picture of a front: test accuracy against what the networks cost, a panel for each ranking.

Accuracy is drawn by the logarithm of its error, so that 98 % and 99 % are as far apart as 80 % and 90 %; else one bad
row would press all good ones together. Colours are those of [Okabe2008], which people of any colour vision tell
apart; each method also has a mark of its own, for print in grey.

[Okabe2008] M. Okabe and K. Ito: Color universal design, how to make figures and presentations that are friendly to
    colorblind people.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snas.errors import InputError
from snas.exports import Group, Row, clean, write_export
from snas.exports.cells import title
from snas.report.front import front_rows, has_values, source_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

FORMATS = (".png", ".svg", ".pdf")
MOST_PANELS = 6
LEAST_ERROR = 1e-4  # an error of none has no logarithm
AXES = {"kept_weights": "kept weights", "flops": "FLOPs of one example"}
SEARCHED = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
METHODS = ("#E69F00", "#56B4E9", "#000000", "#009E73", "#CC79A7", "#D55E00", "#999999")
FILLED = ("o", "D", "s", "^")
OPEN = ("s", "^", "v", "D", "P", "X", "<", ">", "p", "h", "*")
# Accuracies to be ticked where there is room, the roundest first.
TICKS = (90, 99, 50, 98, 95, 80, 99.9, 99.5, 97, 70, 60, 30, 85, 96, 0, 20, 40, 10, 92, 98.5, 99.7, 99.2, 94, 75)
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "snas",  # the same rows make the same file
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def require_plot(path: str) -> Path:
    """The file that a picture can be written to.

    Raises:
        InputError: for a format that is not one of `FORMATS`, or where matplotlib is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"plot is {path!r}; expected a name that ends in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("plot needs matplotlib; pip install 'snas[plots]'") from None
    return Path(path)


def draw_fronts(groups: Sequence[Group], costs: Sequence[str], path: Path) -> None:
    """Draw each group's rows and their front, and write the picture.

    Args:
        groups: with all their rows, from `snas.ranking.contenders`.
        costs: the first of them is the horizontal axis, and the front is that of accuracy and this cost.
        path: ends in one of `FORMATS`.

    Raises:
        InputError: where there is nothing to draw, or more groups than a page holds.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not groups:
        raise InputError("there is nothing to plot: no row that meets all filters has been tested")
    if len(groups) > MOST_PANELS:
        raise InputError(
            f"a plot of {len(groups)} rankings has no room; choose at most {MOST_PANELS} with --space, --dataset, "
            "--study or --epochs"
        )
    with matplotlib.rc_context(STYLE):
        across = 1 if len(groups) == 1 else 2
        down = math.ceil(len(groups) / across)
        figure = Figure(figsize=(7.2 * across, 4.2 * down), layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for panel, group in zip(panels, groups, strict=False):
            draw_panel(panel, group, costs[0])
        for panel in panels[len(groups) :]:
            panel.set_visible(False)
        content = io.BytesIO()
        kind = path.suffix.lower()[1:]
        dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(content, format=kind, dpi=200, metadata=dateless)
    write_export(content.getvalue(), path)


def draw_panel(panel: Axes, group: Group, cost: str) -> None:
    """Draw one group's rows and their front into matplotlib axes, such as those of a figure of your own.

    Args:
        panel: empty axes.
        group: with all its rows; those without a test accuracy are left out.
        cost: the horizontal axis, "kept_weights" or "flops".
    """
    rows = [row for row in group.rows if has_values(row, (cost,))]
    front = front_rows(rows, (cost,))
    panel.autoscale(False)  # one row alone has no extent
    panel.set_xscale("log")
    panel.set_yscale("function", functions=(_stretch, _shrink))
    handles, labels = [], []
    for name, style in _styles(rows).items():
        own = [row for row in rows if source_of(row) == name]
        handles.append(_points(panel, own, cost, style))
        labels.append(f"{clean(name).lstrip('_')} ({len(own)})")
    handles.append(_step(panel, front, rows, cost))
    labels.append(f"front ({len(front)})")
    for row in front:  # nothing is above and left of a row of the front
        panel.annotate(
            str(row.id),
            (getattr(row, cost), 100 * (row.test_accuracy or 0.0)),
            xytext=(-5, 4),
            textcoords="offset points",
            ha="right",
            fontsize=7,
            color="#555555",
        )
    _cost_ticks(panel, [getattr(row, cost) for row in rows])
    _accuracy_ticks(panel, rows)
    panel.set_xlabel(f"{AXES[cost]} (numbers: ids of the front's rows)")
    panel.set_ylabel("test accuracy %, by log of the error")
    panel.set_title(clean(title(group)), loc="left", fontsize=10, parse_math=False)
    panel.grid(color="#e4e4e4", linewidth=0.6)
    panel.set_axisbelow(True)
    legend = panel.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        fontsize=8,
        frameon=False,
        title="(rows); bars: spread of seeds",
        title_fontsize=8,
        alignment="left",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _points(panel: Axes, rows: Sequence[Row], cost: str, style: dict[str, Any]) -> Any:
    """One method's rows with the spread of their seeds."""
    accuracy = np.array([100 * (row.test_accuracy or 0.0) for row in rows])
    spread = np.array([100 * (row.test_std or 0.0) for row in rows])
    low = np.minimum(spread, accuracy)
    high = np.minimum(spread, 100 - accuracy)
    return panel.errorbar(
        [getattr(row, cost) for row in rows],
        accuracy,
        yerr=np.stack([low, high]),
        linestyle="none",
        elinewidth=0.9,
        capsize=2,
        **style,
    )


def _step(panel: Axes, front: Sequence[Row], rows: Sequence[Row], cost: str) -> Any:
    """What can be had for at most so much: it stays as good until the next network of the front."""
    x = [getattr(row, cost) for row in front]
    y = [100 * (row.test_accuracy or 0.0) for row in front]
    end = max(getattr(row, cost) for row in rows)
    (line,) = panel.plot(
        [*x, max(end, x[-1])], [*y, y[-1]], drawstyle="steps-post", color="#333333", linewidth=1.1, zorder=1
    )
    return line


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """How each source of rows is marked: searched ones filled, in front of the others; methods as open marks."""
    names = list(dict.fromkeys(source_of(row) for row in sorted(rows, key=lambda row: row.id)))
    searched = {source_of(row) for row in rows if row.kind == "searched"}
    ours = [name for name in names if name in searched]
    others = [name for name in names if name not in searched]
    styles: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(ours):
        styles[name] = {"color": SEARCHED[i % len(SEARCHED)], "marker": FILLED[i % len(FILLED)], "zorder": 4}
        styles[name] |= {"markersize": 6}
    for i, name in enumerate(others):
        styles[name] = {"color": METHODS[i % len(METHODS)], "marker": OPEN[i % len(OPEN)], "zorder": 3}
        styles[name] |= {"markersize": 5.5, "markerfacecolor": "white", "markeredgewidth": 1.2}
    return styles


def _cost_ticks(panel: Axes, costs: Sequence[float]) -> None:
    """1, 2 and 5 times powers of ten, in words; only powers where there would be too many."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    many = math.log10(max(costs) / min(costs)) > 3
    panel.set_xlim(min(costs) / 1.35, max(costs) * 1.35)
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0,) if many else (1.0, 2.0, 5.0), numticks=20))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.set_minor_locator(LogLocator(subs=tuple(range(2, 10)), numticks=100))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _accuracy_ticks(panel: Axes, rows: Sequence[Row]) -> None:
    """Limits around the rows, and round accuracies that leave each other room."""
    from matplotlib.ticker import NullLocator

    low = min(100 * ((row.test_accuracy or 0.0) - (row.test_std or 0.0)) for row in rows)
    high = max(100 * ((row.test_accuracy or 0.0) + (row.test_std or 0.0)) for row in rows)
    bottom, top = (float(value) for value in _stretch(np.array([max(low, 0.0), min(high, 100.0)])))
    margin = max(0.06 * (top - bottom), 0.08)
    ends = _shrink(np.array([max(bottom - margin, 0.0), top + margin]))
    panel.set_ylim(float(ends[0]), float(ends[1]))
    room = 0.07 * (top - bottom + 2 * margin)
    chosen: list[float] = []
    for tick in TICKS:
        place = float(_stretch(np.array([tick]))[0])
        inside = bottom - margin <= place <= top + margin
        if inside and all(abs(place - float(_stretch(np.array([other]))[0])) >= room for other in chosen):
            chosen.append(tick)
    chosen = chosen or [round(low, 2)]
    panel.set_yticks(sorted(chosen), [f"{tick:g}" for tick in sorted(chosen)])
    panel.yaxis.set_minor_locator(NullLocator())


def _stretch(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-np.log10(np.maximum(1 + LEAST_ERROR - np.asarray(percent) / 100, LEAST_ERROR)))


def _shrink(stretched: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(100 * (1 + LEAST_ERROR - 10.0 ** -np.asarray(stretched)))
