"""snas train"""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from typing import Annotated

import typer

from snas.cli.options import Format, Quiet
from snas.cli.show import print_result
from snas.cli.tables import check_format


def train(
    row: Annotated[int, typer.Argument(metavar="ID", help="Id of a leaderboard's row.")],
    *,
    epochs: Annotated[int | None, typer.Option(help="Training length; another than the row's makes a new row.")] = None,
    final_seeds: Annotated[int | None, typer.Option(help="Seeds to have in all. Default: the row's, else 3.")] = None,
    space: Annotated[str | None, typer.Option(help="Code of a custom space, file.py:factory.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data file of a row with data of your own.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder with the data set's files.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of one operation.", show_default="all cores")] = None,
    kernel: Annotated[
        str, typer.Option(help="Linear layers that lack weights: dense, sparse (on the CPU); auto: the faster one.")
    ] = "auto",
    keep_weights: Annotated[
        bool,
        typer.Option("--keep-weights", help="Keep the weights; finished seeds without are trained again for them."),
    ] = False,
    registry: Annotated[str | None, typer.Option(help="Registry file; environment variable SNAS_REGISTRY.")] = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Retrain a recorded architecture longer, or on more seeds."""
    check_format(format)
    from snas import api
    from snas.cli.progress import Terminal

    started = time.perf_counter()
    with Terminal(quiet=quiet) as listener, redirect_stdout(sys.stderr):
        result = api.train(
            row,
            space=space,
            dataset=dataset,
            data_dir=data_dir,
            epochs=epochs,
            final_seeds=final_seeds,
            device=device,
            threads=threads,
            kernel=kernel,
            keep_weights=keep_weights,
            registry=registry,
            listener=listener,
        )
    print_result(result, format=format, wall_seconds=time.perf_counter() - started)
