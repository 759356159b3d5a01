"""The seam between a study and what runs it: a grid of cells, what is measured in one, and what is made of all.

To add a study, write a class, decorate it, and name its module in `studies` below (docs/studies/README.md tells more):

    @studies.register("mine")
    class Mine(Study):
        \"\"\"One line that `snas list studies` shows.\"\"\"
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, get_args

from snas.exports.grids import Table
from snas.plugins import Family

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from snas.studies.lab import Lab

Scale = Literal["tiny", "small", "paper"]
SCALES: tuple[str, ...] = get_args(Scale)

LONGEST = 80  # characters of a slug
DIGITS = 6  # of a hash that tells what was cut apart

# Factor -> value, both plain: text, numbers, True, False, None. A cell names all that its result depends on.
Cell = Mapping[str, Any]
# What was measured in a cell: a JSON object. Numbers are finite; what is not there is None.
Result = Mapping[str, Any]
# Factor -> values that it takes. All values of a factor are of one type, beside None.
Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Point:
    """A cell that was measured.

    Attributes:
        cell: its factors.
        result: what was found; empty where the network was refused or failed.
        reason: why it was, else None.
        seconds: that it took.
        environment: versions, device and threads that it was measured with.
    """

    cell: Cell
    result: Result
    reason: str | None = None
    seconds: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, factor: str) -> Any:
        return self.cell[factor]


@dataclass(frozen=True)
class Picture:
    """A picture of a study's points.

    Attributes:
        name: of its file, behind the study's.
        draw: fills an empty figure; matplotlib is imported in there, if at all.
        size: width and height in inches.
    """

    name: str
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (6.4, 4.2)


class Study(ABC):
    """An experiment: its grid, what is measured in each cell, and the tables and pictures of all points.

    Attributes:
        name: under which it is registered.
        filed: under which name its cells are filed, where another study measures the same; its own by default.
        version: raised when what is measured means something else, so that older measurements are not taken for it.
        shown: factors that its tables and pictures keep apart. Of any other factor but the seed with several values,
            each combination gets tables and pictures of its own (`snas.studies.sections`), so that no mean is over
            settings that differ. None: its tables keep all factors apart.
        shared: factor -> a value with which a cell belongs to the tables of all values of that factor, as None does. A
            factor whose None has no place beside its other values is one of `shown`.
    """

    shown: tuple[str, ...] | None = None
    shared: Mapping[str, Any] = {}

    name: str = ""
    filed: str = ""
    version: int = 1

    @property
    def store(self) -> str:
        """The name under which its cells are filed."""
        return self.filed or self.name

    @abstractmethod
    def grid(self, scale: Scale) -> Grid:
        """The factors and their values. "tiny" ends in three minutes on two cores with data that are there, "small" in
        an hour on MNIST, "paper" is the source's own. A factor "seed" has the values 0, 1 ..."""

    def cells(self, grid: Grid) -> list[Cell]:
        """The cells of a grid: all combinations, unless overridden. Cells that come twice are measured once, so that a
        factor without effect in some cells may be set to None there.

        Raises:
            InputError: for factors that contradict each other.
        """
        return combinations(grid)

    def datasets(self, cell: Cell) -> tuple[str, ...]:
        """The data sets that the cell's result depends on, by name."""
        return (cell["dataset"],)

    def settings(self, cell: Cell) -> Mapping[str, Any]:
        """Fields of `snas.settings.Settings` that the cell's networks are made and trained with. They are checked for
        all cells before the first is measured; by default there are none, and `measure` meets what is wrong."""
        return {}

    @abstractmethod
    def measure(self, cell: Cell, lab: Lab) -> Result:
        """Measure one cell. Everything random comes from its "seed".

        Raises:
            RefusedError, FailedError: if its network cannot work or breaks; this is filed as what came of the cell.
            InputError: for a cell that nobody can measure; the study ends.
        """

    @abstractmethod
    def tables(self, points: Sequence[Point]) -> list[Table]:
        """The tables of the points that are there; some may be missing, or without result."""

    def pictures(self, points: Sequence[Point]) -> list[Picture]:
        """The pictures of the points that are there."""
        return []


studies: Family[type[Study]] = Family(
    "study",
    group="snas.studies",
    modules=(
        "snas.studies.connections",
        "snas.studies.gradient_flow",
        "snas.studies.isometry",
        "snas.studies.random_labels",
        "snas.studies.sc_sdc",
        "snas.studies.sculpting",
        "snas.studies.smoothness",
        "snas.studies.snip_sensitivity",
        "snas.studies.steps_to_result",
        "snas.studies.transfer",
    ),
)


def open_study(name: str) -> Study:
    """The study called `name`.

    Raises:
        InputError: if there is none.
    """
    study = studies.get(name)()
    study.name = name
    return study


def combinations(grid: Grid) -> list[Cell]:
    """All combinations of a grid's values, the last factor fastest.

    Example:
        >>> combinations({"width": (1, 2), "seed": (0, 1)})[1]
        {'width': 1, 'seed': 1}
    """
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Each cell once, the first seed of all before the second, so that a study that is stopped has a whole table.

    Example:
        >>> [cell["seed"] for cell in in_order([{"seed": 1}, {"seed": 0}, {"seed": 1}])]
        [0, 1]
    """
    different = {json.dumps(cell, sort_keys=True): cell for cell in cells}
    return sorted(different.values(), key=lambda cell: int(cell.get("seed") or 0))


def measured(points: Sequence[Point], **factors: Any) -> list[Point]:
    """The points that have a result, and these values of these factors.

    Example:
        >>> points = [Point({"width": 1}, {"loss": 0.5}), Point({"width": 2}, {}, "diverged")]
        >>> [point["width"] for point in measured(points)], measured(points, width=2)
        ([1], [])
    """
    found = (point for point in points if point.result)
    return [point for point in found if all(point.cell.get(name) == value for name, value in factors.items())]


def first_seed(points: Sequence[Point]) -> list[Point]:
    """The points of the smallest seed that is there.

    Example:
        >>> [point.cell for point in first_seed([Point({"seed": 4}, {}), Point({"seed": 3}, {})])]
        [{'seed': 3}]
    """
    least = min((point["seed"] for point in points), default=0)
    return [point for point in points if point["seed"] == least]


def slug(text: str, *, whole: str = "") -> str:
    """Text as a part of a file's name.

    Args:
        text: any.
        whole: what the text is short for. Where it is, and where the name is cut, a hash of it is at the end.

    Example:
        >>> slug("lr 0.1, space mlp:width=8, data /a/b.npz")
        'lr-0.1-space-mlp-width-8-data-a-b.npz'
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
    whole = whole or text
    if whole == text and len(plain) <= LONGEST:
        return plain
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return f"{plain[: LONGEST - DIGITS - 1].strip('-.')}-{digest[:DIGITS]}"


def values_of(points: Sequence[Point], factor: str) -> list[Any]:
    """The values of a factor among points: numbers by size, others in the order of their appearance; None first."""
    found = list(dict.fromkeys(point.cell.get(factor) for point in points))
    numbers = [value for value in found if isinstance(value, (int, float))]
    if len(numbers) + (None in found) < len(found):
        return found
    return [None] * (None in found) + sorted(numbers)
