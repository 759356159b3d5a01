"""snas leaderboard"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from snas.cli.tables import check_format, print_groups
from snas.errors import InputError
from snas.exports import FORMATS, clean, export, write_export
from snas.ranking import Cited, Filter, contenders, rank
from snas.records import require_whole
from snas.registry import Entry, Registry
from snas.report.front import DEFAULT, read_pareto
from snas.report.plot import draw_fronts, require_plot
from snas.settings import registry_path

app = typer.Typer(invoke_without_command=True, help="Rank what the registry has; export it.")

RegistryOption = Annotated[str | None, typer.Option("--registry", help="Registry file; or SNAS_REGISTRY.")]
SpaceOption = Annotated[str | None, typer.Option("--space", help="Only this search space.")]
DatasetOption = Annotated[str | None, typer.Option("--dataset", help="Only this data set.")]
StudyOption = Annotated[str | None, typer.Option("--study", help="Only this study or run.")]
DensityOption = Annotated[float | None, typer.Option("--max-density", help="Only networks of at most this density.")]
WeightsOption = Annotated[int | None, typer.Option("--max-weights", help="Only networks of at most so many weights.")]
SupersededOption = Annotated[bool, typer.Option("--superseded", help="Also earlier winners of studies that grew.")]
RankCitedOption = Annotated[bool, typer.Option("--rank-cited", help="Rank published figures among the measured rows.")]
NoCitedOption = Annotated[bool, typer.Option("--no-cited", help="Leave published figures out.")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="Only this training length.")]
ParetoOption = Annotated[
    str | None,
    typer.Option(
        "--pareto",
        help="Only rows that no other outdoes in accuracy and cost: accuracy,kept_weights; or flops.",
    ),
]


def _place(entry: Entry) -> tuple[str, str]:
    return str(require_whole(entry).space["name"]), str(entry.dataset["name"])


def _cited(*, ranked: bool, hidden: bool) -> Cited | None:
    """What the two flags ask for; None where neither is given."""
    if ranked and hidden:
        raise InputError("--rank-cited and --no-cited contradict each other; give one of them")
    return "ranked" if ranked else "hidden" if hidden else None


@app.callback()
def leaderboard(
    context: typer.Context,
    *,
    registry: RegistryOption = None,
    space: SpaceOption = None,
    dataset: DatasetOption = None,
    study: StudyOption = None,
    max_density: DensityOption = None,
    max_weights: WeightsOption = None,
    epochs: EpochsOption = None,
    superseded: SupersededOption = False,
    rank_cited: RankCitedOption = False,
    no_cited: NoCitedOption = False,
    pareto: ParetoOption = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", help="Draw accuracy against cost into FILE.png, .svg or .pdf; all rows, and the front."),
    ] = None,
    format: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Rank what the registry has: a table for each space, data set and training length."""
    cited = _cited(ranked=rank_cited, hidden=no_cited) or "unranked"
    chosen = Filter(space, dataset, study, max_density, max_weights, epochs, superseded, cited, pareto)
    context.obj = (registry, chosen)
    if context.invoked_subcommand:
        if plot is not None:
            raise InputError("--plot and export are two commands; give one after the other")
        return
    check_format(format)
    picture = require_plot(plot) if plot is not None else None
    if picture is not None:
        chosen = replace(chosen, pareto=pareto or DEFAULT)
    with Registry(registry_path(registry), create=False) as opened:
        groups = rank(opened, chosen)
        if picture is not None:
            draw_fronts(contenders(opened, chosen), read_pareto(chosen.pareto or DEFAULT), picture)
        found = [f"{name} on {data}" for name, data in sorted({_place(entry) for entry in opened.entries()})]
    if not groups and format == "table":
        there = (
            f"no row meets all filters; there is: {', '.join(found)}"
            if found
            else "nothing recorded yet: snas search makes rows"
        )
        sys.stderr.write(f"snas: {clean(there)}\n")
    if picture is not None:
        sys.stderr.write(f"wrote {clean(str(picture))}\n")
    if format == "json":
        sys.stdout.write(export(groups, "json"))
    else:
        print_groups(groups)


@app.command("export")
def export_command(
    context: typer.Context,
    *,
    format: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "csv",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File to write; default: standard output.")
    ] = None,
    registry: RegistryOption = None,
    space: SpaceOption = None,
    dataset: DatasetOption = None,
    study: StudyOption = None,
    max_density: DensityOption = None,
    max_weights: WeightsOption = None,
    epochs: EpochsOption = None,
    superseded: SupersededOption = False,
    rank_cited: RankCitedOption = False,
    no_cited: NoCitedOption = False,
    pareto: ParetoOption = None,
) -> None:
    """Write the leaderboard as csv, json, md, html or latex. Cells are safe wherever they are pasted."""
    outer_registry, outer = context.obj
    chosen = Filter(
        space or outer.space,
        dataset or outer.dataset,
        study or outer.study,
        outer.max_density if max_density is None else max_density,
        outer.max_weights if max_weights is None else max_weights,
        outer.epochs if epochs is None else epochs,
        superseded or outer.superseded,
        _cited(ranked=rank_cited, hidden=no_cited) or outer.cited,
        pareto or outer.pareto,
    )
    if format not in FORMATS:
        raise InputError(f"format is {format!r}; choices: {', '.join(FORMATS)}")
    with Registry(registry_path(registry or outer_registry), create=False) as opened:
        groups = rank(opened, chosen)
        measured = [entry for entry in opened.entries() if chosen.admits(entry) and not entry.cited]
    environments = {str(entry.environment.get("device_name")) for entry in measured}
    versions = {f"snas {entry.environment.get('snas')}, torch {entry.environment.get('torch')}" for entry in measured}
    header = {
        "hardware": "; ".join(sorted(environments)) or "-",
        "versions": "; ".join(sorted(versions)) or "-",
    }
    text = export(groups, format, header=header)  # type: ignore[arg-type]
    if output is None or output == "-":
        sys.stdout.write(text)
    else:
        write_export(text, Path(output))
        rows = sum(len(group.rows) for group in groups)
        sys.stderr.write(f"wrote {rows} rows to {clean(output)}\n")
