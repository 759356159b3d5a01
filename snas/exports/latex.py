"""LaTeX: a booktabs tabular for each group."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from snas.exports.cells import TEST, Column, best_accuracy, clean, columns, entries, is_best, title
from snas.exports.rows import Group, Row

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "{}$&#%_"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\symbol{34}",
        "'": r"\textquotesingle{}",
        "`": r"\textasciigrave{}",
        "[": "{[}",
        "]": "{]}",
        "\u00b1": r"$\pm$",
        "\u00d7": r"$\times$",
    }
)


def escape_latex(text: str) -> str:
    """Plain text for a tabular's cell; repeated dashes and commas are kept from melting into others."""
    return re.sub(r"([-,])(?=\1)", r"\1{}", clean(text).translate(_LATEX))


def latex_text(groups: Sequence[Group], header: Mapping[str, str]) -> str:
    """A booktabs tabular for each group; the best test accuracy is bold."""
    lines = [
        r"% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}; use LuaLaTeX for names beyond Latin letters.",
        r"% Wide: put it in a landscape page, or into \resizebox{\linewidth}{!}{...} of package graphicx.",
        *(f"% {escape_latex(key)}: {escape_latex(value)}" for key, value in header.items()),
    ]
    if not groups:
        lines.append("% No results yet.")
    for group in groups:
        shown = columns(group)
        alignment = "".join("p{60mm}" if column.wide else "r" if column.number else "l" for column in shown)
        best = best_accuracy(group)
        lines += [
            "",
            f"% Caption: {escape_latex(title(group))}. {escape_latex(entries(group))}",
            f"\\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(escape_latex(column.title) for column in shown) + r" \\",
            r"\midrule",
            *(_latex_row(row, shown, best=is_best(row, best)) for row in group.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    return "\n".join(lines) + "\n"


def _latex_row(row: Row, shown: Sequence[Column], *, best: bool) -> str:
    """One line of a tabular."""
    cells = []
    for column in shown:
        cell = escape_latex(column.show(row))
        if best and column is TEST:
            mean, space, rest = cell.partition(" ")
            cell = f"\\textbf{{{mean}}}{space}{rest}"
        cells.append(cell)
    return " & ".join(cells) + r" \\"
