"""Where a row came from, in words: its search, its training, its data, the machines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snas.cli.tables import duration
from snas.exports import clean
from snas.records import OWN, require_identity
from snas.registry import Entry, Registry, Study, TrainingRecord
from snas.trials import Status


def epochs(number: int) -> str:
    """A number of epochs in words.

    Example:
        >>> epochs(1), epochs(1200)
        ('1 epoch', '1,200 epochs')
    """
    return f"{number:,} epoch{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Found:
    """How a search found a row: its candidate, and that trained again on fresh seeds."""

    candidate: TrainingRecord
    repeats: Sequence[TrainingRecord]
    all_repeats: int

    def describe(self) -> str:
        """In a line: where it came from, what it is beside its densities, and how well it did each time."""
        traits = self.candidate.traits
        origin = traits.get("origin")
        parts = [] if origin is None else ["proposed by the strategy" if origin == OWN else f"warm start {origin}"]
        parts += [f"rule {traits['rule']}"] if "rule" in traits else []
        parts += [f"shape {_pairs(traits['shape'])}"] if "shape" in traits else []
        if self.candidate.validation_accuracy is not None:
            parts.append(f"validation {self.candidate.validation_accuracy:.2%} in the search")
        again = [run.validation_accuracy for run in self.repeats if run.status is Status.FINISHED]
        measured = [value for value in again if value is not None]
        if measured:
            seeds = f"{len(measured)} fresh seed{'' if len(measured) == 1 else 's'}"
            mean = f"{statistics.fmean(measured):.2%} on {seeds} before it was named"
            parts.append(f"{mean} ({self.all_repeats} such trainings in the study)")
        return clean(", ".join(parts))

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        kept = ("origin", "rule", "shape")
        return {
            **{name: self.candidate.traits.get(name) for name in kept},
            "signals": dict(self.candidate.signals),
            "seed": self.candidate.seed,
            "validation_accuracy": self.candidate.validation_accuracy,
            "repeats": [
                {
                    "number": run.repeat,
                    "seed": run.seed,
                    "status": str(run.status),
                    "reason": run.reason,
                    "epochs": run.epochs,
                    "validation_accuracy": run.validation_accuracy,
                }
                for run in self.repeats
            ],
            "repeats_of_study": self.all_repeats,
        }


def read_found(registry: Registry, entry: Entry) -> Found | None:
    """How an entry was found; None for one that no search did."""
    from snas.ranking import candidate_of

    candidate, study = candidate_of(registry, entry), registry.study_of(entry)
    if candidate is None or study is None:
        return None
    repeats = registry.repeats(study)
    return Found(candidate, [run for run in repeats if run.number == candidate.number], len(repeats))


def provenance(
    entry: Entry, study: Study | None, found: Found | None, environments: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Titles and texts that say where a row came from."""
    from snas.ranking import describe_rule

    search = []
    if study is not None and entry.candidate is not None:
        require_identity(study)
        strategy, asha = study.identity["strategy"], study.identity["asha"]
        options = _pairs(strategy["arguments"]) or "default options"
        brackets = f", {study.identity['brackets']} brackets" if "brackets" in study.identity else ""
        rungs = f"ASHA grace {asha['grace']}, eta {asha['eta']}{brackets}"
        text = f"candidate {entry.candidate} of {study.samples}, strategy {strategy['name']} ({options}), {rungs}"
        cost = f"{epochs(entry.search_epochs)} and {duration(entry.search_seconds)}"
        search = [("search", f"{text}, masks {entry.mask_rule}, {cost}")]
        if found is not None:
            search.append(("candidate", found.describe()))
        for title, key in (("budget", "budget"), ("pinned", "pins"), ("searched", "shapes")):
            if key in study.identity:
                search.append((title, clean(_pairs(study.identity[key]))))
        if "objectives" in study.identity:
            search.append(("objectives", ", ".join(study.identity["objectives"])))
    origin = [("origin", clean(entry.source))] if entry.source else []
    return [
        *search,
        *origin,
        ("training", describe_rule(entry.rule)),
        ("data", _pairs(entry.dataset)),
        ("space", _pairs({key: value for key, value in entry.space.items() if key not in ("layers", "name")})),
        *(("environment", _pairs(environment)) for environment in environments),
        ("seed", f"{entry.seed}; result after the {entry.rule['epoch_rule']} epoch; recorded {entry.created}"),
    ]


def _pairs(values: Mapping[str, Any]) -> str:
    shown = (f"{key} {str(value)[:12] if key in ('fingerprint', 'split') else value}" for key, value in values.items())
    return ", ".join(shown)
