"""What a registry has of studies: how each is doing, and its candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snas.errors import InputError
from snas.records import Study, TrainingRecord
from snas.registries.heartbeat import Pulse, pulse_of
from snas.registry import Registry
from snas.trials import Status


@dataclass(frozen=True, slots=True)
class Overview:
    """A study at a glance; `counts` are its candidates by status, `epochs` those of all of them."""

    study: Study
    pulse: Pulse
    counts: Counter[Status]
    epochs: int
    best: float | None

    def as_dict(self) -> dict[str, Any]:
        """All as plain values."""
        return {
            "name": self.study.name,
            "state": str(self.pulse.life),
            "candidates": self.counts.total(),
            "samples": self.study.samples,
            **{str(status): self.counts[status] for status in Status if status is not Status.RUNNING},
            "in_training": self.counts[Status.RUNNING],
            "epochs": self.epochs,
            "best_validation_accuracy": self.best,
            **{name: value for name, value in asdict(self.pulse).items() if name != "life"},
            "created": self.study.created,
        }


def overviews(registry: Registry) -> list[Overview]:
    """All studies, oldest first."""
    return [_overview(registry, study) for study in registry.studies()]


def candidates_of(registry: Registry, name: str) -> list[TrainingRecord]:
    """The candidates of the study called `name`, then those trained again on fresh seeds.

    Raises:
        InputError: if there is no such study.
    """
    study = registry.find_study(name)
    if study is None:
        names = [study.name for study in registry.studies()]
        shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        raise InputError(f"no study {name!r} in {registry.path}; " + (f"it has: {shown}" if names else "it has none"))
    return [*registry.candidates(study), *registry.repeats(study)]


def candidate_as_dict(record: TrainingRecord) -> dict[str, Any]:
    """A candidate as plain values."""
    return {
        "number": record.number,
        "fresh_seed": record.repeat,
        "status": str(record.status),
        "reason": record.reason,
        "origin": record.traits.get("origin"),
        "rule": record.traits.get("rule"),
        "kept_weights": sum(record.kept.values()),
        "epochs": record.epochs,
        "validation_accuracy": record.validation_accuracy,
        "seed": record.seed,
        "kept": dict(record.kept),
        "mask_checksum": record.mask_checksum,
    }


def _overview(registry: Registry, study: Study) -> Overview:
    records: Sequence[TrainingRecord] = registry.candidates(study)
    accuracies = [report.validation_accuracy for record in records for report in record.reports]
    return Overview(
        study,
        pulse_of(registry, study),
        Counter(record.status for record in records),
        sum(record.epochs for record in records),
        max(accuracies, default=None),
    )
