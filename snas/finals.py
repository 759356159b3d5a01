"""Train the networks whose numbers are reported: from scratch, on fresh seeds, all alike; then test them once."""

from __future__ import annotations

from dataclasses import replace

from snas.bench import Bench
from snas.data.split import Arrays
from snas.densities import Densities
from snas.errors import FailedError, RefusedError, SnasError
from snas.listener import Listener
from snas.locks import owned
from snas.pruning.methods import Method, given_densities, open_method
from snas.registry import Entry, Registry, TrainingRecord
from snas.seeds import Stream, derive
from snas.training.checkpoints import Checkpoints
from snas.training.task import Training
from snas.trials import Status
from snas.weights import keep_weights, lacks_weights


def recipe(entry: Entry, bench: Bench) -> tuple[Method, Densities | int]:
    """How the entry's networks are made: its method, and the densities or the number of weights to keep."""
    if entry.kept:
        given = Densities.from_counts(bench.space.layers, entry.kept)
        if entry.kind == "baseline":
            return replace(open_method(entry.method), allocation="given"), given
        return given_densities(entry.mask_rule), given
    return open_method(entry.method), entry.kept_weights


def epochs_of(entry: Entry) -> int:
    """Epochs that one network of the entry takes: methods that train several times over take several lengths."""
    epochs = int(entry.rule["epochs"])
    return open_method(entry.method).total_epochs(epochs) if entry.kind == "baseline" else epochs


def train_entry(registry: Registry, entry: Entry, bench: Bench, *, seeds: int, listener: Listener) -> None:
    """Train the entry on seeds 0 .. `seeds` - 1; those that are finished are kept as they are.

    Entries of one study share seed k's initial weights, order of data and split, so that differences are paired.
    """
    with owned(registry, f"entry-{entry.id}"):
        runs = {run.number: run for run in registry.runs(entry)}
        done = sum(runs[number].status is not Status.RUNNING for number in range(seeds) if number in runs)
        listener.on_entry(entry, seeds=seeds, done=done)
        test = None
        for number in range(seeds):
            run = runs.get(number)
            if run is not None and run.status is not Status.RUNNING:
                if (
                    bench.settings.keep_weights
                    and run.status is Status.FINISHED
                    and lacks_weights(registry, entry, run)
                ):
                    test = test or bench.test_split()
                    _train_for_weights(registry, entry, bench, run, test, listener)
                continue
            test = test or bench.test_split()
            _train_run(registry, entry, bench, number, run, test, listener)


def _train_run(
    registry: Registry,
    entry: Entry,
    bench: Bench,
    number: int,
    run: TrainingRecord | None,
    test: Arrays | None,
    listener: Listener,
) -> None:
    seed = derive(entry.seed, Stream.FINAL, number)
    training_id = run.id if run else registry.add_run(entry, number, seed=seed)
    start = run.epochs if run else 0
    checkpoints = Checkpoints(registry.files / "finals")
    key = f"entry-{entry.id}-seed-{number}"
    method, target = recipe(entry, bench)
    try:
        training = Training(
            bench.task,
            method,
            target,
            seed=seed,
            key=key,
            checkpoints=checkpoints,
            mask_checksum=(run.mask_checksum or "") if run else "",
        )
        registry.set_kept(training_id, training.densities.counts)
        for epoch in training.run(start=start, until=training.epochs):
            report = training.report(epoch, number)
            registry.record(training_id, report, status=Status.RUNNING)
            listener.on_run_epoch(entry, number, report)
        registry.set_kept(training_id, training.densities.counts)
        loss, accuracy = training.test(test) if test else (None, None)
        if bench.settings.keep_weights:
            registry.set_traits(training_id, keep_weights(registry, entry, number, method, training, accuracy))
    except (RefusedError, FailedError) as error:
        status = Status.REFUSED if isinstance(error, RefusedError) else Status.FAILED
        registry.set_status(training_id, status, reason=str(error))
        listener.on_run_end(entry, number, test_accuracy=None, reason=str(error))
    else:
        registry.finish(training_id, test_loss=loss, test_accuracy=accuracy)
        listener.on_run_end(entry, number, test_accuracy=accuracy, reason=None)
    checkpoints.drop(key)


def _train_for_weights(
    registry: Registry, entry: Entry, bench: Bench, run: TrainingRecord, test: Arrays | None, listener: Listener
) -> None:
    """Train a finished seed again for its weights; its results stay as recorded, and have to come out again."""
    listener.on_message(f"{entry.method}, seed {run.number}: trained again, for its weights were not kept")
    checkpoints = Checkpoints(registry.files / "finals")
    key = f"entry-{entry.id}-seed-{run.number}-weights"
    checkpoints.drop(key)
    method, target = recipe(entry, bench)
    checksum = run.mask_checksum or ""
    training = Training(
        bench.task, method, target, seed=run.seed, key=key, checkpoints=checkpoints, mask_checksum=checksum
    )
    try:
        for epoch in training.run(start=0, until=training.epochs):
            listener.on_run_epoch(entry, run.number, training.report(epoch, run.number))
        _, accuracy = training.test(test) if test else (None, None)
        if accuracy != run.test_accuracy:
            raise SnasError(
                f"row {entry.id}, seed {run.number}: trained again its test accuracy is {accuracy}, and "
                f"{run.test_accuracy} is recorded; weights are kept only where it comes out the same: go on where it "
                "was trained"
            )
        registry.set_traits(run.id, keep_weights(registry, entry, run.number, method, training, accuracy))
    finally:
        checkpoints.drop(key)
