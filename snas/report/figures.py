"""Pictures of studies: one style, told apart by colour, marker and dashes, so that they read in print and in grey.

Colours are those of [Okabe2008] (see `snas.report.plot`), which people of any colour vision tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from snas.errors import InputError
from snas.report.plot import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), "-", "--")
GRID = "#e4e4e4"
FEWEST_TICKS = 3  # with a number, of a logarithmic axis


def require_matplotlib(what: str) -> None:
    """Raise InputError where there is no matplotlib, which `what` needs."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(f"{what} needs matplotlib for pictures; pip install 'snas[plots]'") from None


def picture_bytes(draw: Callable[[Figure], None], size: tuple[float, float], kind: str) -> bytes:
    """A picture as a file's content; equal figures make equal files.

    Args:
        draw: fills an empty figure with constrained layout.
        size: width and height in inches.
        kind: "png", "svg" or "pdf".

    Raises:
        InputError: where matplotlib is not installed.
    """
    require_matplotlib("a picture")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        content = io.BytesIO()
        dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(content, format=kind, dpi=150, metadata=dateless)
    return content.getvalue()


def series_style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of series 0, 1 ..., as arguments of `Axes.plot`."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 5,
        "markerfacecolor": "white",
        "markeredgewidth": 1.2,
        "linewidth": 1.4,
    }


def plain_axes(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Title, labels and a faint grid. Names are taken as they are, not for formulas."""
    if title:
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def log_axis(axis: Axis) -> None:
    """Logarithmic ticks as plain numbers: 1, 2 and 5 times powers of ten, more of them on a short axis, and only powers
    on a long one.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`, with its data.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    axes: Any = axis.axes
    scale = axes.set_xscale if axis is axes.xaxis else axes.set_yscale
    scale("log")
    low, high = axis.get_view_interval()
    axis.set_minor_formatter(NullFormatter())
    if 0 < low < high <= 300 * low:
        for subs in ((1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
            locator: Any = LogLocator(subs=subs, numticks=20)
            if sum(low <= tick <= high for tick in locator.tick_values(low, high)) >= FEWEST_TICKS:
                break
        else:
            locator = MaxNLocator(nbins=4, steps=[1, 2, 5, 10])
        axis.set_major_locator(locator)
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def whole_axis(axis: Axis) -> None:
    """Ticks at whole numbers alone, for epochs and steps.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
    """
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def legend_beside(axes: Axes, *, title: str = "") -> None:
    """A legend to the right of the axes, where it covers nothing."""
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False, title=title or None, title_fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def mean_and_spread(groups: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Mean of each group, and its standard deviation (0 of a single value).

    Example:
        >>> mean_and_spread([[1.0, 3.0], [2.0]])
        ([2.0, 2.0], [1.4142135623730951, 0.0])
    """
    from statistics import fmean, stdev

    return [fmean(group) for group in groups], [stdev(group) if len(group) > 1 else 0.0 for group in groups]
