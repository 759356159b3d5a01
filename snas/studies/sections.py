"""A part of a study's tables and pictures for each combination of settings that the study does not lay out itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from snas.exports.grids import Table
from snas.studies.base import Picture, Point, Study, slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = "seed"  # what means are over


@dataclass(frozen=True)
class Section:
    """Points that differ in nothing but the seed and what the study's tables keep apart.

    Attributes:
        factors: name -> value, of those that tell the section from the others; empty where there is one alone.
        points: in their order.
    """

    factors: Mapping[str, Any]
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """Its factors in words; "" where it is the only one.

        Example:
            >>> Section({"lr": 0.1, "batch_size": 64}, ()).label
            'lr 0.1, batch size 64'
        """
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.factors.items())


def sections_of(study: Study, points: Sequence[Point]) -> list[Section]:
    """Points apart by every factor with several values that the study's own tables do not keep apart.

    A point whose value of such a factor is None, or the study's `shared` one, is of all sections that agree with it in
    the rest: a dense network has no pruning method, and stands beside the sparse ones of each.

    Args:
        study: says what its tables keep apart (`Study.shown`).
        points: of one run.

    Returns:
        In the order in which their first points come; one alone where nothing else varies.
    """
    if study.shown is None or not points:
        return [Section({}, tuple(points))]
    kept = {*study.shown, SEED}
    names = dict.fromkeys(name for point in points for name in point.cell if name not in kept)
    split = [name for name in names if len({v for point in points if (v := _own(study, point, name)) is not None}) > 1]
    if not split:
        return [Section({}, tuple(points))]
    own = [tuple(_own(study, point, name) for name in split) for point in points]
    found = list(dict.fromkeys(own))
    whole = [key for key in found if not any(key != other and _agree(key, other) for other in found)]
    return [
        Section(
            {name: value for name, value in zip(split, key, strict=True) if value is not None},
            tuple(point for point, other in zip(points, own, strict=True) if _agree(other, key)),
        )
        for key in whole
    ]


def _own(study: Study, point: Point, name: str) -> Any:
    """The point's value of a factor; None where it has none of its own."""
    value = point.cell.get(name)
    return None if name in study.shared and value == study.shared[name] else value


def _agree(part: Sequence[Any], whole: Sequence[Any]) -> bool:
    """Whether values are those of the whole, or left open."""
    return all(one is None or one == other for one, other in zip(part, whole, strict=True))


def tables_of(study: Study, points: Sequence[Point]) -> list[Table]:
    """The study's tables of each section, whose settings are in their titles."""
    return [
        replace(table, title=f"{table.title} ({section.label})") if section.label else table
        for section in sections_of(study, points)
        for table in study.tables(section.points)
    ]


def pictures_of(study: Study, points: Sequence[Point]) -> list[Picture]:
    """The study's pictures of each section, whose settings are in their names and headings."""
    pictures: list[Picture] = []
    taken: set[str] = set()
    for section in sections_of(study, points):
        for picture in study.pictures(section.points):
            name = f"{picture.name}-{slug(section.label)}" if section.label else picture.name
            number = 1
            while (f"{name}-{number}" if number > 1 else name) in taken:
                number += 1
            name = f"{name}-{number}" if number > 1 else name
            taken.add(name)
            draw = _headed(picture.draw, section.label) if section.label else picture.draw
            pictures.append(replace(picture, name=name, draw=draw))
    return pictures


def _headed(draw: Callable[[Figure], None], label: str) -> Callable[[Figure], None]:
    def drawn(figure: Figure) -> None:
        draw(figure)
        heading = "\n".join(text for text in (figure.get_suptitle(), label) if text)
        figure.suptitle(heading, x=0.01, ha="left", fontsize=9, parse_math=False)

    return drawn
