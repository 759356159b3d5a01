"""snas transfer"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from rich.text import Text

from snas.cli.options import Config, Format, Quiet, flags_of, with_config
from snas.cli.search import difference_line
from snas.cli.tables import check_format, print_groups, print_json, results_console
from snas.settings import TransferSettings, as_in_row

SHOWN = {
    **dict.fromkeys((*as_in_row(), "space", "dataset"), "the row's"),
    "lr": "the row's; the space's own where --space is given",
}


@flags_of(TransferSettings, shown=SHOWN)
def transfer(
    row: Annotated[int, typer.Argument(metavar="ID", help="Id of the leaderboard's row whose densities are carried.")],
    *,
    given: dict[str, Any],
    config: Config = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Carry a row's densities over to another data set, network or budget, and train them there beside ERK.

    What is not told is as the row has it. The same command again trains nothing twice.
    """
    check_format(format)
    values = with_config(given, config, TransferSettings)
    TransferSettings(**values)
    from snas.cli.progress import Terminal
    from snas.transfers import transfer as carry

    with Terminal(quiet=quiet) as listener, redirect_stdout(sys.stderr):
        result = carry(row, listener=listener, **values)
    if format == "json":
        print_json(result.as_dict())
        return
    print_groups(result.leaderboard())
    for one in result.differences:
        results_console().print(Text(difference_line(one)))
    results_console().print(Text(f"\n{result.carried.entry.source}\nsnas show {result.carried.id}    layer by layer"))
