"""What all commands that train have in common, and how a setting is declared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from snas.checks import check_types, require_choice, require_different, require_integer, split_list
from snas.initialization import RULES, require_rule
from snas.training.rule import Augmentation, OptimizerName, Precision, PrecisionChoice, Schedule, TrainingRule

RULE_FIELDS = {item.name: item for item in fields(TrainingRule)}

PANELS = SEARCH, BUDGET, NETWORK, TRAINING, RUN = ("Search", "Budget", "Network and data", "Training", "Run")


def option(default: Any, help: str, *, panel: str = NETWORK, shown: str | None = None) -> Any:
    """A settings field: its default, its help, the help's panel, and how a default that is computed later is shown."""
    metadata = {"help": help, "shown": shown, "panel": panel}
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def _rule(name: str, *, shown: str | None = None) -> Any:
    item = RULE_FIELDS[name]
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
        values = {name: getattr(self, name) for name in RULE_FIELDS}
        values["lr"] = default_lr if self.lr is None else self.lr
        return TrainingRule(**values | {"precision": precision})


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
