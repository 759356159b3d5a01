"""Ranking as queries over the registry. Spaces, data sets and training lengths are never mixed in one ranking.

Published figures were measured elsewhere, with other splits and training lengths. They stand below our rows of the same
space and data set, without a rank unless it is asked for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from snas.densities import Densities, Layer, check_density
from snas.errors import InputError
from snas.exports import Group, Row
from snas.objectives import COSTS
from snas.records import require_whole
from snas.registry import Entry, Registry, TrainingRecord
from snas.report.front import Reference, front_group, has_values, read_pareto
from snas.training.rule import TrainingRule
from snas.trials import Status

Cited = Literal["unranked", "ranked", "hidden"]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows to show; None shows all.

    Attributes:
        space: name of the space.
        dataset: name of the data set.
        study: name of the study or run.
        max_density: largest density.
        max_weights: largest number of kept weights.
        epochs: training length; published figures of any length stay beside the rows that have it.
        superseded: also earlier winners of studies that have grown since, with their baselines.
        cited: published figures are "unranked" (below the measured rows), "ranked" (among them) or "hidden".
        pareto: "accuracy,kept_weights": only the rows that no other outdoes; also with "flops".

    Raises:
        InputError: for a bound that nothing can meet, or an unknown word for `cited` or `pareto`.
    """

    space: str | None = None
    dataset: str | None = None
    study: str | None = None
    max_density: float | None = None
    max_weights: int | None = None
    epochs: int | None = None
    superseded: bool = False
    cited: Cited = "unranked"
    pareto: str | None = None

    def __post_init__(self) -> None:
        if self.cited not in get_args(Cited):
            raise InputError(f"cited is {self.cited!r}; choices: {', '.join(get_args(Cited))}")
        if self.pareto is not None:
            read_pareto(self.pareto)
        if self.max_density is not None:
            check_density(self.max_density, "max-density")
        for what, value in (("max-weights", self.max_weights), ("epochs", self.epochs)):
            if value is not None and value < 1:
                raise InputError(f"{what} is {value}; expected at least 1")

    def admits(self, entry: Entry) -> bool:
        """Whether the entry is shown. One whose number of weights is unknown meets no bound on it."""
        if entry.cited and (self.cited == "hidden" or (self.max_weights is not None and not entry.kept_weights)):
            return False
        return all(
            (
                self.superseded or not entry.superseded,
                self.space is None or Path(self.space).name.replace(".py:", ":") == entry.space["name"],
                self.dataset in (None, entry.dataset["name"]),
                self.study in (None, entry.name),
                self.max_density is None or self._thin(entry, self.max_density),
                self.max_weights is None or entry.kept_weights <= self.max_weights,
                entry.cited or self.epochs in (None, entry.rule["epochs"]),
            )
        )

    @staticmethod
    def _thin(entry: Entry, density: float) -> bool:
        if entry.cited_density is not None:
            return entry.cited_density <= density
        return entry.kept_weights <= density * entry.total_weights


def rank(registry: Registry, chosen: Filter | None = None) -> list[Group]:
    """Rank the registry's entries by mean test accuracy, in groups that can be compared.

    A group has one network family, one data set with one split, and one training length. Of equal accuracies the
    smaller network ranks first. Entries without a test accuracy, and those of which a seed was refused or failed,
    follow unranked: a mean over the seeds that survived says too much. Published figures follow every group of their
    space and data set; those without such a group are groups of their own, at the end.

    With `pareto`, a group holds the networks of a space's name whatever their shape, and of them only the rows that no
    other outdoes, the cheapest first.
    """
    chosen = chosen or Filter()
    found = _groups(registry, chosen)
    if chosen.pareto is None:
        return [group for group, _ in found]
    costs = read_pareto(chosen.pareto)
    groups = [front_group(group, costs, reference_of(entries, costs)) for group, entries in found]
    return [group for group in groups if group.rows]


def contenders(registry: Registry, chosen: Filter) -> list[Group]:
    """The groups of `rank` with all rows that can be on a front, those on it and the others."""
    costs = read_pareto(chosen.pareto or "")
    groups = [
        replace(group, rows=tuple(row for row in group.rows if has_values(row, costs)))
        for group, _ in _groups(registry, chosen)
    ]
    return [group for group in groups if group.rows]


def _groups(registry: Registry, chosen: Filter) -> list[tuple[Group, list[Entry]]]:
    """All groups with the entries that they are of."""
    comparable = _comparable if chosen.pareto is None else _same_name
    measured: dict[tuple[Any, ...], list[Entry]] = {}
    cited: dict[tuple[str, str], list[Entry]] = {}
    for entry in map(require_whole, registry.entries()):
        if chosen.admits(entry):
            if entry.cited:
                cited.setdefault(_place(entry), []).append(entry)
            else:
                measured.setdefault(comparable(entry), []).append(entry)
    among = chosen.cited == "ranked"
    groups = []
    for _, entries in sorted(measured.items(), key=lambda item: str(item[0])):
        beside = [figure for place in dict.fromkeys(map(_place, entries)) for figure in cited.get(place, ())]
        groups.append((_group(registry, entries, beside, among=among), [*entries, *beside]))
    ours = {_place(entry) for entries in measured.values() for entry in entries}
    if chosen.epochs is None:  # alone they have no training length in common
        groups += [
            (_published(entries, among=among), entries) for place, entries in sorted(cited.items()) if place not in ours
        ]
    return groups


def make_row(registry: Registry, entry: Entry) -> Row:
    """Sum up an entry's seeds, or a published figure, in one row, unranked."""
    require_whole(entry)
    if entry.cited:
        return _cited_row(entry)
    runs = registry.runs(entry)
    finished = [run for run in runs if run.status is Status.FINISHED]
    test = [run.test_accuracy for run in finished if run.test_accuracy is not None]
    validation = [run.reports[-1].validation_accuracy for run in finished if run.reports]
    if not runs:
        validation = _searched_accuracies(registry, entry)
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


def _cited_row(entry: Entry) -> Row:
    """A published figure as a row: numbers that its source does not tell are 0."""
    density = entry.cited_density or 0.0
    return Row(
        rank=None,
        id=entry.id,
        name=entry.name,
        kind=entry.kind,
        method=entry.method,
        space=space_label(entry.space),
        dataset=entry.dataset["name"],
        kept_weights=entry.kept_weights,
        total_weights=entry.total_weights,
        density=density,
        compression=1 / density if density else math.nan,
        test_accuracy=entry.cited_accuracy,
        test_std=entry.cited_std,
        validation_accuracy=None,
        validation_std=None,
        seeds=entry.cited_seeds or 0,
        flops=0,
        epochs=entry.rule["epochs"],
        epochs_spent=0,
        seconds=0.0,
        strategy="",
        mask_rule="",
        training_rule="",
        source=entry.source,
        layers=(),
    )


def _searched_accuracies(registry: Registry, entry: Entry) -> list[float]:
    """Validation accuracies that a searched entry was chosen by, where no final seed was trained: of its fresh seeds,
    else that in the search, after as many epochs as the entry is of."""
    candidate, study = candidate_of(registry, entry), registry.study_of(entry)
    if candidate is None or study is None:
        return []
    again = [run for run in registry.repeats(study) if run.number == candidate.number]
    found = [
        [run.reports[-1].validation_accuracy for run in runs if run.epochs == entry.rule["epochs"]]
        for runs in (again, [candidate])
    ]
    return found[0] or found[1]


def candidate_of(registry: Registry, entry: Entry) -> TrainingRecord | None:
    """The candidate of its study that a searched entry is."""
    if entry.candidate is None:
        return None
    study = registry.study_of(entry)
    found = registry.candidates(study) if study else []
    return found[entry.candidate] if entry.candidate < len(found) else None


def densities_of(entry: Entry, runs: Sequence[TrainingRecord]) -> Densities:
    """The entry's kept weights per layer: those that its first finished seed ended with (masks may move between layers
    from given densities too); else as given, or those that its first seed has now."""
    layers = layers_of(entry.space)
    ended = next((run.kept for run in runs if run.kept and run.status is Status.FINISHED), {})
    kept = ended or entry.kept or next((run.kept for run in runs if run.kept), {})
    return Densities.from_counts(layers, kept) if kept else Densities(layers, (0,) * len(layers))


def layers_of(space: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Read the layers from a recorded space, without building a network."""
    return tuple(
        Layer(item["name"], tuple(item["shape"]), item["parameter"], item["positions"], item["block"])
        for item in space["layers"]
    )


def space_label(space: Mapping[str, Any]) -> str:
    """A recorded space's name with the arguments that it was made from, in alphabetical order."""
    arguments = ", ".join(f"{key}={value}" for key, value in sorted(space["arguments"].items()))
    return f"{space['name']} ({arguments})" if arguments else str(space["name"])


def describe_rule(rule: Mapping[str, Any]) -> str:
    """A recorded training rule on one line."""
    known = {name: rule[name] for name in TrainingRule.__dataclass_fields__ if name in rule}
    initialization = rule["weights"]
    ends = "".join(f", {end.replace('_', ' ')} dense" for end in ("first_layer", "last_layer") if rule[end] == "dense")
    return f"{TrainingRule(**known).describe()}, init {initialization}{ends}"


def _rankable(row: Row, *, among: bool = False) -> bool:
    return row.test_accuracy is not None and not row.failed and (among or not row.cited)


def _place(entry: Entry) -> tuple[str, str]:
    return space_label(entry.space), entry.dataset["name"]


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


def _same_name(entry: Entry) -> tuple[Any, ...]:
    """What a front's networks have in common: a space's name, but not its arguments."""
    data = entry.dataset
    return entry.space["name"], data["name"], entry.rule["epochs"], data["fingerprint"], data["split"]


def reference_of(entries: Sequence[Entry], costs: Sequence[str]) -> Reference:
    """Guessing, at the cost of the largest dense network."""
    classes = [entry.space["classes"] for entry in entries if "classes" in entry.space]
    dense = [
        Densities(layers, tuple(layer.total for layer in layers))
        for layers in {layers_of(entry.space) for entry in entries if not entry.cited}
    ]
    published = float(max(entry.total_weights for entry in entries) or 1)  # where nothing was measured
    largest = {cost: max((COSTS[cost](densities) for densities in dense), default=published) for cost in costs}
    return Reference(1 / min(classes) if classes else 0.0, largest)


def _group(registry: Registry, entries: Sequence[Entry], cited: Sequence[Entry], *, among: bool) -> Group:
    first = entries[0]
    data = first.dataset
    length = "1 epoch" if first.rule["epochs"] == 1 else f"{first.rule['epochs']} epochs"
    labels = {space_label(entry.space) for entry in entries}
    subtitle = (
        f"{_sizes(entries)}; "
        f"{data['train']:,} training, {data['validation']:,} validation, {data['test']:,} test examples; "
        f"split {data['split'][:8]}; {length} each, result after the last epoch; "
        "ranked by mean test accuracy, ± is the standard deviation over seeds"
    )
    if cited:
        where = "ranked among the measured rows" if among else "below, unranked"
        subtitle += f"; cited: published figures of other splits and training lengths, {where}"
    return Group(
        space=labels.pop() if len(labels) == 1 else str(first.space["name"]),
        dataset=data["name"],
        epochs=first.rule["epochs"],
        subtitle=subtitle,
        rows=_ranked([make_row(registry, entry) for entry in (*entries, *cited)], among=among),
    )


def _sizes(entries: Sequence[Entry]) -> str:
    """Prunable weights and layers of the entries' networks."""
    sizes = sorted({(entry.total_weights, len(entry.space["layers"])) for entry in entries})
    if len(sizes) == 1:
        return f"{sizes[0][0]:,} prunable weights in {sizes[0][1]} layers"
    layers = sorted(number for _, number in sizes)
    return f"networks of {sizes[0][0]:,} to {sizes[-1][0]:,} prunable weights in {layers[0]} to {layers[-1]} layers"


def _published(cited: Sequence[Entry], *, among: bool) -> Group:
    """A group of published figures that nothing measured here stands beside."""
    space, dataset = _place(cited[0])
    order = "ranked by test accuracy, though their splits and training lengths differ" if among else "unranked"
    subtitle = f"published figures; nothing of this space and data set was measured here; {order}"
    return Group(space, dataset, 0, subtitle, _ranked([_cited_row(entry) for entry in cited], among=among))


def _ranked(rows: Sequence[Row], *, among: bool) -> tuple[Row, ...]:
    """Rows that may be ranked by accuracy with their ranks, then the others; published ones last, the densest first."""

    def order(row: Row) -> tuple[Any, ...]:
        aside = row.cited and not among
        density = -row.density if aside else 0.0
        unranked = not _rankable(row, among=among)
        return aside, unranked, density, -(row.test_accuracy or 0), row.kept_weights, row.id

    ordered = sorted(rows, key=order)
    return tuple(
        replace(row, rank=number) if _rankable(row, among=among) else row for number, row in enumerate(ordered, start=1)
    )
