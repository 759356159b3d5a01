"""A part of a study's tables and pictures for each combination of settings that the study does not lay out itself."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from snas.exports.grids import Table
from snas.studies.base import Picture, Point, Study, slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = "seed"  # what means are over
ACROSS = 12  # characters of a heading in an inch
LINE = 0.17  # inches that a line of a heading takes


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

    @property
    def brief(self) -> str:
        """The label with files by their names alone, without their folders.

        Example:
            >>> Section({"dataset": "/data/of/mine/a.npz:inverted", "lr": 0.1}, ()).brief
            'dataset a.npz:inverted, lr 0.1'
        """
        return re.sub(r"[^\s,:=]*/", "", self.label)


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
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(own):
        places.setdefault(key, []).append(place)
    parts = [key for key in places if None in key]
    covered = {part for part in parts if any(part != key and _agree(part, key) for key in places)}
    sections = []
    for key in places:
        if key not in covered:
            shared = [place for part in parts if part != key and _agree(part, key) for place in places[part]]
            factors = {name: value for name, value in zip(split, key, strict=True) if value is not None}
            sections.append(Section(factors, tuple(points[place] for place in sorted(places[key] + shared))))
    return sections


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
    sections = sections_of(study, points)
    apart = len({section.brief for section in sections}) == len(sections)
    for section in sections:
        for picture in study.pictures(section.points):
            name = f"{picture.name}-{slug(section.brief, whole=section.label)}" if section.label else picture.name
            number = 1
            while (f"{name}-{number}" if number > 1 else name) in taken:
                number += 1
            name = f"{name}-{number}" if number > 1 else name
            taken.add(name)
            if section.label:
                picture = _headed(picture, section.brief if apart else section.label)
            pictures.append(replace(picture, name=name))
    return pictures


def _headed(picture: Picture, label: str) -> Picture:
    """The picture with a label in its heading, in as many lines as it needs, for which the picture grows."""
    wide, high = picture.size
    lines = textwrap.wrap(label, width=max(20, int(ACROSS * wide)))

    def drawn(figure: Figure) -> None:
        picture.draw(figure)
        heading = "\n".join(text for text in (figure.get_suptitle(), *lines) if text)
        figure.suptitle(heading, x=0.01, ha="left", fontsize=9, parse_math=False)

    return replace(picture, draw=drawn, size=(wide, high + LINE * (len(lines) - 1)))
