"""Tables of texts, with shades, as md, html and tex. Names are taken for hostile, as everywhere in `snas.exports`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snas.exports.data import escape_spreadsheet
from snas.exports.latex import escape_latex
from snas.exports.markdown import escape_markdown
from snas.exports.page import SHADES, escape_html, html_page

Place = tuple[int, int]


@dataclass(frozen=True)
class Table:
    """A table for people.

    Attributes:
        title: above it.
        titles: of the columns; the first column names the rows, the others stand to the right.
        rows: of texts, as many in each as there are titles.
        notes: below it.
        shades: (row, column), both from 0, -> how the cell is coloured, 0 (blue) over 0.5 (pale) to 1 (orange), two
            ends that readers of any colour vision tell apart.
        bold: (row, column) of the cells that stand out.
    """

    title: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    shades: Mapping[Place, float] = field(default_factory=dict)
    bold: frozenset[Place] = frozenset()


def markdown_tables(name: str, header: Mapping[str, str], tables: Sequence[Table]) -> str:
    """A page of GitHub Markdown, which knows no colours."""
    lines = [f"# {escape_markdown(name)}", ""]
    lines += [f"{escape_markdown(key)}: {escape_markdown(text)}  " for key, text in header.items()]
    for table in tables:
        rules = ["--:"] * (len(table.titles) - 1)
        lines += ["", escape_markdown(table.title), "", _line(map(escape_markdown, table.titles))]
        lines += [f"| {' | '.join([':--', *rules])} |"]
        for place, row in enumerate(table.rows):
            cells = (f"**{text}**" if (place, column) in table.bold else text for column, text in _marked(row))
            lines.append(_line(cells))
        lines += [""] + [f"{escape_markdown(note)}  " for note in table.notes] if table.notes else []
    return "\n".join(lines) + "\n"


def _marked(row: Sequence[str]) -> Sequence[tuple[int, str]]:
    return list(enumerate(map(escape_markdown, row)))


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def latex_tables(name: str, header: Mapping[str, str], tables: Sequence[Table]) -> str:
    """A booktabs tabular for each table, with coloured cells where there are shades."""
    coloured = r", and \usepackage[table]{xcolor}" if any(table.shades for table in tables) else ""
    lines = [
        rf"% Needs \usepackage{{booktabs}} and \usepackage[T1]{{fontenc}}{coloured}; use LuaLaTeX for names beyond "
        "Latin letters.",
        f"% {escape_latex(name)}",
        *(f"% {escape_latex(key)}: {escape_latex(text)}" for key, text in header.items()),
    ]
    for table in tables:
        lines += ["", f"% Caption: {escape_latex(table.title)}"]
        lines += [f"\\begin{{tabular}}{{l{'r' * (len(table.titles) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(escape_latex, table.titles)) + r" \\", r"\midrule"]
        lines += [_latex_row(table, place) for place in range(len(table.rows))]
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% {escape_latex(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _latex_row(table: Table, place: int) -> str:
    cells = []
    for column, text in enumerate(table.rows[place]):
        shown = escape_latex(text)
        if (place, column) in table.bold:
            shown = rf"\textbf{{{shown}}}"
        if (shade := table.shades.get((place, column))) is not None:
            shown = rf"\cellcolor[RGB]{{{','.join(map(str, colour(shade)))}}}{shown}"
        cells.append(shown)
    return " & ".join(cells) + r" \\"


def html_tables(name: str, header: Mapping[str, str], tables: Sequence[Table]) -> str:
    """A page of its own."""
    return html_page(name, header, "".join(map(_html_table, tables)) or "<p>No results yet.</p>\n")


def _html_table(table: Table) -> str:
    titles = "".join(
        f'<th scope="col" class="{"n" if number else "t"}">{escape_html(text)}</th>'
        for number, text in enumerate(table.titles)
    )
    rows = "".join(_html_row(table, place) for place in range(len(table.rows)))
    remarks = "".join(f"<p>{escape_html(note)}</p>\n" for note in table.notes)
    return f"""<section>
<h2>{escape_html(table.title)}</h2>
<table class="ranking">
<thead><tr>{titles}</tr></thead>
<tbody>
{rows}</tbody>
</table>
{remarks}</section>
"""


def _html_row(table: Table, place: int) -> str:
    cells = []
    for column, (title, text) in enumerate(zip(table.titles, table.rows[place], strict=True)):
        classes = ["n" if column else "t"]
        if (place, column) in table.bold:
            classes.append("top")
        if (shade := table.shades.get((place, column))) is not None:
            classes.append(f"s{round(100 * min(1.0, max(0.0, shade)))}")
        label = escape_html(title)
        cells.append(f'<td class="{" ".join(classes)}" data-label="{label}">{escape_html(text)}</td>')
    return f"<tr>{''.join(cells)}</tr>\n"


def colour(shade: float) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a shade from 0 to 1: ends of [Okabe2008] (see `snas.report.plot`), lightened
    so that black text can be read on them.

    Example:
        >>> colour(0.0), colour(0.5), colour(1.0)
        ((102, 170, 209), (247, 245, 228), (230, 158, 102))
    """
    return SHADES[round(100 * min(1.0, max(0.0, shade)))]


def csv_lines(lines: Sequence[Mapping[str, Any]]) -> str:
    """One line for each mapping, with all names that any of them has, in the order of their appearance."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=names, restval="")
    writer.writeheader()
    writer.writerows({name: _csv_cell(value) for name, value in line.items()} for line in lines)
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    return "" if value is None else escape_spreadsheet(value) if isinstance(value, str) else value
