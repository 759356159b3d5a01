"""snas search"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

from rich.text import Text

from snas.cli.options import Config, Format, Quiet, flags_of, with_config
from snas.cli.tables import check_format, print_groups, print_json, results_console
from snas.settings import SearchSettings


@flags_of(SearchSettings)
def search(given: dict[str, Any], *, config: Config = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Search for the densities of a sparse network, then train the best one beside the baselines.

    The same command again resumes an interrupted search and trains nothing twice.
    """
    check_format(format)
    values = with_config(given, config, SearchSettings)
    settings = SearchSettings(**values)
    from snas import api
    from snas.cli.progress import Terminal, planned_epochs

    with Terminal(quiet=quiet, planned=planned_epochs(settings)) as listener, redirect_stdout(sys.stderr):
        result = api.search(listener=listener, **values)
    if format == "json":
        print_json(result.as_dict())
        return
    print_groups(result.leaderboard())
    best = result.best.row
    results_console().print(
        Text(
            f"\nbest of {result.candidates} candidates ({result.epochs_trained} epochs in search): row {best.id}, "
            f"{best.kept_weights:,} of {best.total_weights:,} weights, density {best.density:.2%}\n"
            f"snas show {best.id}    its densities, layer by layer\n"
            f"snas leaderboard export --format md -o leaderboard.md"
        )
    )
