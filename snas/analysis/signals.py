"""Which signals went along with the score: the command `analyze signals` as a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snas.analysis.correlation import Correlation, correlate
from snas.analysis.observations import CURVE_SIGNALS, Kind, Observation, observe
from snas.diagnostics.signals import SIGNALS
from snas.errors import InputError
from snas.records import require_identity
from snas.registry import Registry, Study
from snas.settings import registry_path
from snas.trials import comparable_length

ENOUGH = 10  # candidates, for a correlation to be taken seriously


@dataclass(frozen=True)
class SignalGroup:
    """The correlations of candidates of one kind.

    Attributes:
        kind: what they have in common.
        studies: that they come from, oldest first.
        candidates: how many there are.
        finished: how many of them were trained fully.
        lengths: epochs after which scores were taken: the full training, then the longest that ten candidates have
            reached, and the longest that half of them have, where these are shorter.
        correlations: of each signal with the score after each of `lengths`. A learning curve's signals are of rungs
            before it.
        notes: what is to be kept in mind.
    """

    kind: Kind
    studies: tuple[str, ...]
    candidates: int
    finished: int
    lengths: tuple[int, ...]
    correlations: tuple[Correlation, ...]
    notes: tuple[str, ...]


def analyze_signals(
    registry: str | Path | None = None,
    *,
    study: str | None = None,
    space: str | None = None,
    dataset: str | None = None,
) -> list[SignalGroup]:
    """Correlate what was known early of each candidate with its score, over all candidates that can be compared.

    Args:
        registry: the file; SNAS_REGISTRY or snas.db by default.
        study: only this one.
        space: only this search space.
        dataset: only these data.

    Returns:
        A group for each kind of candidates that were trained, in the order of their first study.

    Raises:
        InputError: if there is no such registry, study, or nothing that was searched there.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = snas.search(
        ...         "lenet-300-100", strategy="random", samples=4, epochs=1, final_seeds=0, registry=f"{folder}/snas.db"
        ...     )
        ...     (group,) = snas.analyze_signals(f"{folder}/snas.db")
        >>> group.finished, {found.signal: found.n for found in group.correlations}["synflow"]
        (4, 4)
    """
    path = registry_path(None if registry is None else str(registry))
    with Registry(path, create=False) as opened:
        chosen = _choose(opened, study, space, dataset)
        kinds: dict[Kind, list[Observation]] = {}
        for one in chosen:
            for kind, seen in observe(opened, one):
                kinds.setdefault(kind, []).append(seen)
        if not kinds:
            raise InputError(f"no candidate of {_names(chosen)} in {opened.path} has trained an epoch yet; go on there")
    return [analyze(kind, observations) for kind, observations in kinds.items()]


def analyze(kind: Kind, observations: Sequence[Observation]) -> SignalGroup:
    """The correlations of candidates of one kind."""
    trials = [seen.trial for seen in observations]
    finished = sum(kind.epochs in trial.scores for trial in trials)
    common = [comparable_length(trials, need) for need in (ENOUGH, -(-len(trials) // 2))]
    lengths = tuple(dict.fromkeys(([kind.epochs] if finished else []) + common))
    correlations = tuple(
        correlate(observations, signal, length)
        for length in lengths
        for signal in _signals(observations)
        if _epoch_of(signal) < length
    )
    studies = tuple(dict.fromkeys(seen.study for seen in observations))
    notes = _notes(kind, finished, len(observations), correlations)
    return SignalGroup(kind, studies, len(observations), finished, lengths, correlations, notes)


def _choose(registry: Registry, study: str | None, space: str | None, dataset: str | None) -> list[Study]:
    """The studies that are asked for."""
    studies = [require_identity(one) for one in registry.studies()]
    if not studies:
        raise InputError(f"nothing was searched in {registry.path} yet; snas search records signals")
    known = ", ".join(one.name for one in studies)
    if study is not None and all(one.name != study for one in studies):
        raise InputError(f"no study {study!r} in {registry.path}; there is: {known}")
    chosen = [
        one
        for one in studies
        if study in (None, one.name)
        and space in (None, one.identity["space"]["name"])
        and dataset in (None, one.identity["dataset"]["name"])
    ]
    if not chosen:
        there = {f"{one.identity['space']['name']} on {one.identity['dataset']['name']}" for one in studies}
        raise InputError(f"no study in {registry.path} meets all filters; there is: {', '.join(sorted(there))}")
    return chosen


def _signals(observations: Sequence[Observation]) -> list[str]:
    """Names of all signals that any candidate has and that are not the same for all by definition, in order."""
    names = dict.fromkeys(name for seen in observations for name in seen.signals)
    weights = {seen.signals["kept-weights"] for seen in observations}
    initial = [name for name in (*SIGNALS, "kept-weights") if name in names]
    if len(weights) == 1:
        initial.remove("kept-weights")
    curves = sorted((name for name in names if _epoch_of(name)), key=lambda name: (_epoch_of(name), _place(name)))
    others = [name for name in names if name not in initial and not _epoch_of(name) and name != "kept-weights"]
    return [*initial, *others, *curves]


def _epoch_of(signal: str) -> int:
    """The epoch that a signal is of; 0: before training."""
    return int(signal.partition("@")[2] or 0)


def _place(signal: str) -> int:
    return list(CURVE_SIGNALS).index(signal.partition("@")[0])


def _notes(kind: Kind, finished: int, candidates: int, correlations: Sequence[Correlation]) -> tuple[str, ...]:
    notes = []
    if finished < ENOUGH:
        notes.append(f"{finished} fully trained are too few to tell; {ENOUGH} are needed")
    if 0 < finished < candidates:
        notes.append(
            f"the {finished} trained for {kind.epochs} epochs were chosen for their early scores: "
            "correlations with later ones are of a selected sample"
        )
    tested = sum(found.tau is not None for found in correlations)
    if tested >= 20:
        notes.append(f"of {tested} tests about {round(tested / 20)} have p < 0.05 by chance alone")
    return tuple(notes)


def _names(studies: Sequence[Study]) -> str:
    return f"study {studies[0].name!r}" if len(studies) == 1 else f"{len(studies)} studies"
