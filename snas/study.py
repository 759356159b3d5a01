"""The loop: ask, evaluate under ASHA, record, finish. Resuming is the same loop, started from the registry.

[Tessera2021] Algorithm 1 with what it lacks: asynchronous successive halving with promotion, exact records, baselines.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snas.baselines import describe_baseline
from snas.bench import Bench
from snas.conductor import Conductor
from snas.errors import InputError, SnasError
from snas.evaluators.asha import Ladder
from snas.evaluators.base import candidate_key, evaluators
from snas.finals import train_entry
from snas.listener import Listener
from snas.pruning.methods import given_densities
from snas.registry import Entry, Registry, Study, TrainingRecord
from snas.settings import SearchSettings
from snas.strategies.base import Strategy, make_strategy
from snas.training.checkpoints import Checkpoints
from snas.trials import Status

BASELINES = ("dense", "snip", "ldi")


def identity_of(bench: Bench, settings: SearchSettings, strategy: Strategy | None = None) -> dict[str, Any]:
    """What must not change when a study is resumed: everything that its scores depend on."""
    return {
        "space": bench.space.describe(),
        "dataset": bench.describe_dataset(),
        "strategy": _describe_strategy(settings, strategy),
        "mask": settings.mask,
        "rule": bench.describe_rule(),
        "asha": {"grace": settings.grace, "eta": settings.eta},
        "seed": settings.seed,
    }


def study_name(bench: Bench, settings: SearchSettings, identity: Mapping[str, Any]) -> str:
    """The study's name: the user's, or one made from the settings, so that the same command resumes its study."""
    if settings.name:
        return settings.name
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
    strategy = identity["strategy"]["name"].rpartition(".")[2]
    text = f"{bench.space.name}-{bench.dataset.name}-{strategy}-{digest}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[-100:].lstrip("-._+")


def open_study(
    registry: Registry, bench: Bench, settings: SearchSettings, strategy: Strategy | None = None
) -> tuple[Study, bool]:
    """Find the study to resume, or start it. Returns the study and whether it is resumed.

    Raises:
        InputError: if the name belongs to a study with other settings.
    """
    identity = json.loads(json.dumps(identity_of(bench, settings, strategy)))
    name = study_name(bench, settings, identity)
    study = registry.find_study(name)
    if study is None:
        added = registry.add_study(
            name, identity=identity, samples=settings.samples, environment=dict(bench.environment)
        )
        return added, False
    if different := _differences(study.identity, identity):
        raise InputError(
            f"study {name!r} in {registry.path} was made with {different}; "
            "use the same settings to resume it, or another --name"
        )
    return study, True


def grow(registry: Registry, study: Study, samples: int) -> Study:
    """Let the study try more candidates; a smaller number than before changes nothing."""
    return registry.set_samples(study, samples) if samples > study.samples else study


def run_search(
    registry: Registry,
    study: Study,
    bench: Bench,
    settings: SearchSettings,
    *,
    strategy: Strategy | None = None,
    listener: Listener,
) -> Conductor:
    """Try candidates until the study has its samples and every promotion is made."""
    conductor = Conductor(
        registry,
        study,
        space=bench.space,
        strategy=strategy or make_strategy(settings.strategy, settings.strategy_arg),
        ladder=Ladder(settings.grace, settings.epochs, settings.eta),
        seed=settings.seed,
        listener=listener,
    )
    checkpoints = Checkpoints(registry.files / study.name)
    evaluator = evaluators.get(settings.evaluator)(bench.task, given_densities(settings.mask), checkpoints)
    for report in evaluator.run(conductor):
        conductor.take(report)
    for trial in conductor.history:
        if trial.status is Status.FINISHED:  # a kill may have come between its last report and this
            checkpoints.drop(candidate_key(trial.number))
    return conductor


def best_candidate(registry: Registry, study: Study) -> TrainingRecord:
    """The winner: of the fully trained candidates the one with the best validation accuracy after its last epoch; of
    equal ones the smallest, then the one with the lower validation loss, then the earlier.

    Raises:
        SnasError: if there is none.
    """
    records = registry.candidates(study)
    finished = [record for record in records if record.status is Status.FINISHED]
    if not finished:
        failed = [record for record in records if record.reason]
        reason = f"; candidate {failed[0].number}: {failed[0].reason}" if failed else ""
        raise SnasError(f"none of {len(records)} candidates of study {study.name!r} could be trained{reason}")
    return min(
        finished,
        key=lambda record: (
            -record.reports[-1].validation_accuracy,
            sum(record.kept.values()),
            record.reports[-1].validation_loss,
            record.number,
        ),
    )


def run_finals(
    registry: Registry, study: Study, bench: Bench, settings: SearchSettings, *, listener: Listener
) -> dict[str, Entry]:
    """Enter the winner into the leaderboard and, unless `final_seeds` is 0, train it beside the baselines.

    Returns:
        Entries by name: "best", then "dense", "snip" and "ldi" at the winner's weight count where they are trained.
    """
    winner = best_candidate(registry, study)
    entries = {"best": _winner_entry(registry, study, bench, settings, winner)}
    if settings.final_seeds:
        kept = sum(winner.kept.values())
        for method in BASELINES:
            entries[method] = _baseline_entry(registry, study, bench, method, kept)
    registry.supersede(study, list(entries.values()))
    if settings.final_seeds:
        for entry in entries.values():
            train_entry(registry, entry, bench, seeds=settings.final_seeds, listener=listener)
    return entries


def _winner_entry(
    registry: Registry, study: Study, bench: Bench, settings: SearchSettings, winner: TrainingRecord
) -> Entry:
    records = registry.candidates(study)
    epochs = sum(record.epochs for record in records)
    seconds = sum(report.seconds for record in records for report in record.reports)
    entry = registry.add_entry(
        Entry(
            key=f"study {study.name}: searched {winner.number}",
            name=study.name,
            kind="searched",
            method="searched",
            space=bench.space.describe(),
            dataset=bench.describe_dataset(),
            rule=bench.describe_rule(given_densities(settings.mask)),
            strategy=study.identity["strategy"]["name"],
            mask_rule=settings.mask,
            seed=settings.seed,
            kept_weights=sum(winner.kept.values()),
            total_weights=bench.space.total_weights,
            kept=winner.kept,
            candidate=winner.number,
            environment=bench.environment,
            study_id=study.id,
        )
    )
    return registry.set_search_cost(entry, epochs=epochs, seconds=seconds)


def _baseline_entry(registry: Registry, study: Study, bench: Bench, method: str, kept: int) -> Entry:
    count = bench.space.total_weights if method == "dense" else kept
    baseline = describe_baseline(bench, method, count, seed=study.identity["seed"], name=study.name)
    return registry.add_entry(replace(baseline, key=f"study {study.name}: {method} {count}", study_id=study.id))


def _describe_strategy(settings: SearchSettings, strategy: Strategy | None) -> dict[str, Any]:
    """Name and options; for an object its class and whatever of its attributes reads the same in every process."""
    if strategy is None:
        given = {key: str(value) for key, value in settings.strategy_arg.items()}
        return {"name": settings.strategy, "arguments": given}
    options = {
        key: repr(value) for key, value in getattr(strategy, "__dict__", {}).items() if " at 0x" not in repr(value)
    }
    return {"name": f"{type(strategy).__module__}.{type(strategy).__qualname__}", "arguments": options}


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in a few words what differs between two identities; "" where nothing does."""
    found = []
    for key in wanted:
        old, new = stored.get(key), wanted[key]
        if old == new:
            continue
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            inner = [name for name in new if old.get(name) != new[name]]
            name = "name" if "name" in inner else inner[0] if inner else "settings"
            if name in ("network", "fingerprint", "split"):
                found.append(f"another {name} of the {key}")
            elif isinstance(new.get(name), (str, int, float, bool)):
                found.append(f"{key} {name} {old.get(name)} (now {new[name]})")
            else:
                found.append(f"another {key} ({', '.join(inner)})")
        else:
            found.append(f"{key} {old} (now {new})")
    return ", ".join(found)
