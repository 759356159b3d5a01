r"""Leaderboard rows as csv, json, md, html or latex text that is safe to open.

Names come from people, files and other people's networks, so every text is taken for hostile: in no format can it
become a spreadsheet formula, an HTML tag, a LaTeX command, a Markdown link or a broken row.

- In csv, md, html and latex a line break or tab becomes a space, other control characters and those that reverse the
  direction of writing are removed (`clean`). In json they are kept, written as `\u` escapes.
- In csv, a text that a spreadsheet could take for a formula gets an apostrophe in front; numbers are never touched.
- Half of a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from snas.errors import InputError
from snas.exports.cells import clean
from snas.exports.data import csv_text, json_text
from snas.exports.files import write_export
from snas.exports.latex import latex_text
from snas.exports.markdown import markdown_text
from snas.exports.page import html_text
from snas.exports.rows import Group, Row

__all__ = ["FORMATS", "Format", "Group", "Row", "clean", "export", "write_export"]

Format = Literal["csv", "json", "md", "html", "latex"]
FORMATS: tuple[str, ...] = get_args(Format)


def export(groups: Sequence[Group], format: Format, *, header: Mapping[str, str] | None = None) -> str:
    """Write groups of rows as text.

    Args:
        groups: rankings, in the order of their appearance; rows stay in their order.
        format: one of `FORMATS`. csv and json hold every field; md, html and latex a table for each group, and
            md and html below it the rules and the densities of the layers. A published figure has its source beside it;
            what the source does not tell is missing.
        header: where the table comes from, for example {"registry": "snas.db"}; csv has no place for it.

    Returns:
        The whole file. Numbers that are NaN or infinite are shown as missing.

    Raises:
        InputError: for an unknown format.

    Example:
        >>> print(export([], "json", header={"registry": "snas.db"}))
        {
          "header": {
            "registry": "snas.db"
          },
          "groups": []
        }
        <BLANKLINE>
    """
    writers = {"csv": csv_text, "json": json_text, "md": markdown_text, "html": html_text, "latex": latex_text}
    if format not in writers:
        raise InputError(f"export format is {format!r}; choices: {', '.join(FORMATS)}")
    return writers[format](groups, header or {})
