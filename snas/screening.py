"""Proposals filtered by a signal that costs no training, used only where the registry shows that the signal helps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from snas.analysis.correlation import Correlation, correlate
from snas.analysis.observations import Observation, kind_of, observe
from snas.diagnostics.signals import SIGNALS
from snas.encoding import Candidate, Encoding
from snas.errors import FailedError, InputError, RefusedError
from snas.listener import Listener
from snas.pruning.methods import join_rules
from snas.registry import Registry, Study
from snas.training.task import Task, network_at_fault

PROPOSALS = 4  # for each candidate, unless it is said
MOST_PROPOSALS = 64
ENOUGH, STRONG, SURE = 10, 0.2, 0.05  # least n, least |tau| and largest p of a signal that is trusted


def read_screen(text: str) -> tuple[str, int]:
    """The signal and the number of proposals that a text names: "egf1", or "egf1:8".

    Raises:
        InputError: for an unknown signal, or a number of proposals below 2 or above 64.

    Example:
        >>> read_screen("egf1"), read_screen("paths:8")
        (('egf1', 4), ('paths', 8))
    """
    signal, colon, number = text.partition(":")
    if signal not in SIGNALS:
        raise InputError(f"screen is {text!r}; expected a signal: {', '.join(SIGNALS)}")
    if not colon:
        return signal, PROPOSALS
    if not number.isdecimal() or not 2 <= int(number) <= MOST_PROPOSALS:
        raise InputError(
            f"screen is {text!r}; expected {signal}:K with an integer K from 2 to {MOST_PROPOSALS}, the proposals "
            "for each candidate"
        )
    return signal, int(number)


class SignalScreen:
    """Chooses among proposals by a signal at initialization, as long as that went along with the final score.

    What it goes by are fully trained candidates of the same network, data, training and budget: this study's, and
    those that other studies had finished before this one began. It is a function of the registry alone, so that a
    search that is resumed decides as it would have without the interruption, whatever other searches do meanwhile.
    """

    def __init__(
        self, registry: Registry, study: Study, *, encoding: Encoding, task: Task, screen: str, listener: Listener
    ) -> None:
        """Read what other studies found.

        Args:
            registry: where records are.
            study: that is searched.
            encoding: what its points stand for; candidates under any of its rules count.
            task: that its networks are trained for.
            screen: signal and number of proposals, as `read_screen` takes them.
            listener: told once that nothing is screened, and once that something is.
        """
        self._registry = registry
        self._study = study
        self._task = task
        self._signal, self._number = read_screen(screen)
        self._listener = listener
        self._said: set[bool] = set()
        rules = [join_rules(mask, train) for mask in encoding.masks for train in encoding.trains]
        self._kinds = {kind_of(study.identity, rule) for rule in rules}
        others = [other for other in registry.studies() if other.id != study.id]
        self._before = [seen for other in others for seen in self._observations(other, before=study.created)]

    def proposals(self) -> int:
        """How many points the strategy is to be asked for now; 1 where the signal is not known to help."""
        evidence = self.evidence()
        helps = is_trusted(evidence)
        self._tell(evidence, helps)
        return self._number if helps else 1

    def best(self, candidates: Sequence[Candidate], *, seed: int) -> int:
        """Index of the candidate with the most promising signal; of those that cannot work, and of equals, the first.

        Args:
            candidates: the proposals.
            seed: that the chosen one will be trained with.
        """
        direction = math.copysign(1, self.evidence().tau or 0)
        values = [self._measure(candidate, seed) for candidate in candidates]
        ranks = [-math.inf if value is None else direction * value for value in values]
        return ranks.index(max(ranks))

    def evidence(self) -> Correlation:
        """How the signal went along with the final score so far."""
        known = [*self._before, *self._observations(self._study)]
        return correlate(known, self._signal, int(self._study.identity["rule"]["epochs"]))

    def _observations(self, study: Study, *, before: str | None = None) -> list[Observation]:
        return [seen for kind, seen in observe(self._registry, study, before=before) if kind in self._kinds]

    def _measure(self, candidate: Candidate, seed: int) -> float | None:
        """The signal of a candidate's network; None where it cannot work, or has no such signal."""
        task = self._task.of(candidate.space)
        try:
            with network_at_fault():
                sparse = task.prepare(candidate.method, candidate.densities, seed=seed)
        except (RefusedError, FailedError):
            return None  # not trained unless all are alike; then training files the reason
        return task.measure(sparse, seed=seed).get(self._signal)

    def _tell(self, evidence: Correlation, helps: bool) -> None:
        if helps in self._said:
            return
        self._said.add(helps)
        count = f"{evidence.n} fully trained candidate{'' if evidence.n == 1 else 's'}"
        figures = count if evidence.tau is None else f"tau {evidence.tau:+.2f}, p {evidence.p:.2g}, {count}"
        if helps:
            which = "highest" if (evidence.tau or 0) > 0 else "lowest"
            text = f"of {self._number} proposals the one with the {which} {self._signal} is trained ({figures})"
        else:
            need = f"at least {ENOUGH} candidates, |tau| above {STRONG} and p below {SURE}"
            text = f"nothing is screened: {self._signal} is not known to help ({figures}; needed: {need})"
        self._listener.on_message(text)


def is_trusted(evidence: Correlation) -> bool:
    """Whether a signal that correlates like this may choose candidates.

    Example:
        >>> is_trusted(Correlation("egf1", 4, 0.5, 0.01, 12)), is_trusted(Correlation("egf1", 4, 0.5, 0.2, 5))
        (True, False)
    """
    if evidence.tau is None or evidence.p is None:
        return False
    return evidence.n >= ENOUGH and abs(evidence.tau) > STRONG and evidence.p < SURE
