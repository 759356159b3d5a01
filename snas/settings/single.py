"""What the commands can be told that train one network: `snas prune` and `snas transfer`."""

from __future__ import annotations

from dataclasses import dataclass

from snas.checks import require_integer, require_name
from snas.densities import check_density
from snas.settings.base import BUDGET, RULE_FIELDS, RUN, SEARCH, Settings, option, read_baselines


@dataclass(frozen=True, kw_only=True)
class PruneSettings(Settings):
    """What `snas prune` can be told.

    Raises:
        InputError: for a value outside its range.
    """

    method: str = option("snip", "Pruning method, name or name:key=value; snas list methods tells them.")
    density: float | None = option(None, "Fraction of the weights to keep, 0 < density <= 1.", shown="none")
    densities_from: str | None = option(
        None, "Densities of each layer: the id of a row, or a .json, .toml or .csv file.", shown="the method's own"
    )
    name: str | None = option(None, "Name of the leaderboard's row.", shown="method and density", panel=RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density is not None:
            check_density(self.density)
        require_integer("final-seeds", self.final_seeds, 1, 1000)
        if self.name is not None:
            require_name(self.name)


@dataclass(frozen=True, kw_only=True)
class TransferSettings(Settings):
    """What `snas transfer` can be told; what it is not told is as the row has it.

    Raises:
        InputError: for a value outside its range.
    """

    density: float | None = option(None, "Keep exactly this fraction of all weights.", shown="the row's", panel=BUDGET)
    mask: str | None = option(
        None, "What chooses the kept weights of a layer: random, snip, synflow ...", shown="the row's", panel=SEARCH
    )
    train: str | None = option(
        None, "How the mask is trained: static (it stays), set, rigl.", shown="the row's", panel=SEARCH
    )
    baselines: str = option(
        "none", "Methods to train beside it at its number of weights, beside the same rule with ERK.", panel=RUN
    )
    name: str | None = option(None, "Name of the leaderboard's row.", shown="from the row", panel=RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density is not None:
            check_density(self.density)
        require_integer("final-seeds", self.final_seeds, 1, 1000)
        read_baselines(self.baselines)
        if self.name is not None:
            require_name(self.name)

    def baseline_names(self) -> list[str]:
        """The methods to compare with, beside ERK."""
        return read_baselines(self.baselines)


def as_in_row() -> tuple[str, ...]:
    """The settings that `snas transfer` takes from the row where they are not given: all that results depend on."""
    more = ("space_arg", "init", "rescale", "first_layer", "last_layer", "seed")
    return (*(name for name in RULE_FIELDS if name in Settings.__dataclass_fields__), *more)
