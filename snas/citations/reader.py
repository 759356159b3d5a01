"""CSV files of published figures. A file with one bad line is refused whole, so that none is half imported."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from snas.citations.figures import HEADER, REQUIRED, Citation
from snas.errors import InputError
from snas.exports import clean

_TEXTS = ("space", "dataset", "method", "source")
_FRACTIONS = ("density", "accuracy", "std")


def read_citations(path: Path | str) -> tuple[Citation, ...]:
    """Read published figures from a CSV file.

    Args:
        path: UTF-8, a header that names the columns in any order, commas between cells; lines that are all empty are
            skipped. Columns are those of `HEADER`; `REQUIRED` must be there, and an empty cell of another is unknown.

    Returns:
        The figures in the order of the file; a line that is there twice counts once.

    Raises:
        InputError: if the file cannot be read, or for the first line at fault: file, line, column and value are named.

    Example:
        >>> import tempfile
        >>> text = "space,dataset,method,density,accuracy,source\\nvgg-c,cifar10,snip,0.05,0.9273,Table 3.2\\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "figures.csv")
        ...     _ = file.write_text(text)
        ...     (figure,) = read_citations(file)
        >>> figure.accuracy, figure.seeds
        (0.9273, None)
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {str(path)!r}: {reason}") from error
    return parse_citations(text, str(path))


def builtin_citations() -> tuple[Citation, ...]:
    """The published figures that come with the package, each with its paper and table.

    Example:
        >>> {figure.accuracy for figure in builtin_citations() if figure.method == "LWC"}
        {0.984, 0.992}
    """
    file = resources.files("snas.citations") / "figures.csv"
    return parse_citations(file.read_text(encoding="utf-8"), "figures.csv")


def parse_citations(text: str, name: str) -> tuple[Citation, ...]:
    """Read the text of a CSV file; `name` is the file's, for messages."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = _read_header(next(reader, []), name)
        found: dict[str, tuple[int, Citation]] = {}
        for cells in reader:
            if any(cell.strip() for cell in cells):
                _add(found, _read_line(cells, columns, f"{name} line {reader.line_num}"), reader.line_num, name)
    except csv.Error as error:
        raise InputError(f"{name} line {reader.line_num} is no CSV: {error}") from error
    if not found:
        raise InputError(f"{name} has no figures; below the header {','.join(HEADER)} give one a line")
    return tuple(citation for _, citation in found.values())


def _read_header(cells: Sequence[str], name: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for column in columns:
        if column not in HEADER or columns.count(column) > 1:
            wrong = "names a column twice:" if column in HEADER else "has an unknown column"
            raise InputError(f"{name} line 1 {wrong} {column[:60]!r}; the columns are {','.join(HEADER)}")
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise InputError(f"{name} line 1 lacks {', '.join(missing)}; the columns are {','.join(HEADER)}")
    return columns


def _read_line(cells: Sequence[str], columns: Sequence[str], place: str) -> Citation:
    if len(cells) != len(columns):
        raise InputError(
            f"{place} has {len(cells)} cells; expected {len(columns)}, and quotes around cells with commas"
        )
    texts = {column: clean(cell).strip() for column, cell in zip(columns, cells, strict=True)}
    values = {column: _read_cell(column, text, place) for column, text in texts.items()}
    try:
        return Citation(**values)
    except InputError as error:  # which begins with the column's name
        raise InputError(f"{place}, column {error}") from error


def _read_cell(column: str, text: str, place: str) -> Any:
    if column in _TEXTS:
        return text
    if not text:
        if column in REQUIRED:
            raise InputError(f"{place}, column {column} is empty; a published figure needs it")
        return None
    kind: Callable[[str], Any] = float if column in _FRACTIONS else int
    try:
        return kind(text)
    except ValueError:
        expected = "a fraction such as 0.984" if kind is float else "a whole number"
        raise InputError(f"{place}, column {column} is {text[:60]!r}; expected {expected}") from None


def _add(found: dict[str, tuple[int, Citation]], citation: Citation, line: int, name: str) -> None:
    """Keep a figure; the same one with other numbers contradicts the file's own line above."""
    first, known = found.setdefault(citation.key, (line, citation))
    if known != citation:
        raise InputError(
            f"{name} line {line}, column {_difference(vars(known), vars(citation))}, but line {first} has the same "
            "space, data set, method, density and source; give each its own method or source"
        )


def _difference(known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    column = next(column for column in HEADER if known[column] != given[column])
    return f"{column} is {given[column]}"
