"""Train the places of a sweep, seed by seed, beside whatever other process is doing the same."""

from __future__ import annotations

import time
from collections.abc import Sequence

from snas.baselines import describe_baseline
from snas.bench import Bench
from snas.errors import InputError
from snas.finals import epochs_of, train_entry
from snas.listener import Listener
from snas.locks import BusyError
from snas.registry import Entry, Registry
from snas.sweeps.plan import Place
from snas.trials import Status

PAUSE_SECONDS = 0.5  # between looks at networks that another process is training


def announce(registry: Registry, bench: Bench, places: Sequence[Place], *, seeds: int, listener: Listener) -> int:
    """Tell the listener what cannot be trained and how much there is to do; returns how many networks are left."""
    networks = finished = epochs = trained = 0
    for place in places:
        if place.target is None:
            listener.on_message(f"{place.method} at density {place.density:g}: {place.reason}")
            continue
        entry = find_entry(registry, bench, place)
        runs = [run for run in registry.runs(entry) if run.number < seeds] if entry.id else []
        ended = [run for run in runs if run.status is not Status.RUNNING]
        length = epochs_of(entry)
        networks += seeds
        finished += len(ended)
        epochs += seeds * length
        trained += length * len(ended) + sum(run.epochs for run in runs if run.status is Status.RUNNING)
    listener.on_sweep(networks=networks, finished=finished, epochs=epochs, trained=trained)
    return networks - finished


def train_places(
    registry: Registry,
    bench: Bench,
    places: Sequence[Place],
    *,
    seeds: int,
    listener: Listener,
    patient: bool = False,
) -> None:
    """Train every place that can be trained on seeds 0 .. `seeds` - 1; what is finished is kept as it is.

    The first seed of all places comes first, so that a sweep that is stopped early has a whole table. A place that
    another process is working on is passed by and looked at again later.

    Args:
        registry: where rows are.
        bench: that networks are trained on.
        places: what to train, in this order.
        seeds: of each.
        listener: hears of progress.
        patient: wait for other processes without a word, as workers do that share one sweep.
    """
    waiting = [(number, place) for number in range(1, seeds + 1) for place in places if place.target is not None]
    told = patient
    while waiting:
        busy = [
            (number, place)
            for number, place in waiting
            if not _train(registry, bench, place, seeds=number, listener=listener)
        ]
        if len(busy) == len(waiting):
            if not told:
                listener.on_message(f"waiting for another process, which is training {busy[0][1].method}")
                told = True
            time.sleep(PAUSE_SECONDS)
        waiting = busy


def find_entry(registry: Registry, bench: Bench, place: Place) -> Entry:
    """The row of a place, the very one that `snas prune` makes; with id 0 where it is not stored yet.

    Raises:
        InputError: for a place without a target.
    """
    if place.target is None:
        raise InputError(f"{place.method}: {place.reason}")
    entry = describe_baseline(bench, place.method, place.target, seed=bench.settings.seed)
    return registry.find_key(entry.key) or entry


def _train(registry: Registry, bench: Bench, place: Place, *, seeds: int, listener: Listener) -> bool:
    """Train a place's first `seeds` seeds; says False where another process has it."""
    entry = registry.add_entry(find_entry(registry, bench, place))
    ended = {run.number for run in registry.runs(entry) if run.status is not Status.RUNNING}
    if ended >= set(range(seeds)):
        return True
    try:
        train_entry(registry, entry, bench, seeds=seeds, listener=listener)
    except BusyError:
        return False
    return True
