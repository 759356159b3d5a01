"""snas cite"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snas.citations import HEADER, Citation, as_entry, builtin_citations, read_citations
from snas.cli.options import Format
from snas.cli.tables import check_format, print_json, results_console
from snas.exports.cells import percent
from snas.registry import Registry
from snas.settings import registry_path

FILE = f"CSV file of published figures: {','.join(HEADER)}; accuracy, std and density are fractions."


def cite(
    file: Annotated[str | None, typer.Argument(metavar="[FILE.csv]", help=FILE)] = None,
    *,
    builtin: Annotated[bool, typer.Option("--builtin", help="The published figures that come with snas.")] = False,
    registry: Annotated[str | None, typer.Option(help="Registry file; environment variable SNAS_REGISTRY.")] = None,
    format: Format = "table",
) -> None:
    """Enter published figures into the leaderboard, with their sources; alone it lists those that come with snas."""
    check_format(format)
    if file is None and not builtin:
        _list(builtin_citations(), format)
        return
    citations = (builtin_citations() if builtin else ()) + (read_citations(file) if file is not None else ())
    with Registry(registry_path(registry)) as opened:
        added, changed = opened.cite([as_entry(citation) for citation in citations])
        path = str(opened.path)
    known = len(citations) - added - changed
    if format == "json":
        print_json({"registry": path, "added": added, "changed": changed, "known": known})
    else:
        sys.stdout.write(
            f"{path}: of {len(citations)} published figure{'' if len(citations) == 1 else 's'} {added} added, "
            f"{changed} corrected, {known} known already; snas leaderboard shows them\n"
        )


def _list(citations: Sequence[Citation], format: str) -> None:
    """Print figures without entering them."""
    if format == "json":
        print_json({"header": list(HEADER), "builtin": [asdict(citation) for citation in citations]})
        return
    sources = list(dict.fromkeys(citation.source for citation in citations))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("space", "data set", "method", "density", "test %", "source"):
        table.add_column(name, justify="right" if name in ("density", "test %") else "left")
    for citation in citations:
        density, accuracy = percent(citation.density), f"{100 * citation.accuracy:.2f}"
        source = f"[{sources.index(citation.source) + 1}]"
        cells = (citation.space, citation.dataset, citation.method, density, accuracy, source)
        table.add_row(*map(Text, cells))
    console = results_console()
    console.print(table)
    for number, source in enumerate(sources, start=1):
        console.print(Text(f"[{number}] {source}", style="dim"), soft_wrap=True)
    console.print(
        Text(
            f"\nEnter them with snas cite --builtin, your own with snas cite FILE.csv; its header: {','.join(HEADER)}"
        ),
        soft_wrap=True,
    )
