"""The loop: ask, evaluate under ASHA, record, finish. Resuming is the same loop, started from the registry.

[Tessera2021] Algorithm 1 with what it lacks: asynchronous successive halving with promotion, exact records, baselines.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

from snas.baselines import describe_baseline
from snas.bench import Bench
from snas.conductor import Conductor, candidate_of
from snas.confirm import Repeats, best_of, costs_by_number, front_of, near_top, scores_of
from snas.encoding import Candidate
from snas.errors import InputError
from snas.evaluators.base import Evaluator, candidate_key, checked, evaluators
from snas.finals import train_entry
from snas.listener import Listener
from snas.plan import Plan
from snas.registry import Entry, Registry, Study, TrainingRecord
from snas.screening import SignalScreen
from snas.settings import SearchSettings
from snas.training.checkpoints import Checkpoints
from snas.trials import Status

# What an identity leaves out where it is as usual, and how that is said.
USUAL = {
    "budget": "none",
    "pins": "none",
    "train": "static",
    "shapes": "none",
    "brackets": "1",
    "objectives": "accuracy",
    "screen": "none",
}
OTHER_POINTS = "other points of the warm-start"


def study_name(bench: Bench, settings: SearchSettings, identity: Mapping[str, Any]) -> str:
    """The study's name: the user's, or one made from the settings, so that the same command resumes its study."""
    if settings.name:
        return settings.name
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
    strategy = identity["strategy"]["name"].rpartition(".")[2]
    text = f"{bench.space.name}-{bench.dataset.name}-{strategy}-{digest}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[-100:].lstrip("-._+")


def open_study(registry: Registry, bench: Bench, settings: SearchSettings, plan: Plan) -> tuple[Study, bool]:
    """Find the study to resume, or start it. Returns the study and whether it is resumed.

    Raises:
        InputError: if the name belongs to a study with other settings.
    """
    identity = plan.identity(bench, settings)
    name = study_name(bench, settings, identity)
    with registry.together():  # the same command may be given twice at once
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


def run_search(
    registry: Registry, study: Study, bench: Bench, settings: SearchSettings, plan: Plan, *, listener: Listener
) -> Conductor:
    """Try candidates until the study has its samples and every promotion is made; then train the best ones again."""
    conductor = Conductor(
        registry,
        study,
        encoding=plan.encoding,
        strategy=plan.strategy,
        ladder=plan.ladder,
        seed=settings.seed,
        listener=listener,
        objectives=plan.objectives,
        starts=plan.starts,
        screen=_screen(registry, study, bench, settings, plan, listener),
    )
    checkpoints = Checkpoints(registry.files / study.name)
    task = replace(bench.task, compile=settings.compile == "on")
    make: Callable[..., Evaluator] = evaluators.get(settings.evaluator)
    evaluator = make(task, checkpoints, slots=settings.slots, **settings.evaluator_options())
    registry.use_environment({**bench.environment, **evaluator.environment})
    _evaluate(evaluator, conductor)
    for trial in conductor.history:
        if trial.status is Status.FINISHED:  # a kill may have come between its last report and this
            checkpoints.drop(candidate_key(trial.number))
    chosen, seeds = to_confirm(registry, study, settings, plan)
    if seeds:
        repeats = Repeats(
            registry,
            study,
            encoding=plan.encoding,
            chosen=chosen,
            seeds=seeds,
            seed=settings.seed,
            epochs=settings.epochs,
            listener=listener,
        )
        _evaluate(evaluator, repeats)
        for record in registry.repeats(study):
            if record.status is Status.FINISHED:
                checkpoints.drop(candidate_key(record.number, record.repeat))
    registry.use_environment(bench.environment)
    return conductor


def _evaluate(evaluator: Evaluator, feed: Conductor | Repeats) -> None:
    """Have what the feed hands out trained, and file what comes of it; whatever stops this, stops the evaluator too."""
    running = evaluator.run(feed)
    try:
        for reports in running:
            feed.take([checked(report) for report in reports])
    finally:
        if isinstance(running, Generator):
            running.close()


def _screen(
    registry: Registry, study: Study, bench: Bench, settings: SearchSettings, plan: Plan, listener: Listener
) -> SignalScreen | None:
    """What filters proposals, where that is asked for."""
    if settings.screen is None:
        return None
    return SignalScreen(
        registry, study, encoding=plan.encoding, task=bench.task, screen=settings.screen, listener=listener
    )


def to_confirm(registry: Registry, study: Study, settings: SearchSettings, plan: Plan) -> tuple[list[int], int]:
    """The candidates that are trained again before the winner is named, and on how many fresh seeds: none where there
    is nothing to choose from, or nothing is to be confirmed."""
    records = registry.candidates(study)
    most = settings.front if plan.objectives and settings.confirm else settings.confirm
    costs = costs_by_number(records, plan.encoding, plan.objectives)
    chosen = near_top(records, most, costs=costs)
    return chosen, settings.confirm_seeds if len(chosen) > 1 else 0


def winners(registry: Registry, study: Study, settings: SearchSettings, plan: Plan) -> list[TrainingRecord]:
    """The best candidate; with several objectives the front, the most accurate first.

    Raises:
        SnasError: if no candidate was trained fully, or none near the top on a fresh seed.
    """
    records = registry.candidates(study)
    scores = scores_of(registry, study, seeds=to_confirm(registry, study, settings, plan)[1])
    if not plan.objectives:
        return [best_of(records, scores)]
    costs = costs_by_number(records, plan.encoding, plan.objectives)
    return front_of(records, scores, costs, most=settings.front)


def run_finals(
    registry: Registry, study: Study, bench: Bench, settings: SearchSettings, plan: Plan, *, listener: Listener
) -> list[tuple[Bench, dict[str, Entry]]]:
    """Enter the winners into the leaderboard and, unless `final_seeds` is 0, train each beside the baselines.

    Returns:
        For each winner the bench of its architecture, and its entries by name: "best", then the baselines at its number
        of weights, where they are trained.
    """
    found = []
    cost = _search_cost(registry, study)
    for winner in winners(registry, study, settings, plan):
        candidate = candidate_of(plan.encoding, winner)
        own = bench.of(candidate.space)
        entries = {"best": _winner_entry(registry, study, own, settings, winner, candidate, cost)}
        if settings.final_seeds:
            kept = sum(winner.kept.values())
            for method in settings.baseline_names():
                try:
                    entries[method] = _baseline_entry(registry, study, own, method, kept)
                except InputError as error:
                    listener.on_message(f"baseline {method} is left out: {error}")
        found.append((own, entries))
    registry.supersede(study, [entry for _, entries in found for entry in entries.values()])
    if settings.final_seeds:
        for own, entries in found:
            for entry in entries.values():
                train_entry(registry, entry, own, seeds=settings.final_seeds, listener=listener)
    return found


def _search_cost(registry: Registry, study: Study) -> tuple[int, float]:
    """Epochs and seconds that a search has taken, with those of candidates trained again."""
    records = [*registry.candidates(study), *registry.repeats(study)]
    epochs = sum(record.epochs for record in records)
    return epochs, sum(report.seconds for record in records for report in record.reports)


def _winner_entry(
    registry: Registry,
    study: Study,
    bench: Bench,
    settings: SearchSettings,
    winner: TrainingRecord,
    candidate: Candidate,
    cost: tuple[int, float],
) -> Entry:
    epochs, seconds = cost
    entry = registry.add_entry(
        Entry(
            key=f"study {study.name}: searched {winner.number}",
            name=study.name,
            kind="searched",
            method="searched",
            space=bench.space.describe(),
            dataset=bench.describe_dataset(),
            rule=bench.describe_rule(candidate.method),
            strategy=study.identity["strategy"]["name"],
            mask_rule=candidate.rule,
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
    key = f"study {study.name}: {method} {count}"
    if dict(bench.space.arguments) != study.identity["space"]["arguments"]:  # a shape of its own
        key += f" {json.dumps(dict(bench.space.arguments), sort_keys=True)}"
    return registry.add_entry(replace(baseline, key=key, study_id=study.id))


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in a few words what differs between two identities; "" where nothing does."""
    keys = [*wanted, *(key for key in stored if key not in wanted)]
    differing = [key for key in keys if stored.get(key) != wanted.get(key) and key != "masks"]  # "mask" tells it
    told = {key: _difference(key, stored.get(key), wanted.get(key)) for key in differing}
    plain = {key: text for key, text in told.items() if text != OTHER_POINTS}  # these follow from anything else
    return ", ".join((plain or told).values())


def _difference(key: str, old: Any, new: Any) -> str:
    """The same for one key."""
    if key == "warm-start":
        sources = [(value or {}).get("from", "none") for value in (old, new)]
        return OTHER_POINTS if sources[0] == sources[1] else f"warm-start {sources[0]} (now {sources[1]})"
    if key in USUAL:
        return f"{key} {_text(old, USUAL[key])} (now {_text(new, USUAL[key])})"
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return f"{key} {_text(old)} (now {_text(new)})"
    inner = [name for name in new if old.get(name) != new[name]]
    name = "name" if "name" in inner else inner[0] if inner else "settings"
    if name in ("network", "fingerprint", "split"):
        return f"another {name} of the {key}"
    if isinstance(new.get(name), (str, int, float, bool)):
        return f"{key} {name} {old.get(name)} (now {new[name]})"
    return f"another {key} ({', '.join(inner)})"


def _text(value: Any, usual: str = "none") -> str:
    """A part of an identity as the user would write it."""
    if isinstance(value, Mapping):
        parts = [
            f"{key} ({_text(item)})" if isinstance(item, Mapping) else f"{key}={_text(item)}"
            for key, item in value.items()
        ]
        return " ".join(parts) or usual
    if isinstance(value, list):
        return ",".join(map(str, value))
    return usual if value is None else str(value)
