"""What a user can set. The command line's flags, their help and the recorded settings all come from these fields."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from snas.budget import Budget
from snas.checks import (
    check_types,
    flattened,
    read_density,
    read_rules,
    require_choice,
    require_different,
    require_integer,
    require_name,
    split_list,
)
from snas.densities import check_density
from snas.errors import InputError
from snas.initialization import RULES, require_rule
from snas.training.rule import Augmentation, OptimizerName, Precision, PrecisionChoice, Schedule, TrainingRule

AUTO_TRAINS = ("static", "set", "rigl")  # what --train auto chooses from
_RULE = {item.name: item for item in fields(TrainingRule)}


PANELS = SEARCH, BUDGET, NETWORK, TRAINING, RUN = ("Search", "Budget", "Network and data", "Training", "Run")


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
    momentum: float = _rule("momentum")
    weight_decay: float = _rule("weight_decay")
    schedule: Schedule = _rule("schedule")
    label_smoothing: float = _rule("label_smoothing")
    augment: Augmentation = _rule("augment")
    precision: PrecisionChoice = option(
        "fp32",
        "Arithmetic of the forward pass; weights stay in float32. auto: bf16 for convolutions where it is faster.",
        panel=TRAINING,
    )
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
    kernel: str = option(
        "auto", "Linear layers that lack weights: dense, sparse (on the CPU); auto: the faster one.", panel=RUN
    )
    keep_weights: bool = option(
        False,
        "Keep the weights of the final networks beside the registry; snas weights ID gets them.",
        panel=RUN,
        shown="no",
    )
    record_gradient_flow: bool = option(
        False, "Record norms of the gradient at 11 epochs of each training (see analyze gradient-flow).", panel=RUN
    )
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
        require_choice("kernel", self.kernel, ("auto", "dense", "sparse"))
        require_choice("precision", self.precision, get_args(PrecisionChoice))
        self.rule(default_lr=0.1)

    def rule(self, *, default_lr: float, precision: Precision = "fp32") -> TrainingRule:
        """The training rule; `default_lr` serves where no learning rate was set, and `precision` is what was chosen."""
        values = {name: getattr(self, name) for name in _RULE}
        values["lr"] = default_lr if self.lr is None else self.lr
        return TrainingRule(**values | {"precision": precision})


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
        None,
        "One density per layer, per block, five along the depth, or one for all: layer, block, depth, uniform.",
        panel=SEARCH,
        shown="layer; depth with --shape",
    )
    mask: str = option(
        "random",
        "What chooses the kept weights of a layer: random, snip, synflow ...; several with commas, or auto: searched.",
        panel=SEARCH,
    )
    train: str = option(
        "static",
        "How the mask is trained: static (it stays), set, rigl; several with commas, or auto: searched.",
        panel=SEARCH,
    )
    shape: Mapping[str, Any] = option(
        dict, "Argument of the space to search, name=1,2,4 or name=1..6; may be repeated.", shown="none", panel=SEARCH
    )
    objectives: str = option(
        "accuracy", "accuracy alone, or with kept_weights or flops, commas between: finds a front.", panel=SEARCH
    )
    warm_start: str | None = option(
        None,
        "First candidates: none, rules (ERK, uniform, smart ratios), the id of a row, a file of densities, or methods "
        "whose own densities go before the rules: snip,synflow.",
        shown="rules inside a budget, else none",
        panel=SEARCH,
    )
    screen: str | None = option(
        None,
        "Signal before training that chooses among proposals where the registry shows that it helps: egf1, paths ...; "
        "egf1:8 of 8 proposals.",
        shown="none",
        panel=SEARCH,
    )
    brackets: int = option(1, "ASHA's brackets; each begins one rung later (Hyperband).", panel=SEARCH)
    confirm: int = option(
        3, "Candidates near the top that are trained again on fresh seeds before the winner is named.", panel=SEARCH
    )
    confirm_seeds: int = option(2, "Fresh seeds for each of them; 0: none.", panel=SEARCH)
    front: int = option(8, "With several objectives: most networks of the front to train in the end.", panel=SEARCH)
    density: float | None = option(None, "Keep exactly this fraction of all weights.", shown="none", panel=BUDGET)
    weights: int | None = option(None, "Keep exactly this number of weights.", shown="none", panel=BUDGET)
    max_density: float | None = option(None, "Keep at most this fraction.", shown="none", panel=BUDGET)
    min_density: float | None = option(
        None, "Keep at least this fraction.", shown="a tenth of the largest; a hundredth for a front", panel=BUDGET
    )
    max_weights: int | None = option(None, "Keep at most this number of weights.", shown="none", panel=BUDGET)
    max_flops: int | None = option(
        None, "At most so many operations for one example, 2 per kept weight and position.", shown="none", panel=BUDGET
    )
    floor: Mapping[str, Any] = option(
        dict, "Smallest density of a layer, name=F or pattern=F; may be repeated.", shown="none", panel=BUDGET
    )
    cap: Mapping[str, Any] = option(
        dict, "Largest density of a layer, name=F or pattern=F; may be repeated.", shown="none", panel=BUDGET
    )
    pin: Mapping[str, Any] = option(
        dict, "Fixed density of a layer, name=F or pattern=F; may be repeated.", shown="none", panel=BUDGET
    )
    baselines: str | None = option(
        None,
        "Methods to train beside the winner at its number of weights; or none.",
        shown="dense,snip,ldi; inside a budget erk too, and what --train names",
        panel=RUN,
    )
    evaluator: str = option(
        "auto",
        "What trains the candidates: serial, stacked (side by side), processes (several at a time), ray (a cluster); "
        "auto: what suits.",
        panel=RUN,
    )
    slots: int | None = option(
        None, "Candidates that train at a time.", shown="what memory and processor allow", panel=RUN
    )
    compile: str = option(
        "off",
        "on: what candidates side by side compute is compiled once for the whole search; for GPUs.",
        panel=RUN,
    )
    ray_address: str | None = option(
        None,
        "Ray cluster to train on, host:port of its head node, or auto for one on this machine; with --evaluator ray.",
        shown="RAY_ADDRESS, else a Ray of its own on this machine",
        panel=RUN,
    )
    resources: str | None = option(
        None,
        "What each candidate takes of a Ray cluster, cpu=1,gpu=0.25; with --evaluator ray.",
        shown="cpu=1, and gpu=1 where --device is a GPU",
        panel=RUN,
    )
    concurrency: int | None = option(
        None,
        "Most candidates at a time on a Ray cluster; with --evaluator ray.",
        shown="as many as it has room for",
        panel=RUN,
    )
    name: str | None = option(
        None, "Name of the study; the same name resumes it.", shown="from the settings", panel=RUN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("samples", self.samples, 1, 10**6)
        require_integer("eta", self.eta, 2, 10**6)
        require_integer("brackets", self.brackets, 1, 64)
        require_integer("confirm", self.confirm, 0, 1000)
        require_integer("confirm-seeds", self.confirm_seeds, 0, 1000)
        require_integer("front", self.front, 1, 1000)
        if self.slots is not None:
            require_integer("slots", self.slots, 1, 1024)
            if self.evaluator == "serial" and self.slots > 1:
                raise InputError(
                    f"slots is {self.slots}, but evaluator serial trains one at a time; leave one of them out"
                )
        require_choice("compile", self.compile, ("on", "off"))
        if self.compile == "on" and self.evaluator not in ("auto", "stacked"):
            raise InputError(
                f"compile is on, but evaluator {self.evaluator} compiles nothing; leave compile out, or choose stacked"
            )
        if self.evaluator == "stacked" and self.kernel == "sparse":
            raise InputError("evaluator stacked has kernels of its own; leave out kernel sparse, or choose serial")
        self._check_ray()
        for name in ("floor", "cap", "pin"):
            given = {
                layer: read_density(str(value), f"{name} of layer {layer!r}")
                for layer, value in flattened(getattr(self, name)).items()
            }
            object.__setattr__(self, name, given)
        self.budget()
        self._check_screen()
        self.baseline_names()
        from snas.evaluators.asha import Ladder

        Ladder(self.grace, self.epochs, self.eta, self.brackets)
        if self.name is not None:
            require_name(self.name)

    def budget(self) -> Budget:
        """What the network may keep."""
        names = ("density", "weights", "min_density", "max_density", "max_weights", "max_flops")
        return Budget(**{name: getattr(self, name) for name in names}, floors=self.floor, caps=self.cap)

    def evaluator_options(self) -> dict[str, Any]:
        """What the evaluator is told besides the slots."""
        if self.evaluator != "ray":
            return {}
        return {"address": self.ray_address, "resources": self.resources, "concurrency": self.concurrency}

    def _check_ray(self) -> None:
        """Raise InputError for settings of Ray that are wrong, or for another evaluator."""
        if self.concurrency is not None:
            require_integer("concurrency", self.concurrency, 1, 10_000)
        if self.evaluator == "ray":
            from snas.evaluators.ray_cluster import read_address, require_ray
            from snas.evaluators.resources import read_resources

            require_ray()
            if self.ray_address is not None:
                read_address(self.ray_address)
            if self.resources is not None:
                read_resources(self.resources)
            if self.slots is not None and self.concurrency is not None:
                raise InputError("slots and concurrency mean the same with evaluator ray; give one of them")
            return
        for name in ("ray_address", "resources", "concurrency"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"{name.replace('_', '-')} is for evaluator ray, not {self.evaluator}; give --evaluator ray, or "
                    "leave it out"
                )

    def _check_screen(self) -> None:
        """Write the screen in one way, so that a study keeps its identity; raise InputError for an impossible one."""
        if self.screen is None:
            return
        from snas.objectives import read_objectives
        from snas.screening import read_screen

        signal, proposals = read_screen(self.screen)
        if read_objectives(self.objectives):
            raise InputError(
                f"screen is {self.screen!r}, but a signal is known to go along with the accuracy alone; leave screen "
                "out, or search for accuracy alone"
            )
        object.__setattr__(self, "screen", f"{signal}:{proposals}")

    def baseline_names(self) -> list[str]:
        """The methods to compare with."""
        if self.baselines is not None:
            return read_baselines(self.baselines)
        names = ["dense", *(["erk"] if self.budget().bounded else []), "snip", "ldi"]
        return names + [train for train in read_rules("train", self.train, AUTO_TRAINS) if train != "static"]


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
    return (*(name for name in _RULE if name in Settings.__dataclass_fields__), *more)


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


def read_baselines(text: str) -> list[str]:
    """The methods that a list with commas names; "none" names none.

    Raises:
        InputError: if one is empty, or there twice.

    Example:
        >>> read_baselines("snip, erk"), read_baselines("none")
        (['snip', 'erk'], [])
    """
    if text == "none":
        return []
    names = split_list("baselines", text, example="dense,snip,erk")
    require_different("baseline", names)
    return names
