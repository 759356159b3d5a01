"""snas registry check, backup, merge, studies, candidates"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snas.cli.options import Format
from snas.cli.tables import check_format, duration, print_json, results_console
from snas.exports import clean
from snas.settings import registry_path

File = Annotated[str | None, typer.Option("--registry", help="Registry file; environment variable SNAS_REGISTRY.")]
WORDS = {
    "studies": ("study", "studies"),
    "trainings": ("network", "networks"),
    "reports": ("epoch", "epochs"),
    "entries": ("row of the leaderboard", "rows of the leaderboard"),
    "environments": ("environment", "environments"),
    "measurements": ("measured cell", "measured cells"),
    "updated": ("known row", "known rows"),
}
STYLES = {"running": "green", "slow": "yellow", "dead": "red", "stopped": "yellow", "finished": "dim"}

app = typer.Typer(
    no_args_is_help=True, help="Look after a registry: check, back up, merge; its studies and candidates."
)


@app.command(epilog="Example: snas registry check snas.db")
def check(
    file: Annotated[
        str | None, typer.Argument(help="Registry file; default: --registry, SNAS_REGISTRY, snas.db.")
    ] = None,
    *,
    registry: File = None,
    format: Format = "table",
) -> None:
    """Check that a registry is whole, as SQLite and our own rules have it; exit code 1 where it is not."""
    check_format(format)
    from snas.registries.check import check as check_registry

    found = check_registry(registry_path(file or registry))
    if format == "json":
        print_json(found.as_dict())
    elif found.problems:
        for problem in found.problems:
            sys.stdout.write(f"{clean(problem)}\n")
        sys.stdout.write(
            f"{found.path}: {_count(len(found.problems), 'problem')}; keep the file, and go back to a backup "
            f"(move {found.path.name}-wal and {found.path.name}-shm away first)\n"
        )
    else:
        sys.stdout.write(f"{found.path}: no problem in {_told(found.counts)} (format {found.format})\n")
    if found.problems:
        raise typer.Exit(1)


@app.command(epilog="Example: snas registry backup -o monday.db")
def backup(
    output: Annotated[str, typer.Option("--output", "-o", help="File of the copy.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    registry: File = None,
    format: Format = "table",
) -> None:
    """Copy a registry to a file; searches may go on meanwhile."""
    check_format(format)
    from snas.registries.backup import back_up

    made = back_up(registry_path(registry), output, force=force)
    if format == "json":
        values = {
            "registry": str(made.registry),
            "backup": str(made.backup),
            "bytes": made.bytes,
            "studies": made.studies,
        }
        print_json(values)
    else:
        studies = _count(made.studies, "study", "studies")
        sys.stdout.write(f"{made.backup}: a copy of {made.registry} with {studies}, {made.bytes:,} bytes\n")


@app.command(epilog="Example: snas registry merge other.db --registry snas.db")
def merge(
    others: Annotated[
        list[str], typer.Argument(metavar="OTHER...", help="Registries to bring in; they stay as they are.")
    ],
    *,
    registry: File = None,
    format: Format = "table",
) -> None:
    """Bring all that other registries have into one, or nothing where they contradict it."""
    check_format(format)
    from snas.registries.merge import merge as merge_registries

    path = registry_path(registry)
    merged = merge_registries(path, others).as_dict()
    updated = merged.pop("updated")
    if format == "json":
        print_json({"registry": path, "others": others, "added": merged, "updated": updated})
    elif updated:
        brought = f"{_told({'updated': updated})} brought up to date"
        sys.stdout.write(f"{path}: {_told(merged)} added, {brought}\n")
    elif any(merged.values()):
        sys.stdout.write(f"{path}: {_told(merged)} added\n")
    else:
        sys.stdout.write(f"{path}: nothing new; it has all of this already\n")


@app.command(epilog="Example: snas registry studies")
def studies(*, registry: File = None, format: Format = "table") -> None:
    """List the studies: running, slow, dead (its process was killed), stopped or finished."""
    check_format(format)
    from snas.registries.overview import overviews
    from snas.registry import Registry

    with Registry(registry_path(registry), create=False) as opened:
        found = overviews(opened)
    if format == "json":
        print_json({"studies": [overview.as_dict() for overview in found]})
        return
    table = _table("study", "state", "candidates", "epochs", "best %", "last sign", "where", "why", right=(2, 3, 4))
    for overview in found:
        pulse, counts = overview.pulse, overview.counts
        life = str(pulse.life)
        table.add_row(
            Text(clean(overview.study.name)),
            Text(life, style=STYLES[life]),
            f"{counts.total()} of {overview.study.samples}",
            str(overview.epochs),
            _percent(overview.best),
            _ago(pulse.seen),
            Text(f"{clean(pulse.host)}, {pulse.pid}" if pulse.host else "-"),
            Text(clean(pulse.reason or "")),
        )
    results_console().print(table)


@app.command(epilog="Example: snas registry candidates my-study")
def candidates(
    study: Annotated[str, typer.Argument(help="Name of a study; snas registry studies lists them.")],
    *,
    registry: File = None,
    format: Format = "table",
) -> None:
    """List a study's candidates."""
    check_format(format)
    from snas.registries.overview import candidate_as_dict, candidates_of
    from snas.registry import Registry

    with Registry(registry_path(registry), create=False) as opened:
        rows = [candidate_as_dict(record) for record in candidates_of(opened, study)]
    if format == "json":
        print_json({"study": study, "candidates": rows})
        return
    table = _table("candidate", "status", "epochs", "valid. %", "kept weights", "origin", "rule", right=(0, 2, 3, 4))
    for row in rows:
        again = f"{row['number']}, fresh seed {row['fresh_seed']}" if row["fresh_seed"] else str(row["number"])
        cells = (again, clean(row["reason"] or row["status"]), str(row["epochs"]), _percent(row["validation_accuracy"]))
        more = (f"{row['kept_weights']:,}", clean(row["origin"] or "-"), clean(row["rule"] or "-"))
        table.add_row(*map(Text, (*cells, *more)))
    results_console().print(table)


def _table(*names: str, right: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place in right else "left")
    return table


def _percent(value: Any) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _ago(time: str | None) -> str:
    """How long ago a recorded time is."""
    if time is None:
        return "-"
    return f"{duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()))} ago"


def _told(counts: Mapping[str, int]) -> str:
    """How many rows of which tables, in words; nothing of those that have none."""
    return ", ".join(_count(number, *WORDS[table]) for table, number in counts.items() if number) or "nothing"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
