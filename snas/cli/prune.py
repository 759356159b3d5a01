"""snas prune"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

from snas.cli.options import Config, Format, Quiet, flags_of, with_config
from snas.cli.show import print_result
from snas.cli.tables import check_format
from snas.settings import PruneSettings


@flags_of(PruneSettings)
def prune(given: dict[str, Any], *, config: Config = None, format: Format = "table", quiet: Quiet = False) -> None:
    """Train one baseline: a network pruned by a method before, during or after training."""
    check_format(format)
    values = with_config(given, config, PruneSettings)
    PruneSettings(**values)
    import time

    from snas import api
    from snas.cli.progress import Terminal

    started = time.perf_counter()
    with Terminal(quiet=quiet) as listener, redirect_stdout(sys.stderr):
        result = api.prune(listener=listener, **values)
    print_result(result, format=format, wall_seconds=time.perf_counter() - started)
