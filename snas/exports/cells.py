"""Texts and numbers as people read them; the columns of the tables made for reading."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from snas.exports.rows import Group, Row

MISSING = "-"
DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they can show a name as another
_BREAKS = re.compile(r"\r\n|[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_REMOVED = re.compile(f"[\x00-\x1f\x7f-\x9f{DIRECTIONS}\ufff9-\ufffb\ufffe\uffff]")
HALVES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    r"""Return `text` as one line of visible characters.

    Example:
        >>> clean("two\nlines\x00 and \u202ereversed")
        'two lines and reversed'
    """
    return HALVES.sub("\ufffd", _REMOVED.sub("", _BREAKS.sub(" ", text)))


def finite(value: float | None) -> float | None:
    """The number, or None for one that no table can show."""
    return None if value is None or not math.isfinite(value) else value


def told(row: Row, value: float) -> float | None:
    """The number, or None where a published figure's source does not tell it (it is 0 then)."""
    return None if row.cited and not value else finite(value)


def percent(fraction: float | None) -> str:
    """A fraction as "12.50%", with two figures where it is tiny."""
    if (fraction := finite(fraction)) is None:
        return MISSING
    value = 100 * fraction
    return f"{value:.2f}%" if value == 0 or value >= 0.1 else f"{value:.2g}%"


def p_text(p: float | None) -> str:
    """A p value with two figures.

    Example:
        >>> p_text(0.0321), p_text(1.0), p_text(0.00001), p_text(None)
        ('0.032', '1', '<0.0001', '-')
    """
    if p is None:
        return MISSING
    return f"{p:.2g}" if p >= 0.0001 else "<0.0001"


def _accuracy(mean: float | None, std: float | None, row: Row) -> str:
    """Mean, spread and number of seeds in percent: "97.42 ± 0.31 (n=3)"."""
    seeds = f"{row.seeds} of {row.seeds + row.failed}" if row.failed else str(row.seeds)
    if (mean := finite(mean)) is None:
        return f"{MISSING} (n={seeds})" if row.failed else MISSING
    spread = "" if (std := finite(std)) is None else f" ± {100 * std:.2f}"
    known = f" (n={seeds})" if row.seeds or not row.cited else ""
    return f"{100 * mean:.2f}{spread}{known}"


def _count(row: Row, number: float) -> str:
    """A whole number with its thousands parted."""
    return MISSING if (value := told(row, number)) is None else f"{value:,.0f}"


def _compact(row: Row, number: float) -> str:
    """A count with one decimal and its unit: 138412032 as "138.4M"."""
    if told(row, number) is None:
        return MISSING
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:g}"


def kept_of(kept: int, total: int) -> float | None:
    """Density of one layer; None for a layer without weights."""
    return kept / total if total else None


@dataclass(frozen=True)
class Column:
    """One column of the tables made for reading; `wide` ones hold sentences."""

    title: str
    show: Callable[[Row], str]
    number: bool = True
    wide: bool = False


TEST = Column("Test accuracy %", lambda row: _accuracy(row.test_accuracy, row.test_std, row))
COLUMNS = (
    Column("Rank", lambda row: MISSING if row.rank is None else str(row.rank)),
    Column("Name", lambda row: row.name, number=False),
    Column("Kind", lambda row: row.kind, number=False),
    Column("Method", lambda row: row.method, number=False),
    Column("Kept weights", lambda row: _count(row, row.kept_weights)),
    Column("Density", lambda row: percent(row.density)),
    Column("Compression", lambda row: MISSING if finite(row.compression) is None else f"{row.compression:.1f}\u00d7"),
    TEST,
    Column("Validation accuracy %", lambda row: _accuracy(row.validation_accuracy, row.validation_std, row)),
    Column("FLOPs", lambda row: _compact(row, row.flops)),
    Column("Epochs spent", lambda row: _count(row, row.epochs_spent)),
    Column("Seconds", lambda row: _count(row, row.seconds)),
)


SOURCE = Column("Source", lambda row: row.source or MISSING, number=False, wide=True)
SPACE = Column("Space", lambda row: row.space, number=False)


def columns(group: Group) -> tuple[Column, ...]:
    """The group's columns: with one for sources where there are published figures, and one for spaces where a front
    has several."""
    shown = (*COLUMNS, SOURCE) if any(row.source for row in group.rows) else COLUMNS
    return (*shown[:2], SPACE, *shown[2:]) if len({row.space for row in group.rows}) > 1 else shown


def best_accuracy(group: Group) -> float | None:
    """Highest mean test accuracy of a group; published figures count where they are ranked."""
    counted = (row for row in group.rows if _counts(row))
    return max((mean for row in counted if (mean := finite(row.test_accuracy)) is not None), default=None)


def is_best(row: Row, best: float | None) -> bool:
    """Whether the row has that accuracy; more than one may."""
    return best is not None and row.test_accuracy == best and _counts(row)


def _counts(row: Row) -> bool:
    return row.rank is not None or not row.cited


def title(group: Group) -> str:
    """What heads a group."""
    if not group.epochs:
        return f"{group.space} on {group.dataset}, published figures"
    return f"{group.space} on {group.dataset}, {group.epochs} epoch{'' if group.epochs == 1 else 's'}"


def entries(group: Group) -> str:
    """A line below the title; it never begins with somebody's text."""
    number = len(group.rows)
    return f"{number} {'entry' if number == 1 else 'entries'}. {group.subtitle}".rstrip()
