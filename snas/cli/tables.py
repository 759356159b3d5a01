"""Results as tables on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from snas.errors import InputError
from snas.exports import Group, Row


def check_format(name: str) -> None:
    """Raise InputError unless the output format is known."""
    if name not in ("table", "json"):
        raise InputError(f"format is {name!r}; choices: table, json")


def print_json(value: Any) -> None:
    """Print exactly one JSON object."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def print_groups(groups: Sequence[Group]) -> None:
    """Print rankings, a table each."""
    console = results_console()
    if not groups:
        console.print("nothing recorded yet; snas search or snas prune makes rows", markup=False)
    for group in groups:
        names = {row.name for row in group.rows}
        study = f", study {names.pop()}" if len(names) == 1 else ""
        console.print(Text(f"\n{group.space} on {group.dataset}{study}", style="bold"))
        console.print(Text(group.subtitle, style="dim"))
        console.print(_table(group.rows, with_names=not study))


def results_console() -> Console:
    """Standard output; wide enough for every column where it is a file or a pipe."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=160)


def spread(mean: float | None, std: float | None, row: Row) -> str:
    """A mean accuracy in percent with its spread and number of seeds; "2 of 3" where a seed was refused or failed."""
    seeds = f"{row.seeds} of {row.seeds + row.failed}" if row.failed else str(row.seeds)
    if mean is None:
        return f"- (n={seeds})" if row.failed else "-"
    if std is None:
        return f"{mean:.2%} (n={seeds})" if row.seeds else f"{mean:.2%}"
    return f"{100 * mean:.2f} ± {100 * std:.2f} % (n={seeds})"


def _table(rows: Sequence[Row], *, with_names: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("rank", "id", "method", "study", "kept weights", "density", "compression", "test accuracy",
                 "validation", "MFLOPs", "epochs spent", "seconds"):  # fmt: skip
        if name != "study" or with_names:
            table.add_column(name, justify="left" if name in ("method", "study") else "right", overflow="fold")
    for row in rows:
        cells = (
            "-" if row.rank is None else str(row.rank),
            str(row.id),
            label(row),
            *((row.name,) if with_names else ()),
            f"{row.kept_weights:,}",
            f"{row.density:.2%}",
            f"{row.compression:.2f}x",
            spread(row.test_accuracy, row.test_std, row),
            "-" if row.validation_accuracy is None else f"{row.validation_accuracy:.2%}",
            f"{row.flops / 1e6:.3g}",
            f"{row.epochs_spent:,}",
            f"{row.seconds:.0f}",
        )
        table.add_row(*map(Text, cells), style="bold" if row.kind == "searched" else None)
    return table


def label(row: Row) -> str:
    """What the row is, in a few words."""
    return f"searched ({row.strategy}, {row.mask_rule})" if row.kind == "searched" else row.method
