"""snas search"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snas.cli.options import Config, Format, Quiet, flags_of, with_config
from snas.cli.provenance import epochs, read_found
from snas.cli.tables import check_format, print_groups, print_json, results_console, spread
from snas.compare import Comparison
from snas.exports.cells import MISSING, clean, p_text, percent
from snas.registry import Registry
from snas.results import SearchResult
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
    print_front(result)
    print_differences(result)
    best = result.best.row
    seeds = f"{best.seeds} final seed{'' if best.seeds == 1 else 's'}"
    unseen = (
        "which the search has not seen" if best.test_accuracy is not None else "on the validation data that chose it"
    )
    source = f"its figures come from its {seeds} alone, {unseen}\n" if best.seeds else ""
    with Registry(result.registry, create=False) as registry:
        found = read_found(registry, result.best.entry)
    origin = f"{found.describe()}\n" if found else ""
    results_console().print(
        Text(
            f"\nbest of {result.candidates} candidates ({epochs(result.epochs_trained)} in search): row {best.id}, "
            f"{best.kept_weights:,} of {best.total_weights:,} weights, density {best.density:.2%}\n"
            f"{origin}{source}"
            f"snas show {best.id}    its densities, layer by layer\n"
            f"snas leaderboard export --format md -o leaderboard.md"
        )
    )


def print_front(result: SearchResult) -> None:
    """With several objectives: the networks that no other outdoes, and how much they cover."""
    if not result.front:
        return
    console = results_console()
    aims = " and ".join(("accuracy", *result.objectives))
    console.print(Text(f"\nfront of {aims}, the most accurate first", style="bold"))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    several = len({found.row.space for found in result.front}) > 1  # shapes are searched
    for name in ("id", "density", "kept weights", "MFLOPs", "valid. %", "test %", *(["space"] if several else [])):
        table.add_column(name, justify="left" if name == "space" else "right", no_wrap=True)
    for row in (found.row for found in result.front):
        validation = MISSING if row.validation_accuracy is None else f"{100 * row.validation_accuracy:.2f}"
        test = spread(row.test_accuracy, row.test_std, row)
        cells = (str(row.id), percent(row.density), f"{row.kept_weights:,}", f"{row.flops / 1e6:.3g}", validation, test)
        table.add_row(*map(Text, (*cells, *([row.space] if several else []))))
    console.print(table)
    covered = ", ".join(f"{name} {volume:.3f}" for name, volume in result.hypervolumes.items() if name != "all")
    if covered:
        note = "hypervolume (accuracy above guessing, times decades saved), baselines at the same numbers of weights"
        console.print(Text(f"{note}: {covered}", style="dim"))


def print_differences(result: SearchResult) -> None:
    """The winner, or each network of the front, minus each baseline, in a line that says how sure it is."""
    if not result.differences:
        return
    console = results_console()
    split = "validation" if result.best.test_accuracy is None else "test"
    console.print(Text(f"\ndifferences in {split} accuracy, in points, seed by seed (95 % interval)", style="bold"))
    for one in result.differences:
        console.print(Text(difference_line(one, at=bool(result.front))))
    note = "two-sided paired t test and exact signed-rank test; p adjusted over the baselines of a network (Holm)"
    note += ", intervals are not"
    console.print(Text(note, style="dim"))


def difference_line(one: Comparison, *, at: bool = False) -> str:
    """A comparison in a line; `at` names the density.

    Example:
        >>> from snas.compare import compare_all
        >>> ours, snip = {0: 0.5, 1: 0.75, 2: 0.75}, {0: 0.25, 1: 0.25, 2: 0.5}
        >>> difference_line(compare_all(0.1, [("searched", ours, "snip", snip)])[0])
        'searched - snip: +33.33 (-2.52 to +69.19), 3 seeds, p 0.057 (t), 0.25 (ranks)'
    """
    found = one.difference
    where = f" at {percent(one.density)}" if at else ""
    mean = MISSING if found.mean is None else f"{100 * found.mean:+.2f}"
    known = found.low is not None and found.high is not None
    interval = f" ({100 * (found.low or 0):+.2f} to {100 * (found.high or 0):+.2f})" if known else ""
    tests = f"p {p_text(one.t_adjusted)} (t), {p_text(one.wilcoxon_adjusted)} (ranks)"
    return f"{one.method} - {clean(one.reference)}{where}: {mean}{interval}, {found.seeds} seeds, {tests}"
