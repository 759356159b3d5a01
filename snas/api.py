"""The commands as functions: search, prune, train. The command line does nothing that they do not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snas.checks import require_integer
from snas.commands import bench_of, make_settings, own_threads, require_known, settings_of
from snas.errors import InputError
from snas.exports import Group
from snas.listener import Listener
from snas.locks import owned
from snas.ranking import Filter, rank
from snas.registries.heartbeat import at_work
from snas.registry import Entry, Registry
from snas.results import Result, SearchResult, make_result, require_trained
from snas.settings import PruneSettings, SearchSettings, registry_path

if TYPE_CHECKING:
    from snas.bench import Bench
    from snas.budget import Budget
    from snas.data.base import Dataset
    from snas.search_spaces.base import SearchSpace
    from snas.strategies.base import Strategy


@own_threads
def search(
    space: str | SearchSpace = "resnet32",
    *,
    dataset: str | Dataset = "digits",
    strategy: str | Strategy = "bayes",
    budget: Budget | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> SearchResult:
    """Search for the densities of a sparse network, then train the best one and the baselines alike.

    Args:
        space: a name, "module:factory", "file.py:factory", or a `SearchSpace`.
        dataset: a name, a .npz file, or a `Dataset` (see `snas.from_arrays`).
        strategy: a name, or any object with `ask`.
        budget: what a network may keep, in place of the settings density, max_density, floor ...
        listener: hears of progress.
        settings: fields of `SearchSettings`: samples, epochs, grace, eta, seed, final_seeds, registry, name ...

    Returns:
        The best candidate and the baselines. Called again with the same settings, the search is resumed.

    Raises:
        InputError: for anything unknown, missing, out of range or contradictory.
        SnasError: if no candidate could be trained.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = snas.search(
        ...         "lenet-300-100", strategy="random", samples=2, epochs=1, final_seeds=1, registry=f"{folder}/snas.db"
        ...     )
        >>> sorted(result.baselines)
        ['dense', 'ldi', 'snip']
        >>> result.best.densities.kept_weights == result.baselines["snip"].densities.kept_weights
        True
    """
    started = time.perf_counter()
    if budget is not None:
        settings = _with_budget(settings, budget)
    if isinstance(settings.get("warm_start"), int):  # the id of a row
        settings["warm_start"] = str(settings["warm_start"])
    chosen = make_settings(SearchSettings, settings, space=space, dataset=dataset, strategy=strategy)
    listener = listener or Listener()
    from snas.evaluators.base import evaluators
    from snas.own_densities import read_methods
    from snas.plan import make_plan, require_rules
    from snas.study import open_study, run_finals, run_search
    from snas.warm_starts import open_source

    strategy_object = None if isinstance(strategy, str) else strategy
    evaluators.get(chosen.evaluator)
    require_rules(chosen, own_strategy=strategy_object is not None)
    if chosen.shape and not isinstance(space, str):
        raise InputError(
            "shape is for spaces by name; a SearchSpace object has one shape: name a factory, file.py:factory"
        )
    representation = chosen.representation or ("depth" if chosen.shape else None)
    named = read_methods(chosen.warm_start)  # their densities are measured when there are data
    source = None if named else open_source(chosen.warm_start, registry_path(chosen.registry))
    bench = bench_of(chosen, space, dataset, listener, representation=representation)
    plan = make_plan(bench, chosen, strategy_object, source)  # raises before there is a file
    with Registry(registry_path(chosen.registry)) as registry:
        registry.use_environment(bench.environment)
        study, resumed = open_study(registry, bench, chosen, plan)
        with owned(registry, f"study-{study.name}"), at_work(registry, study):
            study = registry.set_samples(study, chosen.samples)
            done = len(registry.candidates(study))
            if chosen.samples < study.samples:
                listener.on_message(
                    f"study {study.name} has {study.samples} candidates; samples {chosen.samples} is ignored"
                )
            listener.on_study(study.name, resumed=resumed, samples=study.samples, done=done, epochs=chosen.epochs)
            for text in plan.notes():
                listener.on_message(text)
            conductor = run_search(registry, study, bench, chosen, plan, listener=listener)
            found = run_finals(registry, study, bench, chosen, plan, listener=listener)
        front = [{name: make_result(registry, entry, own) for name, entry in entries.items()} for own, entries in found]
        results = dict(front[0])
        best = results.pop("best")
        return SearchResult(
            study=study.name,
            registry=registry.path,
            space=bench.space.name,
            dataset=bench.dataset.name,
            strategy=study.identity["strategy"]["name"],
            candidates=len(conductor.history),
            epochs_trained=best.entry.search_epochs,
            wall_seconds=time.perf_counter() - started,
            best=best,
            baselines=results,
            front=tuple(entries["best"] for entries in front) if plan.objectives else (),
            front_baselines=tuple({k: v for k, v in entries.items() if k != "best"} for entries in front),
            objectives=plan.objectives,
        )


@own_threads
def prune(
    space: str | SearchSpace = "resnet32",
    *,
    method: str = "snip",
    density: float | None = None,
    densities_from: str | int | Path | Mapping[str, Any] | None = None,
    dataset: str | Dataset = "digits",
    listener: Listener | None = None,
    **settings: Any,
) -> Result:
    """Train one baseline: a network pruned by a rule, on `final_seeds` seeds.

    Args:
        space: a name, "module:factory", "file.py:factory", or a `SearchSpace`.
        method: "dense", "random", "snip", "rigl" ..., with settings of its own as in "snip:target=uniform".
        density: fraction of the prunable weights to keep, 0 < density <= 1; not for "dense".
        densities_from: densities for each layer in place of one for all: the id of a row, a file (.json, .toml, .csv),
            or a mapping of layer to density.
        dataset: a name, a .npz file, or a `Dataset`.
        listener: hears of progress.
        settings: fields of `PruneSettings`.

    Returns:
        Its row in the registry. Called again with the same settings, finished seeds are kept.

    Raises:
        InputError: for anything unknown, out of range or contradictory, and a density too low for one weight per layer.
        SnasError: if the method left a network that cannot work, on every seed.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = snas.prune(
        ...         "lenet-300-100", method="snip", density=0.1, epochs=1, final_seeds=1, registry=f"{folder}/snas.db"
        ...     )
        >>> result.densities.kept_weights == round(0.1 * result.densities.total_weights)
        True
    """
    chosen = make_settings(
        PruneSettings,
        settings,
        space=space,
        dataset=dataset,
        method=method,
        density=density,
        densities_from=densities_from if isinstance(densities_from, (str, Path)) else None,
    )
    from snas.baselines import enter, read_densities, target_of
    from snas.finals import train_entry
    from snas.pruning.methods import open_method

    recipe = open_method(chosen.method)
    listener = listener or Listener()
    bench = bench_of(chosen, space, dataset, listener)
    with Registry(registry_path(chosen.registry)) as registry:
        given = None if densities_from is None else read_densities(densities_from, bench.space, registry)
        target = target_of(recipe, chosen.density, bench.space, given)
        registry.use_environment(bench.environment)
        entry = enter(registry, bench, chosen.method, target, seed=chosen.seed, name=chosen.name)
        train_entry(registry, entry, bench, seeds=chosen.final_seeds, listener=listener)
        return require_trained(make_result(registry, entry, bench))


@own_threads
def train(
    row: int,
    *,
    space: str | SearchSpace | None = None,
    dataset: str | Dataset | None = None,
    data_dir: str | None = None,
    epochs: int | None = None,
    final_seeds: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    kernel: str = "auto",
    keep_weights: bool = False,
    registry: str | None = None,
    listener: Listener | None = None,
) -> Result:
    """Retrain a recorded architecture longer, or on more seeds.

    Args:
        row: id of a leaderboard's row.
        space: needed only for a space of the user's own code, which is never run because a file names it.
        dataset: needed only for data that have no name of their own.
        data_dir: folder with the data set's files.
        epochs: training length; another length than before makes a row of its own, an equal one adds seeds.
        final_seeds: seeds to have in all; default: as many as the row has, 3 where it has none.
        device: where to train.
        threads: threads of one operation.
        kernel: of linear layers that lack weights: dense, sparse, or auto, the faster one.
        keep_weights: whether to keep the trained networks (see `snas.load_network`); finished seeds whose weights were
            not kept are trained again for them.
        registry: the registry file.
        listener: hears of progress.

    Raises:
        InputError: for an unknown row, or data or a space other than the row's.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = f"{folder}/snas.db"
        ...     short = snas.prune("lenet-300-100", density=0.1, epochs=1, final_seeds=1, registry=file)
        ...     longer = snas.train(short.id, epochs=2, registry=file)
        >>> longer.row.epochs, longer.row.seeds, longer.row.kept_weights == short.row.kept_weights
        (2, 1, True)
    """
    path = registry_path(registry)
    with Registry(path, create=False) as opened:
        entry = opened.find_entry(row)
        if entry.cited:
            raise InputError(f"row {row} is a published figure; there is nothing to train")
        from snas.finals import train_entry

        seeds = len(opened.runs(entry)) or 3 if final_seeds is None else final_seeds
        require_integer("final-seeds", seeds, 1, 1000)
        chosen = settings_of(
            entry,
            path,
            epochs=epochs,
            final_seeds=seeds,
            device=device,
            threads=threads,
            kernel=kernel,
            keep_weights=keep_weights,
        )
        chosen = replace(chosen, data_dir=data_dir)
        wanted_space = space if space is not None else chosen.space
        wanted_data = dataset if dataset is not None else chosen.dataset
        require_known(entry, space=space, dataset=dataset)
        if isinstance(wanted_space, str):
            chosen = replace(chosen, space=wanted_space)
        if isinstance(wanted_data, str):
            chosen = replace(chosen, dataset=wanted_data)
        listener = listener or Listener()
        bench = bench_of(chosen, wanted_space, wanted_data, listener)
        _require_same(entry, bench)
        opened.use_environment(bench.environment)
        if bench.task.rule.epochs != entry.rule["epochs"]:
            entry = _with_length(opened, entry, bench)
        train_entry(opened, entry, bench, seeds=seeds, listener=listener)
        return require_trained(make_result(opened, entry, bench))


def leaderboard(registry: str | Path | None = None, *, plot: str | Path | None = None, **chosen: Any) -> list[Group]:
    """Rank what a registry has.

    Args:
        registry: the file; SNAS_REGISTRY or snas.db by default.
        plot: a .png, .svg or .pdf file for a picture of accuracy and cost, with the front of `pareto`
            ("accuracy,kept_weights" where it is not given); needs matplotlib (`pip install 'snas[plots]'`).
        chosen: fields of `Filter`: space, dataset, study, max_density, max_weights, epochs, pareto.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for density in (0.1, 0.2):
        ...         _ = snas.prune(
        ...             "lenet-300-100", density=density, epochs=1, final_seeds=1, registry=f"{folder}/snas.db"
        ...         )
        ...     groups = snas.leaderboard(f"{folder}/snas.db", max_density=0.15)
        >>> [row.density for group in groups for row in group.rows]
        [0.1]
    """
    path = registry_path(None if registry is None else str(registry))
    if plot is None:
        with Registry(path, create=False) as opened:
            return rank(opened, Filter(**chosen))
    from snas.ranking import contenders
    from snas.report.front import DEFAULT, read_pareto
    from snas.report.plot import draw_fronts, require_plot

    picture = require_plot(str(plot))
    wanted = Filter(**{**chosen, "pareto": chosen.get("pareto") or DEFAULT})
    with Registry(path, create=False) as opened:
        draw_fronts(contenders(opened, wanted), read_pareto(str(wanted.pareto)), picture)
        return rank(opened, wanted)


def _with_budget(settings: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    """The settings with a budget's fields among them."""
    names = {"floors": "floor", "caps": "cap"}
    given = {names.get(name, name): value for name, value in budget.describe().items()}
    both = sorted(given.keys() & settings.keys())
    if both:
        raise InputError(f"{both[0]} is given, and a budget that says it too; give one of them")
    if "whole" in given:
        raise InputError("the budget says what its densities are fractions of; a search takes the space's own weights")
    return {**settings, **given}


def _require_same(entry: Entry, bench: Bench) -> None:
    for key in ("fingerprint", "split"):
        if bench.describe_dataset()[key] != entry.dataset[key]:
            raise InputError(f"row {entry.id} was trained on other data (or another split) than {bench.dataset.name!r}")
    for key in ("layers", "network"):
        if bench.space.describe()[key] != entry.space[key]:
            raise InputError(f"space {bench.space.name!r} is another network than that of row {entry.id}")


def _with_length(registry: Registry, entry: Entry, bench: Bench) -> Entry:
    """The entry of the same architecture with the bench's training length, stored if it is new."""
    epochs = bench.task.rule.epochs
    origin = entry.key.partition(" @epochs ")[0]
    first = registry.find_key(origin)
    if first is not None and first.rule["epochs"] == epochs:
        return first
    from snas.finals import epochs_of

    rule = {**entry.rule, "epochs": epochs}
    longer = replace(entry, key=f"{origin} @epochs {epochs}", rule=rule, environment=bench.environment)
    epochs_of(longer)  # raises where they are too few for the method, before there is a row
    return registry.add_entry(longer)
