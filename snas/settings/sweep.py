"""What a sweep can be told."""

from __future__ import annotations

from dataclasses import dataclass

from snas.checks import read_density, require_different, require_integer, split_list
from snas.errors import InputError
from snas.settings.base import RUN, Settings, option


@dataclass(frozen=True, kw_only=True)
class SweepSettings(Settings):
    """What `snas sweep` can be told.

    Raises:
        InputError: for a value outside its range, or contradictory ones.
    """

    methods: str = option("", "Methods with commas between: dense,snip,rigl:every=50.", shown="none")
    densities: str | None = option(None, "Densities with commas between: 0.1,0.05,0.02.", shown="none")
    densities_from: str | None = option(
        None, "Densities of each layer for all methods: the id of a row, or a .json, .toml or .csv file.", shown="none"
    )
    reference: str | None = option(
        None, "Method that the others are compared with.", shown="the best of each density", panel=RUN
    )
    seeds: int = option(3, "Seeds on which each network is trained from scratch.", panel=RUN)
    jobs: int = option(1, "Processes that train side by side.", panel=RUN)
    threads: int | None = option(None, "Threads of one operation.", shown="all cores, shared by the jobs", panel=RUN)
    final_seeds: int = option(0, "Not for a sweep, which has seeds.", shown="none", panel=RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("seeds", self.seeds, 1, 1000)
        require_integer("jobs", self.jobs, 1, 256)
        if self.final_seeds:
            raise InputError(f"final-seeds is {self.final_seeds}, but a sweep has seeds; leave final-seeds out")
        if self.densities is not None and self.densities_from is not None:
            raise InputError("densities and densities-from contradict each other; give one of them")
        require_different("method", self.method_texts())
        require_different("density", [str(density) for density in self.density_values()])

    def method_texts(self) -> list[str]:
        """The methods, as they were written."""
        return split_list("methods", self.methods, example="dense,snip,erk")

    def density_values(self) -> list[float]:
        """The densities, in the order in which they were given."""
        if self.densities is None:
            return []
        return [read_density(text) for text in split_list("densities", self.densities, example="0.1,0.05,0.02")]
