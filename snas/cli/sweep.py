"""snas sweep"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from snas.checks import listed
from snas.cli.options import Config, Format, Quiet, flags_of, with_config
from snas.cli.tables import check_format, print_json, results_console
from snas.errors import SnasError
from snas.exports import clean
from snas.settings import SweepSettings

if TYPE_CHECKING:
    from snas.sweeps.result import SweepResult

MARK = re.compile(r" [*≈]+$")
GAP = 2  # blanks between columns
WIDEST_NAME = 24  # longer names of methods are broken in lines, to leave room for columns

Error = Annotated[bool, typer.Option("--error", help="Show errors in place of accuracies.")]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="Also write the tables to a .md, .tex, .csv, .json or .html file.")
]


@flags_of(SweepSettings, leave_out=["final_seeds"])
def sweep(
    given: dict[str, Any],
    *,
    config: Config = None,
    format: Format = "table",
    error: Error = False,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Train a whole table, every method at every density, and compare the methods in pairs. Resumable."""
    check_format(format)
    values = with_config(given, config, SweepSettings)
    for name in ("methods", "densities"):
        if isinstance(values.get(name), (list, float)):
            values[name] = listed(values[name])
    SweepSettings(**values)
    from snas.cli.progress import SweepTerminal
    from snas.exports import write_export
    from snas.sweeps import command
    from snas.sweeps.export import require_suffix, sweep_text

    if output is not None:
        require_suffix(Path(output))
    with SweepTerminal(quiet=quiet) as listener, redirect_stdout(sys.stderr):
        result = command.sweep(listener=listener, **{"methods": "", **values})
    if output is not None:
        write_export(sweep_text(result, Path(output).suffix, error=error), Path(output))
        sys.stderr.write(f"wrote {len(result.cells)} cells to {clean(str(output))}\n")
    if format == "json":
        print_json(result.as_dict())
    else:
        print_sweep(result, error=error)
    if not any(cell.accuracies for cell in result.cells):
        lost = next(cell for cell in result.cells if cell.missing)
        raise SnasError(f"not one network could be trained; {lost.method}: {lost.reasons[0]}")


def print_sweep(result: SweepResult, *, error: bool) -> None:
    """Print the table, below it what differs, and how surely."""
    from snas.sweeps import tables

    console = results_console()
    console.print(Text(f"\n{tables.headline(result)}", style="bold"))
    console.print(Text(tables.subtitle(result, error=error), style="dim"))
    for part in fitting(aligned(tables.grid(result, error=error)), console.width):
        _print_table(console, part)
    for note in tables.notes(result):
        console.print(Text(note, style="dim"))
    compared = [density for density in result.densities if tables.compared_with(result, density) is not None]
    for density in compared:
        console.print(Text(f"\n{tables.comparison_title(result, density)}", style="bold"))
        _print_table(console, tables.comparison_grid(result, density))
    for note in tables.comparison_notes(result):
        console.print(Text(note, style="dim"))


def fitting(grid: Sequence[Sequence[str]], width: int) -> list[list[list[str]]]:
    """Parts of a table with as many columns as `width` has room for, each with the first column.

    Example:
        >>> fitting([["m", "0.1", "0.05"], ["er", "97.42", "96.11"]], 12)
        [[['m', '0.1'], ['er', '97.42']], [['m', '0.05'], ['er', '96.11']]]
    """
    widths = [max(len(line[place]) for line in grid) for place in range(len(grid[0]))]
    first = min(widths[0], WIDEST_NAME)
    parts: list[list[int]] = []
    for place in range(1, len(widths)):
        used = first + sum(GAP + widths[other] for other in parts[-1]) if parts else width
        if used + GAP + widths[place] <= width:
            parts[-1].append(place)
        else:
            parts.append([place])
    return [[[line[0], *(line[place] for place in part)] for line in grid] for part in parts]


def aligned(grid: Sequence[Sequence[str]]) -> list[list[str]]:
    """The table with blanks behind cells that have no mark, so that numbers stand below each other.

    Example:
        >>> aligned([["m", "0.1"], ["er", "97.42 *"], ["erk", "97.40"]])
        [['m', '0.1  '], ['er', '97.42 *'], ['erk', '97.40  ']]
    """
    columns = []
    for column in zip(*grid, strict=True):
        marks = [len(found[0]) if (found := MARK.search(cell)) else 0 for cell in column]
        columns.append([cell + " " * (max(marks) - mark) for cell, mark in zip(column, marks, strict=True)])
    return [list(line) for line in zip(*columns, strict=True)]


def _print_table(console: Console, grid: Sequence[Sequence[str]]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP // 2, 0, 0), show_edge=False)
    table.add_column(grid[0][0], overflow="fold")
    for title in grid[0][1:]:
        table.add_column(Text(title), justify="right", no_wrap=True)
    for line in grid[1:]:
        table.add_row(*map(Text, line))
    console.print(table)
