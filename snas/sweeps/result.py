"""What a sweep found: a cell for every method and density, and how the methods of one density differ."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from snas.bench import Bench
from snas.compare import Comparison, compare_all, smallest_p
from snas.errors import InputError
from snas.finals import epochs_of
from snas.ranking import space_label
from snas.registry import Registry, TrainingRecord
from snas.sweeps.plan import Place, Plan
from snas.sweeps.run import find_entry
from snas.trials import Status

Split = Literal["test", "validation"]


@dataclass(frozen=True)
class Cell:
    """One method at one density. Accuracies are fractions, of the sweep's own seeds only.

    Attributes:
        method: as results are filed.
        density: of its column; None for a dense method, which stands in all columns.
        id: of its row in the registry; None where the method cannot reach the density.
        kept_weights: of the network; None as for the id.
        accuracies: seed number -> accuracy after the last epoch.
        status: "finished", or "refused", "failed" or "out of reach" where no seed was trained.
        reasons: why seeds are missing.
        missing: how many seeds were refused or failed.
        epochs_each: epochs that one network takes.
        epochs_spent: by all seeds.
        seconds: of training, by all seeds.
    """

    method: str
    density: float | None
    id: int | None = None
    kept_weights: int | None = None
    accuracies: Mapping[int, float] = field(default_factory=dict)
    status: str = "finished"
    reasons: tuple[str, ...] = ()
    missing: int = 0
    epochs_each: int | None = None
    epochs_spent: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean accuracy; None where no seed has one."""
        return statistics.fmean(self.accuracies.values()) if self.accuracies else None

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds; None for fewer than 2."""
        return statistics.stdev(self.accuracies.values()) if len(self.accuracies) > 1 else None

    @property
    def whole(self) -> bool:
        """Whether every seed was trained: a mean over those that survived says too much to be the best."""
        return bool(self.accuracies) and not self.missing

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        values = {**asdict(self), "reasons": list(self.reasons)}
        values["accuracies"] = {str(seed): accuracy for seed, accuracy in self.accuracies.items()}
        return {**values, "mean": self.mean, "std": self.std}


@dataclass(frozen=True)
class SweepResult:
    """A table of methods and densities, trained alike on the same seeds.

    The best of each density is marked, not selected: by the very figures that are shown, so that its mean and the p
    values of comparisons with it flatter it. Name a reference beforehand for comparisons without that bias.

    Attributes:
        registry: file that has all rows.
        space: of networks.
        dataset: that they were trained on.
        split: that the accuracies are of: "test", or "validation" where the data have no test split.
        epochs: training length.
        seeds: of each network.
        methods: rows of the table.
        densities: columns of the table.
        given: whether every layer's density was given, so that the table has one column.
        reference: method that the others are compared with; None: the best of each density.
        cells: in the order of training: dense ones, then density by density.
        comparisons: of each density's methods with the reference.
        environments: machines, versions and threads that the cells' networks were trained with.
        wall_seconds: that the command took.
    """

    registry: Path
    space: str
    dataset: str
    split: Split
    epochs: int
    seeds: int
    methods: tuple[str, ...]
    densities: tuple[float, ...]
    given: bool
    reference: str | None
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    environments: tuple[Mapping[str, Any], ...]
    wall_seconds: float

    def cell(self, method: str, density: float) -> Cell:
        """The cell of a row and a column.

        Raises:
            InputError: for a method or density that the table does not have.
        """
        for cell in self.cells:
            if cell.method == method and cell.density in (None, density) and density in self.densities:
                return cell
        densities = ", ".join(f"{one:g}" for one in self.densities)
        raise InputError(
            f"the sweep has no method {method!r} at density {density}; it has {', '.join(self.methods)} at {densities}"
        )

    def best(self, density: float) -> Cell | None:
        """The pruned cell with the highest mean of a column; None where every one lacks seeds."""
        return best_cell([self.cell(method, density) for method in self.methods])

    def comparison(self, method: str, density: float) -> Comparison | None:
        """How the method differs from the column's reference; None for the reference itself."""
        return next((one for one in self.comparisons if (one.method, one.density) == (method, density)), None)

    def table(self, *, error: bool = False) -> list[list[str]]:
        """The table as texts, titles first: mean and spread in percent, "*" at the best, "≈" at what is not distinct.

        Args:
            error: error in place of accuracy.
        """
        from snas.sweeps.tables import grid

        return grid(self, error=error)

    def _repr_markdown_(self) -> str:
        """The tables, as a notebook shows them."""
        from snas.sweeps.export import sweep_text

        return sweep_text(self, ".md")

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, as `--format json` prints it; accuracies are fractions."""
        plain = ("space", "dataset", "split", "epochs", "seeds", "given", "reference", "wall_seconds")
        return {
            "registry": str(self.registry),
            **{name: getattr(self, name) for name in plain},
            "methods": list(self.methods),
            "densities": list(self.densities),
            "smallest_wilcoxon_p": smallest_p(self.seeds),
            "cells": [cell.as_dict() for cell in self.cells],
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
            "environments": [dict(environment) for environment in self.environments],
        }


def read_result(registry: Registry, bench: Bench, plan: Plan, *, seeds: int, wall_seconds: float) -> SweepResult:
    """Sum up what the registry has of a plan."""
    split: Split = "test" if len(bench.dataset.test_y) else "validation"
    cells = tuple(_read_cell(registry, bench, place, seeds=seeds, split=split) for place in plan.places)
    return SweepResult(
        registry=registry.path,
        space=space_label(bench.space.describe()),
        dataset=bench.dataset.name,
        split=split,
        epochs=bench.task.rule.epochs,
        seeds=seeds,
        methods=plan.methods,
        densities=plan.densities,
        given=plan.given,
        reference=plan.reference,
        cells=cells,
        comparisons=tuple(one for density in plan.densities for one in compare(cells, density, plan.reference)),
        environments=tuple(_environments(registry, cells)),
        wall_seconds=wall_seconds,
    )


def best_cell(cells: Sequence[Cell]) -> Cell | None:
    """The highest mean of cells that are pruned and whole; of equals the first. Dense ones are what pruning costs."""
    chosen = [cell for cell in cells if cell.whole and cell.density is not None]
    return max(chosen, key=lambda cell: cell.mean or 0.0, default=None)


def compare(cells: Sequence[Cell], density: float, reference: str | None) -> list[Comparison]:
    """Compare the methods of a column, dense ones included, with the reference or else the best.

    Args:
        cells: of all columns.
        density: of the column.
        reference: name of a method; None: the best.
    """
    column = [cell for cell in cells if cell.density in (None, density)]
    other = best_cell(column) if reference is None else next(cell for cell in column if cell.method == reference)
    if other is None:
        return []
    methods = [cell for cell in column if cell is not other]
    return compare_all(density, [(cell.method, cell.accuracies, other.method, other.accuracies) for cell in methods])


def _environments(registry: Registry, cells: Sequence[Cell]) -> list[Mapping[str, Any]]:
    """What the rows were trained with, each once."""
    found: list[Mapping[str, Any]] = []
    for cell in cells:
        if cell.id is not None:
            found += [one for one in registry.environments(registry.find_entry(cell.id)) if one not in found]
    return found


def _read_cell(registry: Registry, bench: Bench, place: Place, *, seeds: int, split: Split) -> Cell:
    if place.target is None:
        return Cell(place.method, place.density, status="out of reach", reasons=(place.reason,), missing=seeds)
    entry = find_entry(registry, bench, place)
    runs = [run for run in registry.runs(entry) if run.number < seeds]
    measured: dict[Split, Callable[[TrainingRecord], float | None]] = {
        "test": lambda run: run.test_accuracy,
        "validation": lambda run: run.reports[-1].validation_accuracy if run.reports else None,
    }
    finished = [run for run in runs if run.status is Status.FINISHED]
    found = {run.number: value for run in finished if (value := measured[split](run)) is not None}
    lost = [run for run in runs if run.status in (Status.REFUSED, Status.FAILED)]
    return Cell(
        place.method,
        place.density,
        id=entry.id,
        kept_weights=entry.kept_weights,
        accuracies=found,
        status=str(lost[0].status) if lost and not found else "finished",
        reasons=tuple(f"seed {run.number}: {run.reason}" for run in lost),
        missing=seeds - len(finished),
        epochs_each=epochs_of(entry),
        epochs_spent=sum(run.epochs for run in runs),
        seconds=sum(report.seconds for run in runs for report in run.reports),
    )
