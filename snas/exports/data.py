"""csv and json: every field, for programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from snas.exports.cells import DIRECTIONS, HALVES, clean, finite, kept_of, told
from snas.exports.rows import Group, Row

# Where a spreadsheet may see a formula begin: at the start, and after a semicolon, which many countries' spreadsheets
# take for the separator. Blanks, quotes and invisible characters before the sign do not make it harmless.
_FORMULA = re.compile(
    r"(?:^|(?<=;))(?=[\s'\"\u00ad\u200b-\u200d\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])"
)

_HIDDEN = re.compile(f"[\x7f-\x9f{DIRECTIONS}\u2028\u2029\ufff9-\ufffb\ufffe\uffff]")

# Numbers that a published figure's source may not tell.
_TOLD = ("kept_weights", "total_weights", "seeds", "flops", "epochs", "epochs_spent", "seconds")


def _value(row: Row, name: str) -> Any:
    """A field's value; None where a published figure's source does not tell it."""
    value = getattr(row, name)
    return None if name in _TOLD and row.cited and told(row, value) is None else value


def escape_spreadsheet(text: str) -> str:
    """A text cell that no spreadsheet computes; taking one apostrophe away gives the text back."""
    guarded = _FORMULA.sub("'", clean(text))
    if text.lstrip(" ").startswith(("\t", "\r", "\n")) and not guarded.startswith("'"):
        return f"'{guarded}"
    return guarded


def csv_text(groups: Sequence[Group], header: Mapping[str, str]) -> str:
    """RFC 4180: a line of names, then one line for each row of all groups; `group` is the group's subtitle."""
    names = [field.name for field in fields(Row)]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*names[:-1], "group", names[-1]])
    for group in groups:
        for row in group.rows:
            cells = [_csv_cell(_value(row, name)) for name in names[:-1]]
            densities = {HALVES.sub("\ufffd", name): kept_of(kept, total) for name, kept, total in row.layers}
            # The semicolon is escaped, so that a layer's name cannot begin a cell of its own either.
            layers = json.dumps(densities).replace(";", "\\u003b")
            writer.writerow([*cells, escape_spreadsheet(group.subtitle), layers])
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    """Texts guarded, fractions with all their digits, what is missing as nothing."""
    if isinstance(value, str):
        return escape_spreadsheet(value)
    if isinstance(value, float):
        return "" if finite(value) is None else repr(float(value))
    return "" if value is None else value


def json_text(groups: Sequence[Group], header: Mapping[str, str]) -> str:
    """Strict JSON of everything."""
    document = {
        "header": dict(header),
        "groups": [
            {
                "space": group.space,
                "dataset": group.dataset,
                "epochs": group.epochs,
                "subtitle": group.subtitle,
                **({"hypervolume": dict(group.hypervolume)} if group.hypervolume else {}),
                "rows": [_json_row(row) for row in group.rows],
            }
            for group in groups
        ],
    }
    return strict_json(document)


def strict_json(value: Any) -> str:
    """JSON that says what `value` does, and shows nothing else on a terminal or in an editor.

    Raises:
        ValueError: for a number that is NaN or infinite.
    """
    text = HALVES.sub("\ufffd", json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))
    # Control characters beyond ASCII's stand inside strings only, where an escape means the same.
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _json_row(row: Row) -> dict[str, Any]:
    values = {field.name: _value(row, field.name) for field in fields(Row)}
    shown = {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}
    return shown | {"layers": {name: {"kept": kept, "total": total} for name, kept, total in row.layers}}
