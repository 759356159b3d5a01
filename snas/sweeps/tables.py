"""A sweep's tables as plain texts, for terminals and files alike."""

from __future__ import annotations

from collections.abc import Sequence

from snas.compare import LEVEL, Comparison, smallest_p
from snas.exports.cells import MISSING, clean, p_text, percent
from snas.sweeps.result import Cell, SweepResult

BEST, INDISTINCT = "*", "≈"
COMPARED = ("method", "points", "95 % interval", "t: p", "Holm", "signed-rank: p", "Holm")


def headline(result: SweepResult) -> str:
    """What the table is of."""
    return f"{result.space} on {result.dataset}"


def subtitle(result: SweepResult, *, error: bool) -> str:
    """What its numbers are, and how many networks are behind each."""
    what = "error" if error else "accuracy"
    seeds = f"{result.seeds} seed{'' if result.seeds == 1 else 's'}"
    spread = f"mean ± standard deviation over {seeds}" if result.seeds > 1 else seeds
    return f"{result.split} {what} %, {spread}; {result.epochs} epoch{'' if result.epochs == 1 else 's'}"


def grid(result: SweepResult, *, error: bool = False) -> list[list[str]]:
    """Titles, then a line for each method: its cells and, where methods differ in it, the epochs of one network."""
    lengths = {cell.method: cell.epochs_each for cell in result.cells if cell.epochs_each is not None}
    costs = len({*lengths.values(), result.epochs}) > 1
    titles = ["method", *(density_title(result, density) for density in result.densities)]
    footnotes = _lost(result)
    lines = [
        [
            clean(method),
            *(
                _cell_text(result, result.cell(method, density), density, footnotes, error=error)
                for density in result.densities
            ),
            *([str(lengths.get(method, MISSING))] if costs else []),
        ]
        for method in result.methods
    ]
    return [[*titles, *(["epochs"] if costs else [])], *lines]


def density_title(result: SweepResult, density: float) -> str:
    """What heads a column."""
    return f"given ({percent(density)})" if result.given else f"{density:g}"


def notes(result: SweepResult) -> list[str]:
    """What has to be said below the table."""
    reference = "its column's best" if result.reference is None else clean(result.reference)
    lines = []
    if any(result.best(density) for density in result.densities):
        lines.append(f"{BEST} best pruned mean of its column, marked by these same figures")
    if any(one.indistinct for one in result.comparisons):
        lines.append(f"{INDISTINCT} not distinguishable from {reference}: paired t test, adjusted p of {LEVEL} or more")
    dense = [cell.method for cell in result.cells if cell.density is None]
    if dense and len(result.methods) > len(dense):
        lines.append(f"{', '.join(dense)}: not pruned, the same networks in every column")
    return [*lines, *(f"[{number}] {told(cell)}" for number, cell in enumerate(_lost(result), start=1))]


def told(cell: Cell) -> str:
    """Why a cell lacks seeds, in a line."""
    where = f"{cell.method} at {cell.density:g}" if cell.density is not None else cell.method
    first = cell.reasons[0] if cell.reasons else "no reason recorded"
    more = f" (and {len(cell.reasons) - 1} more)" if len(cell.reasons) > 1 else ""
    verb = "" if cell.accuracies else f" {cell.status}"
    return clean(f"{where}{verb}: {first}{more}")


def compared_with(result: SweepResult, density: float) -> str | None:
    """The method that the others of a column are compared with; None where there is no comparison."""
    return next((one.reference for one in result.comparisons if one.density == density), None)


def comparison_title(result: SweepResult, density: float) -> str:
    """What heads the comparisons of a column."""
    role = "best mean" if result.reference is None else "reference"
    other = clean(compared_with(result, density) or MISSING)
    return f"density {density_title(result, density)}: accuracy minus that of {other} ({role}), in points"


def comparison_grid(result: SweepResult, density: float) -> list[list[str]]:
    """Titles, then a line for each method that is compared at this density; nothing where there is none."""
    compared = [one for one in result.comparisons if one.density == density]
    return [list(COMPARED), *map(_compared, compared)] if compared else []


def comparison_notes(result: SweepResult) -> list[str]:
    """What has to be said below the comparisons."""
    if not result.comparisons:
        return []
    if result.seeds == 1:
        return ["one seed has no spread to test a difference by; give more --seeds"]
    smallest = f"the smallest p of the signed-rank test is {p_text(smallest_p(result.seeds))} with {result.seeds} seeds"
    return [f"two-sided paired tests; Holm: adjusted over the methods of one density; {smallest}"]


def is_best(result: SweepResult, cell: Cell, density: float) -> bool:
    """Whether the cell is the best of its column."""
    return result.best(density) is cell


def _compared(one: Comparison) -> list[str]:
    found = one.difference
    ends = (found.low, found.high)
    interval = MISSING if None in ends else " to ".join(f"{100 * end:+.2f}" for end in ends if end is not None)
    mean = MISSING if found.mean is None else f"{100 * found.mean:+.2f}"
    tests = (found.t_p, one.t_adjusted, found.wilcoxon_p, one.wilcoxon_adjusted)
    return [clean(one.method), mean, interval, *map(p_text, tests)]


def _cell_text(result: SweepResult, cell: Cell, density: float, footnotes: Sequence[Cell], *, error: bool) -> str:
    note = f" [{footnotes.index(cell) + 1}]" if cell in footnotes else ""
    if cell.mean is None:
        return f"{cell.status}{note}"
    value = 1 - cell.mean if error else cell.mean
    deviation = "" if cell.std is None else f" ± {100 * cell.std:.2f}"
    seeds = f" (n={len(cell.accuracies)} of {result.seeds})" if cell.missing else ""
    comparison = result.comparison(cell.method, density)
    mark = BEST if is_best(result, cell, density) else ""
    mark += INDISTINCT if comparison is not None and comparison.indistinct else ""
    return f"{100 * value:.2f}{deviation}{seeds}{note}{f' {mark}' if mark else ''}"


def _lost(result: SweepResult) -> list[Cell]:
    """The cells that lack seeds, in their order: they have footnotes."""
    return [cell for cell in result.cells if cell.missing]
