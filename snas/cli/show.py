"""snas show"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snas.cli.options import Format
from snas.cli.provenance import Found, epochs, provenance, read_found
from snas.cli.tables import check_format, duration, label, print_json, results_console, spread
from snas.exports import Row, clean
from snas.exports.cells import told
from snas.registry import Entry, Registry, Study, TrainingRecord
from snas.results import Result, row_as_dict
from snas.settings import registry_path

BAR = 40
EIGHTHS = " ▏▎▍▌▋▊▉█"


def show(
    row: Annotated[int, typer.Argument(metavar="ID", help="Id of a leaderboard's row.")],
    *,
    registry: Annotated[str | None, typer.Option(help="Registry file; environment variable SNAS_REGISTRY.")] = None,
    format: Format = "table",
) -> None:
    """Tell all of one row: its layers' densities, its seeds, and where it came from."""
    check_format(format)
    from snas.ranking import make_row

    with Registry(registry_path(registry), create=False) as opened:
        entry = opened.find_entry(row)
        runs = opened.runs(entry)
        summary = make_row(opened, entry)
        study = opened.study_of(entry)
        found = read_found(opened, entry)
        environments = opened.environments(entry) or ([] if entry.cited else [entry.environment])
    if format == "json":
        print_json(_as_dict(summary, entry, runs, study, found, environments))
        return
    if summary.cited:
        _print_cited(summary, entry)
        return
    console = results_console()
    print_row(summary)
    if runs:
        console.print(_seeds_table(runs))
    for title, values in provenance(entry, study, found, environments):
        console.print(Text.assemble((f"{title:<12}", "bold"), values), soft_wrap=True)


def print_result(result: Result, *, format: str, wall_seconds: float) -> None:
    """Print one trained row."""
    if format == "json":
        print_json({**result.as_dict(), "wall_seconds": wall_seconds})
        return
    print_row(result.row)
    for reason in result.reasons:
        results_console().print(Text(reason), soft_wrap=True)


def print_row(row: Row) -> None:
    """Print a row's figures and its densities as bars."""
    console = results_console()
    console.print(Text(f"row {row.id}: {label(row)}, {row.space} on {row.dataset} ({row.name})", style="bold"))
    console.print(
        f"{row.kept_weights:,} of {row.total_weights:,} weights, density {row.density:.3%}, "
        f"{row.compression:.2f}x smaller, {row.flops / 1e6:.3g} MFLOPs an example"
    )
    console.print(
        f"test % {spread(row.test_accuracy, row.test_std, row)}, "
        f"validation % {spread(row.validation_accuracy, row.validation_std, row)}; "
        f"{epochs(row.epochs)} each, {epochs(row.epochs_spent)} and {duration(row.seconds)} spent in all"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer")
    table.add_column("kept", justify="right")
    table.add_column("of", justify="right")
    table.add_column("density", justify="right")
    table.add_column("", min_width=BAR)
    for name, kept, total in row.layers:
        density = kept / total
        table.add_row(Text(name), f"{kept:,}", f"{total:,}", f"{density:.2%}", Text(bar(density), style="cyan"))
    console.print(table)


def _print_cited(row: Row, entry: Entry) -> None:
    """Print a published figure and its source; what the source does not tell is left out."""
    console = results_console()
    console.print(Text(f"row {row.id}: {label(row)}, {row.space} on {row.dataset} (published figure)", style="bold"))
    total = f" of {row.total_weights:,}" if row.total_weights else ""
    weights = f"{row.kept_weights:,}{total} weights, " if row.kept_weights else ""
    console.print(f"{weights}density {row.density:.3%}, {row.compression:.2f}x smaller")
    length = f"; {epochs(row.epochs)}" if row.epochs else ""
    console.print(f"test % {spread(row.test_accuracy, row.test_std, row)}{length}")
    for title, value in (("source", clean(entry.source)), ("recorded", entry.created)):
        console.print(Text.assemble((f"{title:<12}", "bold"), value), soft_wrap=True)


def bar(fraction: float) -> str:
    """A bar for a fraction in [0, 1], drawn in eighths of a character; anything above zero shows.

    Example:
        >>> len(bar(1.0)), bar(0.0) == "", len(bar(0.5))
        (40, True, 20)
    """
    eighths = round(fraction * BAR * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    full, rest = divmod(eighths, 8)
    return "█" * full + (EIGHTHS[rest] if rest else "")


def _seeds_table(runs: Sequence[TrainingRecord]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("seed", "status", "epochs", "train loss", "validation", "test", "mask checksum"):
        table.add_column(name, justify="left" if name in ("status", "mask checksum") else "right")
    for run in runs:
        last = run.reports[-1] if run.reports else None
        table.add_row(
            str(run.number),
            Text(run.reason or str(run.status)),
            str(run.epochs),
            f"{last.train_loss:.4f}" if last else "-",
            f"{last.validation_accuracy:.2%}" if last else "-",
            "-" if run.test_accuracy is None else f"{run.test_accuracy:.2%}",
            (run.mask_checksum or "-")[:16],
        )
    return table


def _as_dict(
    row: Row,
    entry: Entry,
    runs: Sequence[TrainingRecord],
    study: Study | None,
    found: Found | None,
    environments: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    return {
        **row_as_dict(row),
        "name": row.name,
        "kind": row.kind,
        "source": entry.source,
        **{name: told(row, getattr(row, name)) for name in ("kept_weights", "total_weights", "flops")},
        **{name: told(row, getattr(row, name)) for name in ("epochs_spent", "seconds")},
        "space": dict(entry.space),
        "dataset": dict(entry.dataset),
        "rule": dict(entry.rule),
        "strategy": entry.strategy,
        "mask_rule": entry.mask_rule,
        "seed": entry.seed,
        "environments": [dict(environment) for environment in environments],
        "candidate": entry.candidate,
        "search": None
        if found is None
        else {"epochs": entry.search_epochs, "seconds": entry.search_seconds, **found.as_dict()},
        "study": None if study is None else {"name": study.name, "samples": study.samples, **study.identity},
        "created": entry.created,
        "seeds": [
            {
                "number": run.number,
                "seed": run.seed,
                "status": str(run.status),
                "reason": run.reason,
                "epochs": run.epochs,
                "mask_checksum": run.mask_checksum,
                "validation_accuracy": run.validation_accuracy,
                "test_accuracy": run.test_accuracy,
            }
            for run in runs
        ],
    }
