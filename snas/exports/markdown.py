"""GitHub Markdown: a table and a list of densities for each group."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from snas.exports.cells import MISSING, clean, columns, entries, kept_of, percent, title
from snas.exports.rows import Group, Row

# Full stops, colons and slashes are escaped only where they could be part of an address, to keep numbers readable.
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~$&^]|(?<!\d)\.(?=\S)|\.(?=[^\s\d])|:(?=\S)|/(?=/)")


def escape_markdown(text: str) -> str:
    """Plain text for a table cell or a line. A word joiner after @ keeps it from becoming an address or a mention."""
    return _MARKDOWN.sub(r"\\\g<0>", clean(text).strip()).replace("@", "@\u2060")


def _code(text: str) -> str:
    """Text as inline code, between more backticks than it has in a row."""
    shown = clean(text).strip() or MISSING
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if "`" in shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _markdown_row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def markdown_text(groups: Sequence[Group], header: Mapping[str, str]) -> str:
    """A heading, a GitHub table and a list of densities for each group."""
    lines = ["# Leaderboard", ""]
    if header:
        lines += ["| Source | |", "| :-- | :-- |", *(_markdown_row(item) for item in header.items()), ""]
    if not groups:
        lines += ["No results yet.", ""]
    for group in groups:
        shown = columns(group)
        rules = " | ".join("--:" if column.number else ":--" for column in shown)
        lines += [f"## {escape_markdown(title(group))}", "", escape_markdown(entries(group)), ""]
        lines += [_markdown_row([column.title for column in shown]), f"| {rules} |"]
        lines += [_markdown_row([column.show(row) for column in shown]) for row in group.rows]
        measured = [row for row in group.rows if not row.cited]
        lines += ["", "### Densities per layer", "", *map(_markdown_details, measured)] if measured else []
        lines.append("")
    return "\n".join(lines)


def _markdown_details(row: Row) -> str:
    """What the table has no room for, as an item of a list."""
    strategy, mask, training = (rule or MISSING for rule in (row.strategy, row.mask_rule, row.training_rule))
    rules = f"id {row.id}, {row.name}, {row.method} (strategy {strategy}, mask {mask}, training {training}):"
    layers = (f"{_code(name)} {percent(kept_of(kept, total))}" for name, kept, total in row.layers)
    return f"- {escape_markdown(rules)} {', '.join(layers)}"
