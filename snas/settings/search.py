"""What a search can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snas.budget import Budget
from snas.checks import flattened, read_density, read_rules, require_choice, require_integer, require_name
from snas.errors import InputError
from snas.settings.base import BUDGET, RUN, SEARCH, Settings, option, read_baselines

AUTO_TRAINS = ("static", "set", "rigl")  # what --train auto chooses from


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
