"""What a search is made of, from what the user set: what points stand for, who proposes them, who is trained longer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from snas.bench import Bench
from snas.budget import Budget
from snas.checks import read_rules
from snas.encoding import AUTO_MASKS, Encoding
from snas.errors import InputError
from snas.evaluators.asha import Ladder
from snas.objectives import read_objectives
from snas.own_densities import measure_own, read_methods
from snas.pruning.methods import given_densities, join_rules, open_method
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.catalog import open_space
from snas.search_spaces.shapes import read_shapes, usual_shape
from snas.settings import AUTO_TRAINS, SearchSettings
from snas.strategies.base import Bound, Strategy, make_strategy
from snas.warm_starts import Source, Start, open_starts


@dataclass(frozen=True)
class Plan:
    """All that decides which candidates a search tries and how long it trains them.

    Attributes:
        encoding: what points stand for.
        strategy: proposes points.
        ladder: who is trained longer.
        objectives: costs that count beside the accuracy.
        warm_start: where the first points come from.
        starts: points that are tried before the strategy is asked, and between.
        own_strategy: whether the strategy is an object of the user's.
    """

    encoding: Encoding
    strategy: Strategy
    ladder: Ladder
    objectives: tuple[str, ...]
    warm_start: str
    starts: tuple[Start, ...]
    own_strategy: bool

    def identity(self, bench: Bench, settings: SearchSettings) -> dict[str, Any]:
        """What must not change when a study is resumed: everything that its scores depend on. What is as usual is left
        out, so that a study keeps its identity when there is more to choose from."""
        usual = {
            "space": bench.space.describe(),
            "dataset": bench.describe_dataset(),
            "strategy": self._describe_strategy(settings),
            "mask": settings.mask,
            "rule": bench.describe_rule(),
            "asha": {"grace": settings.grace, "eta": settings.eta},
            "seed": settings.seed,
        }
        more: dict[str, Any] = self.encoding.describe()
        if self.ladder.brackets > 1:
            more["brackets"] = self.ladder.brackets
        if self.objectives:
            more["objectives"] = ["accuracy", *self.objectives]
        if self.starts:
            points = json.dumps([[origin, point.round(9).tolist()] for origin, point in self.starts])
            more["warm-start"] = {"from": self.warm_start, "points": hashlib.sha256(points.encode()).hexdigest()[:12]}
        if settings.screen:
            more["screen"] = settings.screen
        plain: dict[str, Any] = json.loads(json.dumps(usual | more))
        return plain

    def notes(self) -> list[str]:
        """What a user should know before it starts: where it begins, and what cannot be chosen."""
        notes = []
        if self.starts:
            origins = [origin for origin, _ in self.starts]
            more = f" and {len(origins) - 6} more" if len(origins) > 6 else ""
            notes.append(f"first candidates: {', '.join(origins[:6])}{more}")
        if left_out := self.encoding.left_out:
            shown = "; ".join(" ".join(f"{key}={value}" for key, value in shape.items()) for shape in left_out[:6])
            more = " ..." if len(left_out) > 6 else ""
            every = len(left_out) + len(self.encoding.architectures)
            notes.append(f"{len(left_out)} of {every} shapes cannot meet the budget: {shown}{more}")
        return notes

    def _describe_strategy(self, settings: SearchSettings) -> dict[str, Any]:
        """Name and options; for an object its class and whatever of its attributes reads the same in every process."""
        if not self.own_strategy:
            given = {key: str(value) for key, value in settings.strategy_arg.items()}
            return {"name": settings.strategy, "arguments": given}
        strategy = self.strategy
        options = {
            key: repr(value) for key, value in getattr(strategy, "__dict__", {}).items() if " at 0x" not in repr(value)
        }
        return {"name": f"{type(strategy).__module__}.{type(strategy).__qualname__}", "arguments": options}


def make_plan(
    bench: Bench,
    settings: SearchSettings,
    strategy: Strategy | None = None,
    source: Source | None = None,
) -> Plan:
    """Put a search together.

    Args:
        bench: data, network and training.
        settings: what the user set.
        strategy: an object in place of the settings' name.
        source: densities of a row or file that a warm start names, from `open_source`; those of methods are measured.

    Raises:
        InputError: for anything unknown or contradictory, and a budget that cannot be met.
    """
    objectives = read_objectives(settings.objectives)
    budget = settings.budget()
    if objectives and not budget.bounded:
        budget = replace(budget, max_density=1.0)
    if objectives and budget.exact:
        raise InputError("an exact budget leaves one number of weights; with several objectives give --max-density")
    if objectives and budget.min_density is None:
        budget = _reaching_down(budget, bench.space)
    shapes = read_shapes(settings.shape, fixed=settings.space_arg)
    encoding = Encoding(
        bench.space,
        budget=budget or None,
        pins=settings.pin,
        masks=tuple(given_densities(mask).name for mask in read_rules("mask", settings.mask, AUTO_MASKS)),
        trains=read_rules("train", settings.train, AUTO_TRAINS),
        shapes=shapes,
        usual=usual_shape(settings.space, shapes),
        reopen=_reopening(bench, settings) if shapes else None,
    )
    chosen = strategy or make_strategy(settings.strategy, settings.strategy_arg)
    if isinstance(chosen, Bound):
        chosen = chosen.bind(encoding)
    warm_start = settings.warm_start or ("rules" if budget.bounded else "none")
    task = bench.task.of(encoding.space_of({}))
    own = [measure_own(method, task, seed=settings.seed) for method in read_methods(settings.warm_start)]
    sources = own if source is None else [source]
    return Plan(
        encoding=encoding,
        strategy=chosen,
        ladder=Ladder(settings.grace, settings.epochs, settings.eta, settings.brackets),
        objectives=objectives,
        warm_start=warm_start,
        starts=tuple(open_starts(warm_start, encoding, sources)),
        own_strategy=strategy is not None,
    )


def _reaching_down(budget: Budget, space: SearchSpace) -> Budget:
    """The budget with a hundredth of its most as its least, where its layers allow: a front is to reach that far."""
    most = min(budget.max_density or 1.0, (budget.max_weights or space.total_weights) / space.total_weights)
    least = replace(budget, min_density=most / 100)
    try:
        least.limits(space.layers, space.pinned)
    except InputError:
        return budget  # told where the budget is at fault
    return least


def require_rules(settings: SearchSettings, *, own_strategy: bool) -> None:
    """Raise InputError for an unknown strategy, rule, objective or baseline, before any data are loaded."""
    if not own_strategy:
        make_strategy(settings.strategy, settings.strategy_arg)
    for mask in read_rules("mask", settings.mask, AUTO_MASKS):
        for train in read_rules("train", settings.train, AUTO_TRAINS):
            given_densities(join_rules(mask, train))
    for name in settings.baseline_names():
        open_method(name)
    read_objectives(settings.objectives)
    read_methods(settings.warm_start)
    if settings.screen and settings.strategy == "sobol" and not own_strategy:
        raise InputError(
            "screen takes one of several proposals, and sobol has a single sequence; choose another strategy"
        )
    read_shapes(settings.shape, fixed=settings.space_arg)


def _reopening(bench: Bench, settings: SearchSettings) -> Any:
    """What makes the bench's space with other arguments."""

    def reopen(shape: Mapping[str, Any]) -> SearchSpace:
        return open_space(
            settings.space,
            input_shape=bench.space.input_shape,
            classes=bench.space.classes,
            arguments={**settings.space_arg, **shape},
            representation=bench.space.representation,
            first_layer=settings.first_layer,
            last_layer=settings.last_layer,
        )

    return reopen
