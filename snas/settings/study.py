"""What a study can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snas.checks import check_types, require_choice, require_integer
from snas.errors import InputError
from snas.settings.base import RUN, TRAINING, option

STUDY_FACTORS = ("space", "dataset", "epochs", "batch_size", "seeds")  # with a flag of their own


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What `snas study` can be told. Everything that results depend on is a factor of the study's grid.

    Raises:
        InputError: for a value outside its range, or contradictory ones.
    """

    study: str = option("", "Name of the study.", shown="none")
    scale: str = option("tiny", "Grid: tiny (minutes), small (an hour, MNIST), paper (the source's own).")
    space: str | None = option(
        None, "Search space, with arguments: name:key=value; several with commas between.", shown="the scale's own"
    )
    dataset: str | None = option(
        None, "Data set: a name or a file.npz; several with commas between.", shown="the scale's own"
    )
    data_dir: str | None = option(None, "Folder with the data set's files.", shown="a cache folder")
    epochs: str | None = option(
        None, "Epochs of a training; several with commas between.", shown="the scale's own", panel=TRAINING
    )
    batch_size: str | None = option(
        None, "Examples per training step; several with commas between.", shown="the scale's own", panel=TRAINING
    )
    factor: Mapping[str, Any] = option(
        dict, "Values of a factor of the grid, name=a,b,c; may be repeated.", shown="the scale's own"
    )
    seeds: int | None = option(None, "Seeds of each cell.", shown="the scale's own", panel=RUN)
    workers: int = option(1, "Cells measured at a time, in a process of one thread each.", panel=RUN)
    device: str = option("auto", "auto, cpu, cuda or mps.", panel=RUN)
    registry: str | None = option(
        None, "Registry file; environment variable SNAS_REGISTRY.", shown="snas.db", panel=RUN
    )

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):  # numbers are taken too, one or several
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                listed = value if isinstance(value, (list, tuple, range)) else (value,)
                object.__setattr__(self, name, ",".join(map(str, listed)))
        check_types(self)
        require_choice("scale", self.scale, ("tiny", "small", "paper"))
        require_integer("workers", self.workers, 1, 256)

    def factors(self) -> dict[str, Any]:
        """Factors that have other values than the scale's, as they were given."""
        named = {name: getattr(self, name) for name in STUDY_FACTORS}
        given = {name: value for name, value in named.items() if value is not None}
        for name, value in self.factor.items():
            key = name.replace("-", "_")
            if key in given:
                raise InputError(f"factor {name!r} is given twice; give it once")
            given[key] = value
        return given
