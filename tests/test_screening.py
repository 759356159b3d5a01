"""Proposals chosen by a signal: what it takes to be trusted, which one is chosen, and that resuming decides alike."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import snas
import snas.screening
from snas.analysis.correlation import Correlation
from snas.bench import open_bench
from snas.densities import Densities
from snas.encoding import Candidate, Encoding
from snas.errors import InputError
from snas.listener import Listener
from snas.registry import Registry
from snas.screening import SignalScreen, is_trusted, read_screen
from snas.seeds import Stream, numpy_generator
from snas.settings import SearchSettings
from snas.strategies.base import make_strategy
from snas.trials import Report, Status

SMALL = {
    "samples": 6,
    "epochs": 2,
    "final_seeds": 0,
    "confirm_seeds": 0,
    "baselines": "none",
    "registry": "r.db",
    "batch_size": 128,
}


def tiny() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


SPACE = snas.SearchSpace.from_model(tiny, input_shape=(1, 8, 8), name="tiny")


class Notes(Listener):
    def __init__(self, stop_after: int = 0) -> None:
        self.lines: list[str] = []
        self.left = stop_after

    def on_message(self, text):
        self.lines.append(text)

    def on_report(self, report, *, best, epochs_trained):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def search(**settings):
    return snas.search(SPACE, strategy="random", **{**SMALL, **settings})


def candidates(path="r.db", study=-1):
    with Registry(path) as registry:
        return registry.candidates(registry.studies()[study])


def bench_of():
    return open_bench(SearchSettings(strategy="random", **SMALL), space=SPACE)


def screen_of(registry, study, signal):
    return SignalScreen(
        registry, study, encoding=Encoding(SPACE), task=bench_of().task, screen=signal, listener=Listener()
    )


@pytest.fixture
def trusting(monkeypatch):
    """Trust any correlation of four."""
    monkeypatch.setattr(snas.screening, "is_trusted", lambda evidence: evidence.tau is not None and evidence.n >= 4)


@pytest.mark.parametrize(
    "text", ["", "egf3", "egf1:", "egf1:1", "egf1:65", "egf1:x", "egf1:-2", "kept-weights", "loss-sum@1", "egf1:4:4"]
)
def test_impossible_screens(text):
    with pytest.raises(InputError, match="screen is"):
        read_screen(text)
    with pytest.raises(InputError, match="screen is"):
        SearchSettings(screen=text)


def test_a_screen_is_written_in_one_way():
    assert SearchSettings(screen="egf1").screen == SearchSettings(screen="egf1:4").screen == "egf1:4"
    with pytest.raises(InputError, match="accuracy alone"):
        SearchSettings(screen="egf1", objectives="accuracy,kept_weights", max_density=0.5)


@pytest.mark.parametrize(
    ("tau", "p", "n", "trusted"),
    [
        (0.5, 0.01, 10, True),
        (-0.5, 0.01, 10, True),
        (0.5, 0.01, 9, False),
        (0.2, 0.01, 50, False),
        (0.5, 0.05, 10, False),
        (None, None, 20, False),
    ],
)
def test_what_is_trusted(tau, p, n, trusted):
    assert is_trusted(Correlation("egf1", 2, tau, p, n)) is trusted


def test_without_evidence_nothing_is_screened_and_it_is_said_once():
    notes = Notes()
    search(name="plain")
    search(name="screened", screen="paths", listener=notes)
    plain, screened = candidates(study=0), candidates(study=1)
    assert [c.point.tolist() for c in plain] == [c.point.tolist() for c in screened]
    assert [c.mask_checksum for c in plain] == [c.mask_checksum for c in screened]
    (line,) = [line for line in notes.lines if "screened" in line]
    assert "nothing is screened: paths is not known to help" in line
    assert "needed: at least 10" in line


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_of_the_proposals_is_trained(sign):
    """Evidence of a clear sign; every candidate is compared with all proposals, made and measured here once more."""
    search(name="first", seed=1, samples=1)
    with Registry("r.db") as registry:
        (first,) = registry.studies()
        made = registry.add_study("made", identity=first.identity, samples=30, environment={})
        for number in range(30):
            training = registry.add_candidate(made, number, seed=0, point=np.zeros(2), kept={"1": 9, "3": 9})
            for epoch in (1, 2):
                report = Report(0, epoch, 1, 1, 1, 0.4 + sign * number / 100, 1, signals={"paths": float(number)})
                registry.record(training, report, status=Status.FINISHED if epoch == 2 else Status.RUNNING)
    notes = Notes()
    search(name="second", screen="paths:3", samples=3, grace=2, listener=notes)
    assert f"of 3 proposals the one with the {'highest' if sign > 0 else 'lowest'} paths is trained" in notes.lines[-1]
    bench = bench_of()
    encoding = Encoding(SPACE)
    records = candidates()
    assert len(records) == 3
    for record in records:
        rng = numpy_generator(0, Stream.PROPOSAL, record.number)
        points = make_strategy("random", {}).ask([], 3, dimensions=encoding.dimensions, rng=rng)
        found = []
        for point in points:
            candidate = encoding.decode(point)
            sparse = bench.task.prepare(candidate.method, candidate.densities, seed=record.seed)
            found.append(bench.task.measure(sparse, seed=record.seed)["paths"])
        chosen = int(np.argmax(sign * np.array(found)))
        assert record.point.tolist() == points[chosen].tolist()
        assert record.signals["paths"] == found[chosen]


def test_resuming_decides_alike_whatever_other_searches_do(trusting):
    settings = {"samples": 5, "grace": 2, "name": "s", "screen": "egf1:3"}
    for path in ("whole.db", "r.db"):
        search(name="first", seed=1, grace=2, samples=4, registry=path)
    search(**settings, registry="whole.db")
    with pytest.raises(KeyboardInterrupt):
        search(**settings, listener=Notes(stop_after=5))
    search(name="between", seed=2, grace=2, samples=4)
    search(name="first", seed=1, grace=2, samples=6)  # the older study grows meanwhile
    search(**settings)
    with Registry("whole.db") as one, Registry("r.db") as two:
        whole = one.candidates(one.find_study("s"))
        parts = two.candidates(two.find_study("s"))
        evidence = [screen_of(registry, registry.find_study("s"), "egf1").evidence() for registry in (one, two)]
        assert evidence[0] == evidence[1]
        assert evidence[0].n == 4 + 5
    assert [c.point.tolist() for c in whole] == [c.point.tolist() for c in parts]
    assert [(c.mask_checksum, c.signals) for c in whole] == [(c.mask_checksum, c.signals) for c in parts]
    search(name="u", samples=5, grace=2, registry="other.db")
    assert [c.point.tolist() for c in candidates("other.db")] != [c.point.tolist() for c in whole]


def test_evidence_is_of_one_kind_and_of_fully_trained_candidates():
    search(name="first", seed=1, grace=1)
    search(name="longer", seed=1, grace=1, epochs=3)
    search(name="thinner", seed=1, grace=1, density=0.2)
    search(name="own", grace=1)
    with Registry("r.db") as registry:
        own = registry.find_study("own")
        finished = [
            record
            for name in ("first", "own")
            for record in registry.candidates(registry.find_study(name))
            if record.epochs == 2
        ]
        screen = screen_of(registry, own, "gf2")
        assert screen.evidence().n == len(finished)
        assert 0 < len(finished) < 12


def test_a_proposal_that_cannot_work_is_not_chosen(trusting):
    search(name="first", seed=1, grace=2)
    empty = Candidate(SPACE, Densities(SPACE.layers, (0, 100)), "random")
    works = Candidate(SPACE, Densities(SPACE.layers, (300, 100)), "random")
    with Registry("r.db") as registry:
        (study,) = registry.studies()
        screen = screen_of(registry, study, "paths")
        assert screen.proposals() == 4
        assert screen.best([empty, works, empty], seed=3) == 1
        assert screen.best([empty, empty], seed=3) == 0
