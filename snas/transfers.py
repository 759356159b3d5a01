"""The command `transfer` as a function: densities of one row, trained elsewhere beside Erdos-Renyi-kernel ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snas.baselines import describe_baseline, read_row, rule_of, target_of
from snas.bench import Bench
from snas.budget import Budget
from snas.carry_over import carry_over
from snas.commands import bench_of, make_settings, own_threads, require_known, settings_of
from snas.compare import Comparison
from snas.densities import Densities
from snas.errors import InputError
from snas.exports import Group
from snas.finals import train_entry
from snas.listener import Listener
from snas.pruning.methods import JOINED, Method, given_densities, join_rules, methods, open_method
from snas.ranking import rank, space_label
from snas.registry import Entry, Registry
from snas.results import Result, compare_with, make_result, require_trained
from snas.settings import TransferSettings, as_in_row, registry_path

if TYPE_CHECKING:
    from snas.data.base import Dataset
    from snas.search_spaces.base import SearchSpace


@dataclass(frozen=True)
class TransferResult:
    """Densities carried over, and the baselines beside them.

    Attributes:
        source: id of the row that they came from.
        registry: file that has all of it.
        carried: the network with the carried-over densities.
        baselines: method -> the same number of weights, trained on the same seeds; ERK under the same rule first.
    """

    source: int
    registry: Path
    carried: Result
    baselines: Mapping[str, Result]

    @property
    def differences(self) -> list[Comparison]:
        """The carried-over densities against each baseline by paired tests; those with fewer than 2 seeds are left
        out."""
        return compare_with(self.carried, self.baselines)

    def leaderboard(self) -> list[Group]:
        """The rows, ranked."""
        ids = {result.id for result in (self.carried, *self.baselines.values())}
        with Registry(self.registry, create=False) as registry:
            groups = [replace(group, rows=_only(group, ids)) for group in rank(registry)]
        return [group for group in groups if group.rows]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values, as `--format json` prints it."""
        return {
            "source": self.source,
            "registry": str(self.registry),
            "origin": self.carried.entry.source,
            "carried": self.carried.as_dict(),
            "baselines": {name: result.as_dict() for name, result in self.baselines.items()},
            "differences": [one.as_dict() for one in self.differences],
        }


@own_threads
def transfer(
    row: int,
    *,
    space: str | SearchSpace | None = None,
    dataset: str | Dataset | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> TransferResult:
    """Carry the densities of a row over to another data set, network or budget, and train them there beside ERK.

    What is not given is as the row has it: data, space, density, rule of mask and training, length of training. The
    learning rate of another space is its own. See `snas.carry_over` for what is carried, and its limits.

    Args:
        row: id of a leaderboard's row.
        space: a name, "module:factory", "file.py:factory", or a `SearchSpace`.
        dataset: a name, a .npz file, or a `Dataset`.
        listener: hears of progress.
        settings: fields of `TransferSettings`: density, mask, train, baselines, epochs, seed, final_seeds, registry ...

    Returns:
        The row with the carried-over densities and those of the baselines. Called again with the same settings,
        finished seeds are kept.

    Raises:
        InputError: for an unknown row, one without densities or that keeps everything, and anything out of range.
        SnasError: if no seed of the carried-over densities could be trained.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = f"{folder}/snas.db"
        ...     more = {"final_seeds": 1, "registry": file}
        ...     source = snas.prune("lenet-300-100", method="smart", density=0.1, epochs=1, **more)
        ...     result = snas.transfer(source.id, density=0.05, mask="random", **more)
        >>> result.carried.densities.kept_weights, list(result.baselines)
        (2510, ['erk'])
    """
    path = registry_path(settings.get("registry"))
    listener = listener or Listener()
    with Registry(path, create=False) as registry:
        source, known = read_row(str(row), registry)
        if known.kept_weights == known.total_weights:
            raise InputError(f"row {row} keeps every weight; there is nothing to carry over: choose a sparse one")
        require_known(source, space=space, dataset=dataset)
        usual = _usual(source, path, space=space, given=settings)
        chosen: TransferSettings = make_settings(
            TransferSettings,
            usual | {name: value for name, value in settings.items() if name != "space_arg"} | {"registry": path},
            space=source.space["name"] if space is None else space,
            dataset=source.dataset["name"] if dataset is None else dataset,
        )
        method = given_densities(_rule(source, chosen))
        beside = [open_method(name).name for name in chosen.baseline_names()]
        bench = bench_of(chosen, chosen.space if space is None else space, dataset or chosen.dataset, listener)
        density = known.density if chosen.density is None else chosen.density
        limits = Budget(density=density).limits(bench.space.layers, bench.space.pinned)
        described = {"": _describe(source, bench, method, carry_over(known, limits), chosen)}
        for name in dict.fromkeys([_with_erk(method), *beside]):
            recipe = open_method(name)
            aim = target_of(recipe, None if recipe.allocation == "dense" else density, bench.space, None)
            described[name] = describe_baseline(bench, name, aim, seed=chosen.seed)
        registry.use_environment(bench.environment)
        entries = {name: registry.add_entry(entry) for name, entry in described.items()}
        for entry in entries.values():
            train_entry(registry, entry, bench, seeds=chosen.final_seeds, listener=listener)
        results = {name: make_result(registry, entry, bench) for name, entry in entries.items()}
    carried = require_trained(results.pop(""))
    return TransferResult(row, Path(path), carried, results)


def _usual(source: Entry, path: str, *, space: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the row was trained with. Another space has a learning rate and arguments of its own."""
    recorded = settings_of(source, path, epochs=None)
    values = {name: getattr(recorded, name) for name in as_in_row()}
    arguments = {name.replace("-", "_"): value for name, value in dict(given.get("space_arg") or {}).items()}
    if space is None:
        return values | {"space_arg": {**values["space_arg"], **arguments}}
    return values | {"space_arg": arguments, "lr": None}


def _rule(source: Entry, chosen: TransferSettings) -> str:
    """The rule of mask and training: as set, else the row's."""
    mask, train = rule_of(source)
    return join_rules(chosen.mask or mask, chosen.train or train)


def _with_erk(method: Method) -> str:
    """The method that differs from a rule at given densities only by its densities, which are ERK's."""
    mask, _, train = method.name.partition(JOINED)
    if mask == "random":
        return open_method(f"{train}:allocation=erk").name if train else "erk"
    name, *options = mask.split(":")
    if name not in methods.names():  # a score alone
        name, options = "erk", [f"score={name}", "rescale=off"]
    options = [option for option in options if not option.startswith("allocation=")]
    return open_method(join_rules(":".join([name, *options, "allocation=erk"]), train or "static")).name


def _describe(source: Entry, bench: Bench, method: Method, densities: Densities, chosen: TransferSettings) -> Entry:
    """The row of the carried-over densities, not stored yet. Equal settings give equal keys."""
    space, data, name = bench.space.describe(), bench.describe_dataset(), chosen.name or f"transfer-{source.id}"
    identity = [space, data, bench.describe_rule(), method.name, densities.kept, chosen.seed, name, source.id]
    return Entry(
        key="transfer " + json.dumps(identity),
        name=name,
        kind="searched",
        method="transferred",
        strategy=f"row {source.id}",
        space=space,
        dataset=data,
        rule=bench.describe_rule(method),
        mask_rule=method.name,
        seed=chosen.seed,
        kept_weights=densities.kept_weights,
        total_weights=densities.total_weights,
        kept=densities.counts,
        environment=bench.environment,
        source=_origin(source),
    )


def _origin(source: Entry) -> str:
    """Where densities came from, on one line."""
    found = f"{source.strategy}, {source.mask_rule}" if source.kind == "searched" else source.method
    cost = f", {source.search_epochs:,} epochs of search" if source.search_epochs else ""
    place = f"{space_label(source.space)} on {source.dataset['name']}"
    kept = f"{source.kept_weights:,} of {source.total_weights:,} weights"
    return f"densities of row {source.id} ({source.name}: {found}; {place}, {kept}{cost}), carried over"


def _only(group: Group, ids: set[int]) -> tuple[Any, ...]:
    """A group's rows with these ids, ranked among themselves."""
    rows: Sequence[Any] = [row for row in group.rows if row.id in ids]
    return tuple(replace(row, rank=None if row.rank is None else place) for place, row in enumerate(rows, start=1))
