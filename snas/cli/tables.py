"""Results as tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from snas.errors import InputError
from snas.exports import Group, Row, clean
from snas.exports.cells import MISSING, percent
from snas.exports.data import strict_json


def check_format(name: str) -> None:
    """Raise InputError unless the output format is known."""
    if name not in ("table", "json"):
        raise InputError(f"format is {name!r}; choices: table, json")


def print_json(value: Any) -> None:
    """Print exactly one JSON object."""
    sys.stdout.write(strict_json(value))


def print_groups(groups: Sequence[Group]) -> None:
    """Print rankings, a table each."""
    console = results_console()
    for group in groups:
        names = {row.name for row in group.rows if not row.cited}
        study = f", study {names.pop()}" if len(names) == 1 else ""
        console.print(Text(f"\n{group.space} on {group.dataset}{study}", style="bold"))
        console.print(Text(group.subtitle, style="dim"))
        table, hidden = _table(group.rows, with_names=len(names) > 1, width=console.width)
        console.print(table)
        for number, source in enumerate(_sources(group.rows), start=1):
            console.print(Text(f"[{number}] {clean(source)}", style="dim"), soft_wrap=True)
        if hidden:
            console.print(Text(f"not shown in {console.width} columns: {', '.join(hidden)}", style="dim"))


class SafeConsole(Console):
    """A terminal that shows texts and obeys none: names come from people and files, and may hold control sequences."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is printed, their texts without control characters; styles are the program's own."""
        for segment in super().render(renderable, options):
            lines = "\n".join(map(clean, segment.text.split("\n")))
            yield segment if segment.control or lines == segment.text else Segment(lines, segment.style)


class ResultsConsole(SafeConsole):
    """Writes results to standard output."""

    def on_broken_pipe(self) -> None:
        """The reader (head, less) has seen enough: `main` ends quietly."""
        raise BrokenPipeError


def results_console() -> Console:
    """Standard output; wide enough for every column where it is a file or a pipe."""
    return ResultsConsole(highlight=False) if sys.stdout.isatty() else ResultsConsole(highlight=False, width=160)


def spread(mean: float | None, std: float | None, row: Row) -> str:
    """A mean accuracy in percent with its spread and number of seeds; "2 of 3" where a seed was refused or failed."""
    seeds = f"{row.seeds} of {row.seeds + row.failed}" if row.failed else str(row.seeds)
    if mean is None:
        return f"- (n={seeds})" if row.failed else "-"
    deviation = "" if std is None else f" ± {100 * std:.2f}"
    return f"{100 * mean:.2f}{deviation} (n={seeds})" if row.seeds else f"{100 * mean:.2f}"


# Name -> justification and, where the terminal is narrow, the order in which columns are left out (0: never).
COLUMNS: dict[str, tuple[Literal["left", "right"], int]] = {
    "rank": ("right", 0),
    "id": ("right", 0),
    "method": ("left", 0),
    "space": ("left", 9),
    "study": ("left", 7),
    "training": ("left", 8),
    "kept weights": ("right", 6),
    "density": ("right", 0),
    "smaller": ("right", 4),
    "test %": ("right", 0),
    "valid. %": ("right", 5),
    "MFLOPs": ("right", 2),
    "epochs": ("right", 3),
    "time": ("right", 1),
    "source": ("left", 0),
}


def _sources(rows: Sequence[Row]) -> list[str]:
    """The rows' sources, each once, in the order of their appearance."""
    return list(dict.fromkeys(row.source for row in rows if row.source))


def _table(rows: Sequence[Row], *, with_names: bool, width: int) -> tuple[Table, list[str]]:
    """A table that fits `width`, and the columns that did not. Columns that say the same in every row are left out."""
    sources = _sources(rows)
    cells = [_cells(row, sources) for row in rows]
    rules = {_common(row.training_rule) for row in rows if not row.cited}
    spaces = {row.space for row in rows}
    needless = {"study": not with_names, "space": len(spaces) <= 1, "training": len(rules) <= 1, "source": not sources}
    shown = [name for name in COLUMNS if not needless.get(name)]

    def needed(names: Sequence[str]) -> int:
        # Beside its text a column takes a blank on either side and a divider.
        return sum(3 + max(len(name), *(len(row[name]) for row in cells)) for name in names) - 1

    hidden = []
    for name in sorted((name for name in shown if COLUMNS[name][1]), key=lambda name: COLUMNS[name][1]):
        if needed([column for column in shown if column not in hidden]) <= width:
            break
        hidden.append(name)
    shown = [name for name in shown if name not in hidden]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        table.add_column(name, justify=COLUMNS[name][0], no_wrap=True)
    for row, values in zip(rows, cells, strict=True):
        style = {"searched": "bold", "cited": "dim"}.get(row.kind)
        table.add_row(*(Text(values[name]) for name in shown), style=style)
    return table, hidden


def _cells(row: Row, sources: Sequence[str]) -> dict[str, str]:
    values = {
        "rank": "-" if row.rank is None else str(row.rank),
        "id": str(row.id),
        "method": label(row),
        "space": row.space,
        "study": row.name,
        "training": _common(row.training_rule),
        "kept weights": f"{row.kept_weights:,}",
        "density": percent(row.density),
        "smaller": f"{row.compression:.2f}x",
        "test %": spread(row.test_accuracy, row.test_std, row),
        "valid. %": "-" if row.validation_accuracy is None else f"{100 * row.validation_accuracy:.2f}",
        "MFLOPs": f"{row.flops / 1e6:.3g}",
        "epochs": f"{row.epochs_spent:,}",
        "time": duration(row.seconds),
        "source": f"[{sources.index(row.source) + 1}]" if row.source else "",
    }
    if row.cited:  # nothing of it was done here, and a number that its source does not tell is 0
        values |= dict.fromkeys(("study", "training", "valid. %", "MFLOPs", "epochs", "time"), MISSING)
        values["kept weights"] = f"{row.kept_weights:,}" if row.kept_weights else MISSING
    return values


def _common(training_rule: str) -> str:
    """A training rule without the initial weights, which differ between methods."""
    return training_rule.partition(", init ")[0]


def duration(seconds: float) -> str:
    """Seconds for people: "42 s", "3.5 min", "1.2 h".

    Example:
        >>> duration(41.6), duration(210), duration(4400)
        ('42 s', '3.5 min', '1.2 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def label(row: Row) -> str:
    """What the row is, in a few words."""
    if row.kind == "searched":
        what = row.method.removesuffix(" (superseded)")  # searched, or transferred
        return f"{what} ({row.strategy}, {row.mask_rule})" + (" (superseded)" if row.superseded else "")
    return f"{row.method} (cited)" if row.cited else row.method
