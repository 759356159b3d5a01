"""What a user can set. The command line's flags, their help and the recorded settings all come from these fields."""

from __future__ import annotations

import numbers
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from snas.densities import check_density
from snas.errors import InputError
from snas.initialization import RULES, require_rule
from snas.training.rule import Augmentation, OptimizerName, Precision, Schedule, TrainingRule

_RULE = {item.name: item for item in fields(TrainingRule)}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


PANELS = SEARCH, NETWORK, TRAINING, RUN = ("Search", "Network and data", "Training", "Run")


def option(default: Any, help: str, *, panel: str = NETWORK, shown: str | None = None) -> Any:
    """A settings field: its default, its help, the help's panel, and how a default that is computed later is shown."""
    metadata = {"help": help, "shown": shown, "panel": panel}
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def _rule(name: str, *, shown: str | None = None) -> Any:
    item = _RULE[name]
    return option(item.default if shown is None else None, item.metadata["help"], panel=TRAINING, shown=shown)


def registry_path(path: str | None) -> str:
    """The registry file to use: the one named, else SNAS_REGISTRY, else snas.db."""
    return path or os.environ.get("SNAS_REGISTRY") or "snas.db"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `search`, `prune` and `train` have in common."""

    space: str = option("resnet32", "Search space: a name, module:factory or file.py:factory.")
    space_arg: Mapping[str, Any] = option(dict, "Argument of the space, key=value; may be repeated.", shown="none")
    dataset: str = option("digits", "Data set: a name or a file.npz with arrays x, y.")
    data_dir: str | None = option(None, "Folder with the data set's files.", shown="a cache folder")
    epochs: int = _rule("epochs")
    batch_size: int = _rule("batch_size")
    lr: float | None = _rule("lr", shown="the space's own")
    optimizer: OptimizerName = _rule("optimizer")
    weight_decay: float = _rule("weight_decay")
    schedule: Schedule = _rule("schedule")
    label_smoothing: float = _rule("label_smoothing")
    augment: Augmentation = _rule("augment")
    precision: Precision = _rule("precision")
    init: str = option(
        "he", f"Initial weights: {', '.join(RULES)}; normal:STD and truncated:STD set the deviation.", panel=TRAINING
    )
    rescale: str = option(
        "auto", "Rescale initial weights by the masked fan-in: on, off; auto: for random masks.", panel=TRAINING
    )
    first_layer: str = option("search", "First layer: search (a density as the others have), or dense.")
    last_layer: str = option("search", "Last layer: search (a density as the others have), or dense.")
    seed: int = option(0, "Seed of everything random.", panel=RUN)
    final_seeds: int = option(3, "Seeds on which each final network is trained from scratch; 0: none.", panel=RUN)
    device: str = option("auto", "auto, cpu, cuda or mps.", panel=RUN)
    threads: int | None = option(None, "Threads of one operation.", shown="all cores", panel=RUN)
    registry: str | None = option(
        None, "Registry file; environment variable SNAS_REGISTRY.", shown="snas.db", panel=RUN
    )

    def __post_init__(self) -> None:
        check_types(self)
        require_integer("seed", self.seed, 0, 2**63 - 1)
        require_integer("final-seeds", self.final_seeds, 0, 1000)
        if self.threads is not None:
            require_integer("threads", self.threads, 1, 1024)
        require_rule(self.init)
        require_choice("rescale", self.rescale, ("auto", "on", "off"))
        self.rule(default_lr=0.1)

    def rule(self, *, default_lr: float) -> TrainingRule:
        """The training rule; `default_lr` serves where no learning rate was set."""
        values = {name: getattr(self, name) for name in _RULE}
        values["lr"] = default_lr if self.lr is None else self.lr
        return TrainingRule(**values)


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """What `snas search` can be told.

    Raises:
        InputError: for a value outside its range.
    """

    strategy: str = option("bayes", "What proposes densities: random, bayes, evolution ...", panel=SEARCH)
    strategy_arg: Mapping[str, Any] = option(
        dict, "Argument of the strategy, key=value; may be repeated.", shown="none", panel=SEARCH
    )
    samples: int = option(24, "Candidates to try in all; may grow when a search is resumed.", panel=SEARCH)
    grace: int = option(1, "Epochs that every candidate gets before it can be stopped.", panel=SEARCH)
    eta: int = option(2, "ASHA's reduction factor: the best 1/eta of a rung go on.", panel=SEARCH)
    representation: str | None = option(
        None, "One density per layer, per block, or one for all: layer, block, uniform.", panel=SEARCH, shown="layer"
    )
    mask: str = option("random", "What chooses the kept weights of a layer: random, snip, synflow ...", panel=SEARCH)
    evaluator: str = option("serial", "What trains the candidates.", panel=RUN)
    name: str | None = option(
        None, "Name of the study; the same name resumes it.", shown="from the settings", panel=RUN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("samples", self.samples, 1, 10**6)
        require_integer("eta", self.eta, 2, 10**6)
        from snas.evaluators.asha import Ladder

        Ladder(self.grace, self.epochs, self.eta)
        if self.name is not None:
            require_name(self.name)


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


def split_list(what: str, text: str, *, example: str) -> list[str]:
    """The items of a list with commas between.

    Raises:
        InputError: if there is none, or one is empty.

    Example:
        >>> split_list("methods", "snip, erk", example="dense,snip")
        ['snip', 'erk']
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        wrong = "is empty" if len(items) == 1 else f"is {text!r}, whose item {items.index('') + 1} is empty"
        raise InputError(f"{what} {wrong}; expected items with commas between, as in {example}")
    return items


def listed(values: Any) -> str:
    """Methods or densities as the text that `split_list` takes apart; numbers keep all their digits.

    Example:
        >>> listed(["snip", "erk"]), listed([0.1, 0.05]), listed(0.1), listed("snip,erk")
        ('snip,erk', '0.1,0.05', '0.1', 'snip,erk')
    """
    if isinstance(values, str):
        return values
    items = values if isinstance(values, Iterable) else [values]
    return ",".join(repr(float(item)) if isinstance(item, numbers.Real) else str(item) for item in items)


def read_density(text: str) -> float:
    """The density that `text` says; raises InputError where it says none."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"density is {text!r}; expected 0 < density <= 1") from None
    return check_density(value)


def require_different(what: str, items: Sequence[str]) -> None:
    """Raise InputError if an item is there twice."""
    twice = next((item for item in items if items.count(item) > 1), None)
    if twice is not None:
        raise InputError(f"{what} {twice!r} is given twice; give each once")


def plain_type(hint: Any) -> Any:
    """The type that a field's values have: str, int, float, bool, or dict for key=value pairs."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return plain_type(next(choice for choice in typing.get_args(hint) if choice is not types.NoneType))
    if origin is typing.Literal:
        return str
    return hint if origin is None else dict


def check_types(settings: Any) -> None:
    """Bring numbers of any kind (NumPy's too) to int and float, in place; raise InputError for other types."""
    hints = typing.get_type_hints(type(settings))
    for item in fields(settings):
        value, hint = getattr(settings, item.name), hints[item.name]
        if value is None and types.NoneType in typing.get_args(hint):
            continue
        kind = plain_type(hint)
        fits: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real, dict: Mapping, str: (str, os.PathLike)}
        if not isinstance(value, fits.get(kind, kind)) or (isinstance(value, bool) and kind is not bool):
            shown = item.name.replace("_", "-")
            raise InputError(f"{shown} is {value!r}; expected {'key=value pairs' if kind is dict else kind.__name__}")
        object.__setattr__(settings, item.name, kind(value))


def require_integer(what: str, value: Any, low: int, high: int) -> None:
    """Raise InputError unless `value` is an integer in [low, high]."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        small = not isinstance(value, int) or value < low
        bound = f"an integer of at least {low}" if high >= 10**6 and small else f"an integer from {low} to {high}"
        raise InputError(f"{what} is {value}; expected {bound}")


def require_choice(what: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{what} is {value!r}; choices: {', '.join(choices)}")


def require_name(name: str) -> None:
    """Raise InputError unless `name` can name a study: safe in files, tables and shells."""
    if not NAME.fullmatch(name):
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise InputError(
            f"name is {shown!r}; expected 1 to 100 letters, digits, '.', '_', '+' or '-', first a letter or digit"
        )
