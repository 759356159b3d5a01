"""A sweep's tables as csv, json, md, html or tex text. Names are taken for hostile, as in `snas.exports`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snas.errors import InputError
from snas.exports.data import escape_spreadsheet
from snas.exports.latex import escape_latex
from snas.exports.markdown import escape_markdown
from snas.exports.page import escape_html, html_page
from snas.sweeps.result import Cell, SweepResult
from snas.sweeps.tables import (
    INDISTINCT,
    comparison_grid,
    comparison_notes,
    comparison_title,
    grid,
    headline,
    notes,
    subtitle,
)

SUFFIXES = (".md", ".tex", ".csv", ".json", ".html")


def require_suffix(path: Path) -> None:
    """Raise InputError unless the name's ending says in which format the table is to be written, and its folder is."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"output is {str(path)!r}; expected a file name that ends in one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {str(path)!r}: no folder {str(path.parent)!r}; make it first")


def sweep_text(result: SweepResult, suffix: str, *, error: bool = False) -> str:
    """The whole file.

    Args:
        result: of the sweep.
        suffix: one of `SUFFIXES`. csv has a line for each cell, json all that there is; the others have the tables.
        error: error in place of accuracy, in md, tex and html.

    Raises:
        InputError: for another suffix.
    """
    writers: dict[str, Callable[[], str]] = {
        ".md": lambda: _markdown(result, error=error),
        ".tex": lambda: _latex(result, error=error),
        ".csv": lambda: _csv(result),
        ".json": lambda: json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n",
        ".html": lambda: _html(result, error=error),
    }
    if suffix not in writers:
        raise InputError(f"suffix is {suffix!r}; choices: {', '.join(SUFFIXES)}")
    return writers[suffix]()


def _sections(result: SweepResult, *, error: bool) -> list[tuple[str, list[list[str]], list[str]]]:
    """Title, grid and notes of each table."""
    compared = [(density, comparison_grid(result, density)) for density in result.densities]
    shown = [(comparison_title(result, density), lines) for density, lines in compared if lines]
    last = len(shown) - 1
    return [
        (subtitle(result, error=error), grid(result, error=error), notes(result)),
        *(
            (title, lines, comparison_notes(result) if number == last else [])
            for number, (title, lines) in enumerate(shown)
        ),
    ]


def _header(result: SweepResult) -> dict[str, str]:
    """Where the figures come from."""
    devices = sorted({str(one.get("device_name")) for one in result.environments})
    versions = sorted({f"snas {one.get('snas')}, torch {one.get('torch')}" for one in result.environments})
    return {"hardware": "; ".join(devices) or "-", "versions": "; ".join(versions) or "-"}


def _markdown(result: SweepResult, *, error: bool) -> str:
    lines = [f"# {escape_markdown(headline(result))}", ""]
    lines += [f"{escape_markdown(name)}: {escape_markdown(text)}  " for name, text in _header(result).items()]
    for title, table, below in _sections(result, error=error):
        rules = ["--:"] * (len(table[0]) - 1)
        lines += ["", escape_markdown(title), "", _markdown_line(table[0]), f"| {' | '.join([':--', *rules])} |"]
        lines += map(_markdown_line, table[1:])
        lines += [""] + [f"{escape_markdown(note)}  " for note in below] if below else []
    return "\n".join(lines) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _latex(result: SweepResult, *, error: bool) -> str:
    lines = [
        r"% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}; use LuaLaTeX for names beyond Latin letters.",
        f"% {_tex(headline(result))}",
        *(f"% {_tex(name)}: {_tex(text)}" for name, text in _header(result).items()),
    ]
    for title, table, below in _sections(result, error=error):
        lines += ["", f"% Caption: {_tex(title)}", f"\\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}", r"\toprule"]
        lines += [_tex_line(table[0]), r"\midrule", *map(_tex_line, table[1:]), r"\bottomrule", r"\end{tabular}"]
        lines += [f"% {_tex(note)}" for note in below]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    return escape_latex(text).replace(INDISTINCT, r"$\approx$")


def _tex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(_tex, cells)) + r" \\"


def _html(result: SweepResult, *, error: bool) -> str:
    sections = "".join(_html_section(*section) for section in _sections(result, error=error))
    return html_page(headline(result), _header(result), sections)


def _html_section(title: str, table: Sequence[Sequence[str]], below: Sequence[str]) -> str:
    titles = "".join(
        f'<th scope="col" class="{"n" if number else "t"}">{escape_html(text)}</th>'
        for number, text in enumerate(table[0])
    )
    rows = "".join(_html_row(table[0], cells) for cells in table[1:])
    remarks = "".join(f"<p>{escape_html(note)}</p>\n" for note in below)
    return f"""<section>
<h2>{escape_html(title)}</h2>
<table class="ranking">
<thead><tr>{titles}</tr></thead>
<tbody>
{rows}</tbody>
</table>
{remarks}</section>
"""


def _html_row(titles: Sequence[str], cells: Sequence[str]) -> str:
    shown = (
        f'<td class="{"n" if number else "t"}" data-label="{escape_html(title)}">{escape_html(text)}</td>'
        for number, (title, text) in enumerate(zip(titles, cells, strict=True))
    )
    return f"<tr>{''.join(shown)}</tr>\n"


def _csv(result: SweepResult) -> str:
    """A line for each cell, in the order of the table; a dense method has one in every column."""
    lines = [_record(result, result.cell(method, density), density) for density in result.densities
             for method in result.methods]  # fmt: skip
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(lines[0]))
    writer.writeheader()
    writer.writerows({name: _csv_cell(value) for name, value in line.items()} for line in lines)
    return out.getvalue()


def _record(result: SweepResult, cell: Cell, density: float) -> Mapping[str, Any]:
    comparison = result.comparison(cell.method, density)
    found = comparison.difference if comparison else None
    plain = ("id", "kept_weights", "mean", "std", "status", "missing", "epochs_each", "epochs_spent", "seconds")
    return {
        "method": cell.method,
        "density": density,
        "split": result.split,
        **{name: getattr(cell, name) for name in plain},
        "accuracies": json.dumps({str(seed): value for seed, value in cell.accuracies.items()}),
        "reasons": "; ".join(cell.reasons),
        "reference": comparison.reference if comparison else None,
        **{name: getattr(found, name, None) for name in ("low", "high", "t_p", "wilcoxon_p")},
        "difference": found.mean if found else None,
        "t_adjusted": comparison.t_adjusted if comparison else None,
        "wilcoxon_adjusted": comparison.wilcoxon_adjusted if comparison else None,
    }


def _csv_cell(value: Any) -> Any:
    return "" if value is None else escape_spreadsheet(value) if isinstance(value, str) else value
