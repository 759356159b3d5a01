"""snas analyze"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snas.cli.options import Format
from snas.cli.tables import check_format, print_json, results_console
from snas.settings import registry_path

app = typer.Typer(
    no_args_is_help=True,
    help="Learn from what the registry has: which signals, and which gradients, tell a good network.",
)


@app.callback()
def analyze() -> None:
    """Learn from what the registry has: which signals tell a good network."""


@app.command(
    "signals",
    epilog="Signals before training: synflow, gf1, gf2, egf1, egf2, paths, width, effective. Of learning curves, at "
    "each rung: loss-sum, train-loss, validation-loss, validation-accuracy. Kendall's tau is 1 where a signal and the "
    "score always rise together, -1 where one always falls.",
)
def signals(
    *,
    study: Annotated[str | None, typer.Option(help="Only this study.")] = None,
    space: Annotated[str | None, typer.Option(help="Only this search space.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    registry: Annotated[str | None, typer.Option(help="Registry file; or SNAS_REGISTRY.")] = None,
    format: Format = "table",
) -> None:
    """Correlate signals that were known early with the score of each candidate."""
    check_format(format)
    from snas.analysis.signals import analyze_signals

    groups = analyze_signals(registry, study=study, space=space, dataset=dataset)
    if format == "json":
        print_json({"registry": registry_path(registry), "groups": [_as_dict(group) for group in groups]})
        return
    console = results_console()
    for group in groups:
        kind = group.kind
        console.print(Text(f"\n{kind.space} on {kind.dataset}, masks by {kind.rule}", style="bold"))
        budget = f"{kind.budget}, " if kind.budget else ""
        several = f"{len(group.studies)} studies" if len(group.studies) > 1 else f"study {group.studies[0]}"
        counts = f"{group.candidates} candidates, {group.finished} trained fully"
        console.print(Text(f"{budget}{kind.epochs} epochs, {several}: {counts}", style="dim"), soft_wrap=True)
        console.print(_table(group))
        for note in group.notes:
            console.print(Text(f"note: {note}", style="dim"), soft_wrap=True)


@app.command(
    "gradient-flow",
    epilog="Networks are recorded with --record-gradient-flow; those of a study: snas study gradient-flow.",
)
def gradient_flow(
    *,
    space: Annotated[str | None, typer.Option(help="Only this search space.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Norms with and without masked weights.")] = False,
    registry: Annotated[str | None, typer.Option(help="Registry file; or SNAS_REGISTRY.")] = None,
    format: Format = "table",
) -> None:
    """Correlate gradient flow along training with test loss and accuracy, for sparse and dense networks."""
    check_format(format)
    from snas.analysis.gradient_flow import analyze_gradient_flow, correlate_flow, correlation_table
    from snas.cli.study import print_table

    observations = analyze_gradient_flow(registry, space=space, dataset=dataset)
    if format == "json":
        found = [asdict(one) for one in correlate_flow(observations)]
        print_json({"registry": registry_path(registry), "correlations": found})
    else:
        print_table(results_console(), correlation_table(observations, every=every))


def _table(group: Any) -> Table:
    """A row for each signal, with tau, p and n for each length of training."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("signal", no_wrap=True)
    for length in group.lengths:
        what = "final score" if length == group.kind.epochs else f"score at {length}"
        for name in (f"tau, {what}", "p", "n"):
            table.add_column(name, justify="right", no_wrap=True)
    found = {(item.signal, item.epochs): item for item in group.correlations}
    for signal in dict.fromkeys(item.signal for item in group.correlations):
        cells = [signal]
        for length in group.lengths:
            item = found.get((signal, length))
            if item is None or item.tau is None:
                cells += ["-", "-", "-" if item is None else str(item.n)]
            else:
                cells += [f"{item.tau:+.2f}", _probability(item.p), str(item.n)]
        table.add_row(*map(Text, cells))
    return table


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _as_dict(group: Any) -> dict[str, Any]:
    values = asdict(group)
    kind: dict[str, Any] = values.pop("kind")
    del kind["key"]
    return kind | values
