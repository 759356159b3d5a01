"""Tables and pictures of the study of signal propagation ([Lee2020b] tables 4.1 and 4.2, figure 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from snas.exports.grids import Table
from snas.studies.base import Point, measured
from snas.studies.base import values_of as values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INITS = {"lecun": "VS-L", "glorot": "VS-G", "he": "VS-H", "orthogonal": "LDI", "orthogonal-full": "LDI-full"}
PRUNINGS = {"snip": "CS", "random": "Rand", "magnitude": "Mag"}
ISOMETRIES = {"none": "", "frobenius": "-AI", "spectral": "-AIS"}
FEW = 12  # layers whose sparsities a table shows
THROUGHOUT = ("glorot", "orthogonal")  # initial weights that are looked at at every sparsity, after every pruning


def label(cell: Mapping[str, Any]) -> str:
    """A cell's network as the source names them: "LDI-CS-AI", "VS-G-Dense".

    Example:
        >>> label({"init": "orthogonal", "pruning": "snip", "isometry": "frobenius", "sparsity": 0.9})
        'LDI-CS-AI'
    """
    init = _weights(cell["init"]).replace(", std", "")
    if cell["sparsity"] == 0:
        return f"{init}-Dense"
    return f"{init}-{PRUNINGS[cell['pruning']]}{ISOMETRIES[cell['isometry']]}"


def _weights(init: str) -> str:
    """Initial weights as the source names them."""
    return INITS.get(init, init.replace("normal:", "SG, std ") if init.startswith("normal:") else init)


def throughout(init: str, inits: Sequence[str]) -> bool:
    """Whether networks of these initial weights are looked at at every sparsity, after every pruning: VS-G and LDI,
    and what is looked at alone."""
    return init in THROUGHOUT or set(inits) == {init}


def trained(points: Sequence[Point]) -> list[Point]:
    """What a picture of training shows of the points."""
    inits = values(points, "init")
    return [point for point in points if point.result.get("losses") and throughout(point["init"], inits)]


def _apart(points: Sequence[Point]) -> list[str]:
    """A note that names the initial weights that are looked at in one way alone, where there are any."""
    inits = values(points, "init")
    names = [_weights(init) for init in inits if not throughout(init, inits)]
    most = max(values(points, "sparsity"))
    return [f"after SNIP at {100 * most:g} %, without isometry, alone: {'; '.join(names)}"] if names else []


def jacobian_tables(title: str, points: Sequence[Point]) -> list[Table]:
    """Table 4.1, for SNIP and any other pruning: the dense network's Jacobian, and what is made of the network."""
    most = max(values(points, "sparsity"))
    plain = measured(points, sparsity=most, isometry="none")
    prunings = [name for name in values(plain, "pruning") if name]
    return [_jacobian_table(title, measured(plain, pruning=name), most) for name in prunings]


def _jacobian_table(title: str, own: Sequence[Point], most: float) -> Table:
    layers, pruning = len(own[0].result["layers"]), own[0]["pruning"].replace("snip", "SNIP")
    shown = layers if layers <= FEW else 0
    rows = []
    for init in values(own, "init"):
        group = measured(own, init=init)
        jacobian = [
            _mean([point.result["dense"][name] for point in group], ".2e") for name in ("mean", "std", "condition")
        ]
        each = [f"{fmean(point.result['layers'][layer] for point in group):.2f}" for layer in range(shown)]
        refused = sum(bool(point.result["refused"]) for point in group)
        error = _error(group) + (f" ({refused} refused)" if refused else "")
        rows.append([_weights(init), *jacobian, *each, error])
    titles = [
        "initial weights",
        "mean",
        "std",
        "condition",
        *(f"layer {place + 1}" for place in range(shown)),
        "error %",
    ]
    notes = [
        f"singular values of the dense network; sparsity of each layer after {pruning} pruning, {100 * most:g} %; "
        "test error",
        "condition: largest over smallest of all examples; inf where one is 0; refused: no way through is left",
    ]
    return Table(f"{title}: Jacobian and {pruning} pruning by initial weights", titles, rows, notes)


def sparsity_table(title: str, points: Sequence[Point]) -> Table:
    """Mean singular value of each network at every sparsity, the numbers of figure 4.2a."""
    sparsities = values(points, "sparsity")
    rows = []
    for name, own in series(points):
        cells = []
        for sparsity in sparsities:
            group = [one for one in own if one["sparsity"] == sparsity and one.result.get("pruned")]
            cells.append(_mean([point.result["pruned"]["mean"] for point in group], ".3g"))
        rows.append([name, *cells])
    titles = ["network", *(f"{100 * sparsity:g} %" for sparsity in sparsities)]
    notes = ["means over examples and seeds", *_apart(points)]
    return Table(f"{title}: mean singular value by sparsity", titles, rows, notes)


def orthogonality_table(points: Sequence[Point]) -> Table:
    """Table 4.2: orthogonality score and error at the largest sparsity, a pair of columns for each space."""
    spaces = list(dict.fromkeys((point["dataset"], point["space"]) for point in points))
    most = max(values(points, "sparsity"))
    pruned = [point for point in measured(points, sparsity=most) if point["init"] in INITS]
    kinds = dict.fromkeys((point["pruning"], point["init"], point["isometry"]) for point in pruned)
    rows: list[list[str]] = []
    errors: dict[tuple[int, int], float] = {}
    for pruning, init, isometry in sorted(kinds, key=lambda kind: list(PRUNINGS).index(kind[0])):
        own = measured(pruned, pruning=pruning, init=init, isometry=isometry)
        cells = [label(own[0].cell)]
        for place, (dataset, space) in enumerate(spaces):
            group = measured(own, dataset=dataset, space=space)
            scores = [point.result["orthogonality"] for point in group if "orthogonality" in point.result]
            cells += [_mean(scores, ".2f"), _error(group)]
            tests = [point.result.get("test_accuracy") for point in group]
            found = [1 - accuracy for accuracy in tests if accuracy is not None]
            if found:
                errors[len(rows), 2 * place + 2] = fmean(found)
        rows.append(cells)
    bold = set()
    for column in {column for _, column in errors}:
        best = min(error for (_, other), error in errors.items() if other == column)
        bold |= {place for place, error in errors.items() if place[1] == column and error == best}
    titles = [
        "network",
        *(text for dataset, space in spaces for text in (f"{space}, {dataset}: OS", "error %")),
    ]
    notes = [
        f"at {100 * most:g} %; CS: SNIP, Rand: random, Mag: magnitude; OS: orthogonality score, 0 for orthogonal "
        "layers; bold: least error; -: no way through the network is left",
        *_apart(points),
    ]
    return Table("Orthogonality and error", titles, rows, notes, {}, frozenset(bold))


def series(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """Networks that were measured at several sparsities: label -> points, the dense one at the beginning of each."""
    found: dict[str, list[Point]] = {}
    for point in points:
        if point["sparsity"] > 0:
            found.setdefault(label(point.cell), []).append(point)
    named = [
        (name, [one for one in points if one["sparsity"] == 0 and one["init"] == own[0]["init"]] + own)
        for name, own in found.items()
    ]
    return [(name, own) for name, own in named if len(values(own, "sparsity")) > 1]


def _mean(numbers: Sequence[float | None], form: str) -> str:
    """The mean; "inf" where one is None, which stands for it."""
    if not numbers:
        return "-"
    known = [number for number in numbers if number is not None]
    return "inf" if len(known) < len(numbers) else format(fmean(known), form)


def _error(points: Sequence[Point]) -> str:
    errors = [100 * (1 - one.result["test_accuracy"]) for one in points if one.result.get("test_accuracy") is not None]
    if not errors:
        return "-"
    return f"{fmean(errors):.2f}" + (f" ± {stdev(errors):.2f}" if len(errors) > 1 else "")


def draw_values(title: str, points: Sequence[Point]) -> Any:
    """What draws the singular values' mean, deviation and condition number against sparsity (figure 4.2a)."""

    def draw(figure: Figure) -> None:
        from snas.report.figures import log_axis, plain_axes

        axes: Any = figure.subplots(1, 3, sharex=True)
        names = {"mean": "mean", "std": "standard deviation", "condition": "condition number"}
        for place, (name, text) in enumerate(names.items()):
            for network, own in series(points):
                shown = [one for one in own if one.result.get("pruned") and one.result["pruned"][name] is not None]
                sparsities = values(shown, "sparsity")
                means = [
                    fmean(one.result["pruned"][name] for one in shown if one["sparsity"] == sparsity)
                    for sparsity in sparsities
                ]
                axes[place].plot([100 * one for one in sparsities], means, label=network, **_style(own[-1].cell))
            plain_axes(axes[place], title=text, x="sparsity %")
            log_axis(axes[place].yaxis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
        figure.suptitle(f"{title}: singular values of the Jacobian", fontsize=10, x=0.01, ha="left")

    return draw


def draw_training(title: str, points: Sequence[Point]) -> Any:
    """What draws the training loss of the networks of the largest sparsity (figure 4.2b)."""

    def draw(figure: Figure) -> None:
        from snas.report.figures import legend_beside, log_axis, plain_axes, whole_axis

        axes: Any = figure.subplots()
        found: dict[str, list[Point]] = {}
        for point in trained(points):
            found.setdefault(label(point.cell), []).append(point)
        for name, own in sorted(found.items()):
            curves = [point.result["losses"] for point in own]
            length = min(map(len, curves))
            means = [fmean(curve[place] for curve in curves) for place in range(length)]
            steps = [own[0].result["every"] * (place + 1) for place in range(length)]
            axes.plot(steps, means, label=name, markevery=max(1, length // 8), **_style(own[0].cell))
        most = max(values(points, "sparsity"))
        plain_axes(axes, title=f"{title}: training at {100 * most:g} %", x="steps", y="training loss")
        log_axis(axes.yaxis)
        whole_axis(axes.xaxis)
        legend_beside(axes)

    return draw


def _style(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Colour and marker by how a network was pruned and mended, dashes by its initial weights."""
    from snas.report.figures import COLOURS, MARKERS

    kinds = [
        ("snip", "none"),
        ("random", "none"),
        ("snip", "frobenius"),
        ("random", "frobenius"),
        ("magnitude", "none"),
        ("magnitude", "frobenius"),
        (None, "none"),  # dense
        ("snip", "spectral"),
        ("random", "spectral"),
        ("magnitude", "spectral"),
    ]
    place = kinds.index((cell["pruning"], cell["isometry"]))
    solid = cell["init"].startswith("orthogonal")
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[(place + place // len(MARKERS)) % len(MARKERS)],
        "linestyle": "-" if solid else "--",
        "markerfacecolor": COLOURS[place % len(COLOURS)] if solid else "white",
        "markersize": 5,
        "linewidth": 1.4,
    }
