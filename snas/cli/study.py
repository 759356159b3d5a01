"""snas study"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table as Shown
from rich.text import Text

from snas.cli.options import Config, Format, Quiet, flags_of, with_config
from snas.cli.tables import check_format, print_json, results_console
from snas.errors import SnasError
from snas.settings import StudySettings

if TYPE_CHECKING:
    from rich.console import Console

    from snas.exports.grids import Table
    from snas.studies.result import StudyResult

Output = Annotated[
    str | None,
    typer.Option("--output", "-o", help="Folder for tables (csv, json, md, html, tex) and pictures (png, svg)."),
]


@flags_of(StudySettings, leave_out=["study"])
def study(
    name: Annotated[str, typer.Argument(help="One of `snas list studies`.")],
    given: dict[str, Any],
    *,
    config: Config = None,
    format: Format = "table",
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Run a whole experiment of the sources: measure its grid, print its tables, draw its pictures. Resumable."""
    check_format(format)
    values = with_config(given, config, StudySettings)
    StudySettings(**values)
    from snas.cli.progress import StudyTerminal
    from snas.studies.command import run_study

    with StudyTerminal(quiet=quiet) as listener, redirect_stdout(sys.stderr):
        result = run_study(name, listener=listener, output=output, **values)
    if output is not None:
        sys.stderr.write(f"wrote tables and pictures of {len(result.points)} cells to {output}\n")
    if format == "json":
        print_json(result.as_dict())
    else:
        print_study(result)
    if not any(point.result for point in result.points):
        raise SnasError(f"not one cell could be measured; the first: {result.points[0].reason}")


def print_study(result: StudyResult) -> None:
    """Print the study's tables."""
    console = results_console()
    console.print(Text(f"\n{result.headline}", style="bold"))
    for name, text in result.header.items():
        console.print(Text(f"{name}: {text}", style="dim"), soft_wrap=True)
    for table in result.tables:
        print_table(console, table)


def print_table(console: Console, table: Table) -> None:
    """Print a table with its title and notes."""
    console.print(Text(f"\n{table.title}", style="bold"), soft_wrap=True)
    shown = Shown(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    shown.add_column(table.titles[0], overflow="fold")
    for title in table.titles[1:]:
        shown.add_column(Text(title), justify="right")
    for place, row in enumerate(table.rows):
        cells = enumerate(row)
        shown.add_row(*(Text(text, style="bold" if (place, column) in table.bold else "") for column, text in cells))
    console.print(shown)
    for note in table.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)
