"""The command `sweep` as a function."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snas.baselines import read_densities
from snas.checks import listed
from snas.commands import bench_of, make_settings, own_threads
from snas.data.base import Dataset
from snas.errors import InputError
from snas.listener import Listener
from snas.registry import Registry
from snas.search_spaces.base import SearchSpace
from snas.settings import SweepSettings, registry_path
from snas.sweeps.plan import make_plan, open_methods
from snas.sweeps.result import SweepResult, read_result
from snas.sweeps.run import announce, train_places
from snas.sweeps.workers import require_names, train_in_workers, with_threads


@own_threads
def sweep(
    space: str | SearchSpace = "resnet32",
    *,
    methods: str | Sequence[str],
    densities: str | float | Sequence[float] | None = None,
    densities_from: str | int | Path | Mapping[str, Any] | None = None,
    seeds: int = 3,
    dataset: str | Dataset = "digits",
    reference: str | None = None,
    jobs: int = 1,
    listener: Listener | None = None,
    **settings: Any,
) -> SweepResult:
    """Train a table: every method at every density, alike and on the same seeds; then compare the methods in pairs.

    Each cell is the row that `prune` makes with the same settings; what is finished is not trained again, so that the
    same call resumes, and more methods, densities or seeds extend the table. Several processes may work on one sweep.

    Args:
        space: a name, "module:factory", "file.py:factory", or a `SearchSpace`.
        methods: names as for `prune`, or a text with commas between; "dense" is trained once.
        densities: fractions of the prunable weights to keep, or a text with commas between.
        densities_from: densities for each layer in their place, as for `prune`: a table of one column.
        seeds: how often each network is trained; the table is of these seeds also where rows have more.
        dataset: a name, a .npz file, or a `Dataset`.
        reference: the method that the others are compared with; None: the best mean of each density.
        jobs: processes that train side by side, for spaces and data by name. Numbers are the same with any, if
            `threads` is: it is shared between the jobs unless set, and changes how sums are rounded. A script that asks
            for more than one needs `if __name__ == "__main__":`.
        listener: hears of progress.
        settings: fields of `SweepSettings`.

    Returns:
        Cells, comparisons and tables. A method that is refused or cannot reach a density has a cell that says so.

    Raises:
        InputError: for anything unknown, missing, twice there, out of range or contradictory; nothing is trained then.
        SnasError: if a process of several jobs died.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = snas.sweep(
        ...         "lenet-300-100", methods="dense,er", densities=[0.05], seeds=1, epochs=1, registry=f"{folder}/r.db"
        ...     )
        >>> [(cell.method, cell.kept_weights, len(cell.accuracies)) for cell in result.cells]
        [('dense', 50200, 1), ('er', 2510, 1)]
    """
    started = time.perf_counter()
    chosen = make_settings(
        SweepSettings,
        settings,
        space=space,
        dataset=dataset,
        methods=listed(methods),
        densities=None if densities is None else listed(densities),
        densities_from=densities_from if isinstance(densities_from, (str, Path)) else None,
        seeds=seeds,
        reference=reference,
        jobs=jobs,
    )
    if densities is not None and densities_from is not None:
        raise InputError("densities and densities-from contradict each other; give one of them")
    recipes = open_methods(chosen, given=densities_from is not None)
    if jobs > 1:
        require_names(space, dataset)
    chosen = with_threads(chosen)
    listener = listener or Listener()
    bench = bench_of(chosen, space, dataset, listener)
    with Registry(registry_path(chosen.registry)) as registry:
        given = None if densities_from is None else read_densities(densities_from, bench.space, registry)
        plan = make_plan(chosen, recipes, bench.space, given)
        registry.use_environment(bench.environment)
        left = announce(registry, bench, plan.places, seeds=chosen.seeds, listener=listener)
        if chosen.jobs > 1 and left:
            train_in_workers(chosen, plan.places, listener=listener)
        else:
            train_places(registry, bench, plan.places, seeds=chosen.seeds, listener=listener)
        return read_result(registry, bench, plan, seeds=chosen.seeds, wall_seconds=time.perf_counter() - started)
