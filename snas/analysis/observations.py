"""Candidates of a registry as observations: signals that were known early, and scores that came later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snas.evaluators.asha import Ladder
from snas.records import require_identity
from snas.registry import Registry, Study, TrainingRecord, as_trial
from snas.trials import Report, Trial

CURVE_SIGNALS: dict[str, str] = {
    "loss-sum": "sum of the training losses of all epochs so far",
    "train-loss": "training loss of the last epoch",
    "validation-loss": "validation loss",
    "validation-accuracy": "validation accuracy",
}


@dataclass(frozen=True)
class Kind:
    """What candidates have in common that can be compared: network, data, training rule, epochs, budget, mask rule.

    Attributes:
        space: name of the search space.
        dataset: name of the data.
        rule: what chooses the mask and what moves it.
        epochs: of a full training.
        budget: in words, "" without one.
        key: the whole of it; kinds are equal where their keys are.
    """

    space: str
    dataset: str
    rule: str
    epochs: int
    budget: str
    key: str


@dataclass(frozen=True)
class Observation:
    """One candidate.

    Attributes:
        study: its study's name.
        signals: name -> value; those of a learning curve are called "loss-sum@4", the epoch at the end.
        trial: with its scores, epochs -> validation accuracy.
    """

    study: str
    signals: Mapping[str, float]
    trial: Trial


def kind_of(identity: Mapping[str, Any], rule: str) -> Kind:
    """The kind of a study's candidates of a mask rule.

    Splits of the same data do not tell kinds apart: they differ between seeds, and few studies would have enough
    candidates alone.

    Args:
        identity: of the study.
        rule: of the candidates.
    """
    space, dataset = identity["space"], identity["dataset"]
    budget = identity.get("budget") or {}
    parts = {
        "space": {key: value for key, value in space.items() if key not in ("name", "representation")},
        "data": [dataset[key] for key in ("fingerprint", "train", "validation")],
        "training": identity["rule"],
        "budget": budget,
        "pins": identity.get("pins") or {},
        "shapes": identity.get("shapes") or {},
        "rule": rule,
    }
    return Kind(
        space=str(space["name"]),
        dataset=str(dataset["name"]),
        rule=rule,
        epochs=int(identity["rule"]["epochs"]),
        budget=", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in budget.items()),
        key=json.dumps(parts, sort_keys=True),
    )


def rule_of(study: Study, record: TrainingRecord) -> str:
    """A candidate's mask and training rule; candidates of older registries have that of their study."""
    return str(record.traits.get("rule") or study.identity["mask"])


def observe(registry: Registry, study: Study, *, before: str | None = None) -> list[tuple[Kind, Observation]]:
    """The candidates of a study that were not refused and did not fail, each with its kind.

    Args:
        registry: where they are.
        study: whose candidates.
        before: only what was recorded before this time counts; None: all.
    """
    require_identity(study)
    asha, epochs = study.identity["asha"], study.identity["rule"]["epochs"]
    rungs = Ladder(asha["grace"], epochs, asha["eta"]).rungs
    found = []
    for record in registry.candidates(study, before=before):
        trial = as_trial(record)
        if trial.failed or not trial.scores:
            continue
        signals = {"kept-weights": float(trial.kept_weights), **record.signals}
        for rung in rungs:
            signals |= curve_signals(record.reports, rung)
        found.append((kind_of(study.identity, rule_of(study, record)), Observation(study.name, signals, trial)))
    return found


def curve_signals(reports: Sequence[Report], epoch: int) -> dict[str, float]:
    """What the learning curve says at `epoch`; nothing where it does not reach so far.

    Args:
        reports: from the first epoch on, in order.
        epoch: 1, 2 ...

    Returns:
        The names in `CURVE_SIGNALS` with "@epoch" at their end. The sum of training losses is TSE over all epochs
        ([Ru2021]): how fast a network trains tells how well it generalizes.

    Source:
        [Ru2021] B. Ru, C. Lyle, L. Schut et al.: Speedy performance estimation for neural architecture search, NeurIPS
        2021.

    Example:
        >>> reports = [Report(0, 1, 2.0, 0.3, 1.5, 0.5, 1.0), Report(0, 2, 1.0, 0.6, 1.2, 0.7, 1.0)]
        >>> list(curve_signals(reports, 2).values())
        [3.0, 1.0, 1.2, 0.7]
    """
    if len(reports) < epoch or reports[epoch - 1].epoch != epoch:
        return {}
    last = reports[epoch - 1]
    values = (
        sum(report.train_loss for report in reports[:epoch]),
        last.train_loss,
        last.validation_loss,
        last.validation_accuracy,
    )
    return {f"{name}@{epoch}": value for name, value in zip(CURVE_SIGNALS, values, strict=True)}


def _plain(value: Any) -> str:
    """A part of a budget in words."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={part}" for name, part in value.items())
    return str(value)
