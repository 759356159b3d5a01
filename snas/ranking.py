"""Ranking as queries over the registry. Spaces, data sets and training lengths are never mixed in one ranking."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snas.densities import Densities, Layer, check_density
from snas.errors import InputError
from snas.exports import Group, Row
from snas.registry import Entry, Registry, TrainingRecord
from snas.training.rule import TrainingRule
from snas.trials import Status


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows to show; None shows all.

    Attributes:
        space: name of the space.
        dataset: name of the data set.
        study: name of the study or run.
        max_density: largest density.
        max_weights: largest number of kept weights.
        epochs: training length.
        superseded: also earlier winners of studies that have grown since, with their baselines.

    Raises:
        InputError: for a bound that nothing can meet.
    """

    space: str | None = None
    dataset: str | None = None
    study: str | None = None
    max_density: float | None = None
    max_weights: int | None = None
    epochs: int | None = None
    superseded: bool = False

    def __post_init__(self) -> None:
        if self.max_density is not None:
            check_density(self.max_density, "max-density")
        for what, value in (("max-weights", self.max_weights), ("epochs", self.epochs)):
            if value is not None and value < 1:
                raise InputError(f"{what} is {value}; expected at least 1")

    def admits(self, entry: Entry) -> bool:
        """Whether the entry is shown."""
        return all(
            (
                self.superseded or not entry.superseded,
                self.space is None or Path(self.space).name.replace(".py:", ":") == entry.space["name"],
                self.dataset in (None, entry.dataset["name"]),
                self.study in (None, entry.name),
                self.max_density is None or entry.kept_weights <= self.max_density * entry.total_weights,
                self.max_weights is None or entry.kept_weights <= self.max_weights,
                self.epochs in (None, entry.rule["epochs"]),
            )
        )


def rank(registry: Registry, chosen: Filter | None = None) -> list[Group]:
    """Rank the registry's entries by mean test accuracy, in groups that can be compared.

    A group has one network family, one data set with one split, and one training length. Of equal accuracies the
    smaller network ranks first. Entries without a test accuracy, and those of which a seed was refused or failed,
    follow unranked: a mean over the seeds that survived says too much.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in registry.entries():
        if (chosen or Filter()).admits(entry):
            groups.setdefault(_comparable(entry), []).append(entry)
    return [_group(registry, entries) for _, entries in sorted(groups.items(), key=lambda item: str(item[0]))]


def make_row(registry: Registry, entry: Entry) -> Row:
    """Sum up an entry's seeds in one row, unranked."""
    runs = registry.runs(entry)
    finished = [run for run in runs if run.status is Status.FINISHED]
    test = [run.test_accuracy for run in finished if run.test_accuracy is not None]
    validation = [run.reports[-1].validation_accuracy for run in finished if run.reports]
    candidate = candidate_of(registry, entry)
    if not runs and candidate is not None and candidate.epochs == entry.rule["epochs"]:
        validation = [candidate.reports[-1].validation_accuracy]
    densities = densities_of(entry, runs)
    return Row(
        rank=None,
        id=entry.id,
        name=entry.name,
        kind=entry.kind,
        method=f"{entry.method} (superseded)" if entry.superseded else entry.method,
        space=space_label(entry.space),
        dataset=entry.dataset["name"],
        kept_weights=entry.kept_weights,
        total_weights=entry.total_weights,
        density=entry.kept_weights / entry.total_weights,
        compression=entry.total_weights / entry.kept_weights,
        test_accuracy=statistics.fmean(test) if test else None,
        test_std=statistics.stdev(test) if len(test) > 1 else None,
        validation_accuracy=statistics.fmean(validation) if validation else None,
        validation_std=statistics.stdev(validation) if len(validation) > 1 else None,
        seeds=len(finished),
        superseded=entry.superseded,
        failed=sum(run.status in (Status.FAILED, Status.REFUSED) for run in runs),
        flops=densities.flops,
        epochs=entry.rule["epochs"],
        epochs_spent=entry.search_epochs + sum(run.epochs for run in runs),
        seconds=entry.search_seconds + sum(report.seconds for run in runs for report in run.reports),
        strategy=entry.strategy,
        mask_rule=entry.mask_rule,
        training_rule=describe_rule(entry.rule),
        layers=tuple(zip(densities.counts, densities.kept, (layer.total for layer in densities.layers), strict=True)),
    )


def candidate_of(registry: Registry, entry: Entry) -> TrainingRecord | None:
    """The candidate of its study that a searched entry is."""
    if entry.candidate is None:
        return None
    study = registry.study_of(entry)
    return registry.candidates(study)[entry.candidate] if study else None


def densities_of(entry: Entry, runs: Sequence[TrainingRecord]) -> Densities:
    """The entry's kept weights per layer: as given, or those of its first seed where a rule sets them."""
    layers = layers_of(entry.space)
    kept = entry.kept or next((run.kept for run in runs if run.kept), {})
    return Densities.from_counts(layers, kept) if kept else Densities(layers, (0,) * len(layers))


def layers_of(space: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Read the layers from a recorded space, without building a network."""
    return tuple(
        Layer(item["name"], tuple(item["shape"]), item["parameter"], item["positions"], item["block"])
        for item in space["layers"]
    )


def space_label(space: Mapping[str, Any]) -> str:
    """A recorded space's name with the arguments that it was made from."""
    arguments = ", ".join(f"{key}={value}" for key, value in space["arguments"].items())
    return f"{space['name']} ({arguments})" if arguments else str(space["name"])


def describe_rule(rule: Mapping[str, Any]) -> str:
    """A recorded training rule on one line."""
    known = {name: rule[name] for name in TrainingRule.__dataclass_fields__ if name in rule}
    initialization = rule["weights"]
    ends = "".join(f", {end.replace('_', ' ')} dense" for end in ("first_layer", "last_layer") if rule[end] == "dense")
    return f"{TrainingRule(**known).describe()}, init {initialization}{ends}"


def _rankable(row: Row) -> bool:
    return row.test_accuracy is not None and not row.failed


def _comparable(entry: Entry) -> tuple[Any, ...]:
    layers = tuple((layer["name"], tuple(layer["shape"])) for layer in entry.space["layers"])
    return (
        space_label(entry.space),
        entry.space["network"],
        entry.dataset["name"],
        entry.rule["epochs"],
        entry.dataset["fingerprint"],
        entry.dataset["split"],
        layers,
    )


def _group(registry: Registry, entries: Sequence[Entry]) -> Group:
    rows = [make_row(registry, entry) for entry in entries]
    rows.sort(key=lambda row: (not _rankable(row), -(row.test_accuracy or 0), row.kept_weights, row.id))
    ranked = [replace(row, rank=number) if _rankable(row) else row for number, row in enumerate(rows, start=1)]
    first = entries[0]
    data = first.dataset
    length = "1 epoch" if first.rule["epochs"] == 1 else f"{first.rule['epochs']} epochs"
    subtitle = (
        f"{first.total_weights:,} prunable weights in {len(first.space['layers'])} layers; "
        f"{data['train']:,} training, {data['validation']:,} validation, {data['test']:,} test examples; "
        f"split {data['split'][:8]}; {length} each, result after the last epoch; "
        "ranked by mean test accuracy, ± is the standard deviation over seeds"
    )
    return Group(
        space=space_label(first.space),
        dataset=data["name"],
        epochs=first.rule["epochs"],
        subtitle=subtitle,
        rows=tuple(ranked),
    )
