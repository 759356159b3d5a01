"""What a study gives: its points, tables and pictures, and the files of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from snas.errors import InputError
from snas.exports import write_export
from snas.exports.grids import Table, csv_lines, html_tables, latex_tables, markdown_tables
from snas.report.figures import picture_bytes, require_matplotlib
from snas.studies.base import Grid, Point, Study
from snas.studies.sections import pictures_of, tables_of

PICTURES = ("png", "svg")  # kinds of files of each


class StudyResult:
    """The points of a study's grid, and what is made of them.

    Attributes:
        study: what was measured.
        scale: of its grid.
        points: in the order of the grid's cells; of those that were refused or failed `reason` says why.
        grid: factor -> values.
        wall_seconds: that the call took.
    """

    def __init__(
        self, study: Study, scale: str, points: Sequence[Point], grid: Grid, wall_seconds: float = 0.0
    ) -> None:
        self.study = study
        self.scale = scale
        self.points = tuple(points)
        self.grid = dict(grid)
        self.wall_seconds = wall_seconds

    @cached_property
    def tables(self) -> list[Table]:
        """The study's tables, of every combination of settings apart."""
        return tables_of(self.study, self.points)

    @property
    def headline(self) -> str:
        """What was measured, on one line."""
        failed = sum(point.reason is not None for point in self.points)
        without = f", {failed} of them without result" if failed else ""
        return f"Study {self.study.name}, {self.scale}: {len(self.points)} cells{without}"

    @property
    def header(self) -> dict[str, str]:
        """Where the figures come from."""
        environments = [point.environment for point in self.points]
        devices = sorted({str(one.get("device_name", "-")) for one in environments})
        versions = sorted({f"snas {one.get('snas')}, torch {one.get('torch')}" for one in environments})
        seconds = sum(point.seconds for point in self.points)
        grid = "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in self.grid.items())
        spent = f"{seconds / 60:.1f} minutes of one thread" if seconds >= 60 else f"{seconds:.0f} seconds of one thread"
        return {"grid": grid, "hardware": "; ".join(devices), "versions": "; ".join(versions), "measured in": spent}

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "study": self.study.name,
            "scale": self.scale,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "points": [
                {"cell": dict(one.cell), "result": dict(one.result), "reason": one.reason, "seconds": one.seconds}
                for one in self.points
            ],
            "tables": [
                {"title": table.title, "titles": list(table.titles), "rows": [list(row) for row in table.rows]}
                | {"notes": list(table.notes)}
                for table in self.tables
            ],
            "environments": _different(point.environment for point in self.points),
            "wall_seconds": self.wall_seconds,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write NAME.csv (a line for each point), NAME.json (all), NAME.md, NAME.html, NAME.tex (the tables), and each
        picture as NAME-PICTURE.png and .svg. Files that are there are replaced, and pictures that NAME.json there names
        and that are not drawn now are removed, so that none stands beside tables of other points.

        Args:
            folder: where to; made if it is missing.

        Returns:
            The files.

        Raises:
            InputError: if the folder cannot be made or written to, or matplotlib is not installed.
        """
        place = Path(folder)
        require_output(place)
        name = self.study.name
        pictures = {
            f"{name}-{picture.name}.{kind}": picture_bytes(picture.draw, picture.size, kind)
            for picture in pictures_of(self.study, self.points)
            for kind in PICTURES
        }
        told = {**self.as_dict(), "pictures": list(pictures)}
        files: dict[str, str | bytes] = {
            f"{name}.csv": csv_lines([_record(point) for point in self.points]),
            f"{name}.json": json.dumps(told, indent=1, allow_nan=False) + "\n",
            f"{name}.md": markdown_tables(self.headline, self.header, self.tables),
            f"{name}.html": html_tables(self.headline, self.header, self.tables),
            f"{name}.tex": latex_tables(self.headline, self.header, self.tables),
            **pictures,
        }
        before = _pictures_named(place, name)
        for file, content in files.items():
            write_export(content, place / file)
        written = {file.casefold() for file in files}  # one file where the folder does not tell cases apart
        for file in before:
            if file.casefold() not in written:
                _remove(place / file)
        return [place / file for file in files]


def require_output(folder: Path) -> None:
    """Raise InputError unless tables and pictures can be written to the folder, which is made."""
    require_matplotlib("output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {str(folder)!r}: {error.strerror}; choose another place") from None


def _pictures_named(folder: Path, study: str) -> set[str]:
    """The study's pictures that were written to the folder before, by its NAME.json, and named as it names them."""
    try:
        found = json.loads((folder / f"{study}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none, or another's file: then nothing there is known to be ours
        return set()
    named = found.get("pictures") if isinstance(found, dict) else None
    pattern = re.compile(re.escape(study) + r"-[^/\\:\0]+\.(" + "|".join(PICTURES) + ")")
    listed = named if isinstance(named, list) else []
    return {name for name in listed if isinstance(name, str) and pattern.fullmatch(name)}


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot remove {str(file)!r}, a picture of earlier points: {error.strerror}") from None


def _record(point: Point) -> Mapping[str, Any]:
    """A point as one line: its factors, what was measured as single numbers or texts, and lists as JSON."""
    values = {
        name: json.dumps(value) if isinstance(value, (list, dict, tuple)) else value
        for name, value in point.result.items()
    }
    return {**point.cell, **values, "reason": point.reason, "seconds": round(point.seconds, 3)}


def _different(values: Any) -> list[Any]:
    return [json.loads(text) for text in dict.fromkeys(json.dumps(value, sort_keys=True) for value in values)]
