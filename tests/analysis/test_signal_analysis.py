"""Correlations of signals with scores: tau counted pair by pair, kinds kept apart, and what the command says."""

import itertools
import json

import numpy as np
import pytest
from scipy.stats import kendalltau

import snas
from snas.analysis.correlation import correlate
from snas.analysis.observations import Observation, curve_signals, kind_of, observe
from snas.cli.main import main
from snas.errors import InputError
from snas.registry import Registry
from snas.trials import Report, Status, Trial

NETWORK = {"network": "n1", "arguments": {}, "layers": [["a", 8]], "pinned": {}, "representation": "layer"}
DATA = {"name": "digits", "fingerprint": "d1", "split": "s1", "train": 90, "validation": 10, "test": 20}


def identity(**changed):
    return {
        "space": {"name": "net", **NETWORK},
        "dataset": dict(DATA),
        "mask": "random",
        "rule": {"epochs": 4, "lr": 0.1},
        "asha": {"grace": 1, "eta": 2},
        **changed,
    }


def add(registry, name, candidates, **changed):
    """A study whose candidates are (signals, accuracies after each epoch)."""
    study = registry.add_study(name, identity=identity(**changed), samples=99, environment={})
    for number, (signals, accuracies, *traits) in enumerate(candidates):
        training = registry.add_candidate(
            study,
            number,
            seed=number,
            point=np.zeros(1),
            kept={"a": 5},
            traits={"rule": "random", **(traits[0] if traits else {})},
        )
        for epoch, accuracy in enumerate(accuracies, start=1):
            report = Report(number, epoch, 2 - accuracy, 0.5, 3 - accuracy, accuracy, 0.1, signals=signals)
            registry.record(training, report, status=Status.FINISHED if epoch == 4 else Status.PAUSED)
    return study


def curve(final):
    return [final - 0.3, final - 0.2, final - 0.1, final]


def by_pairs(x, y):
    """Kendall's tau-b as it is defined."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    untied = [sum(sign[k] != 0 for sign in signs) for k in (0, 1)]
    return sum(a * b for a, b in signs) / np.sqrt(untied[0] * untied[1])


def test_tau_is_counted_pair_by_pair_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 15).astype(float), rng.integers(0, 6, 15) / 10
    some = [Observation("s", {"paths": a}, Trial(0, np.zeros(1), scores={4: b})) for a, b in zip(x, y, strict=True)]
    some.append(Observation("s", {}, Trial(0, np.zeros(1), scores={4: 0.9})))  # no signal
    some.append(Observation("s", {"paths": 9.0}, Trial(0, np.zeros(1), scores={2: 0.9})))  # not so far
    found = correlate(some, "paths", 4)
    assert found.n == 15
    assert found.tau == pytest.approx(by_pairs(x, y))
    assert found.p == pytest.approx(kendalltau(x, y).pvalue)
    assert 0 < found.p < 1


def test_tau_is_not_defined_where_nothing_differs():
    some = [Observation("s", {"width": 1.0}, Trial(0, np.zeros(1), scores={4: y})) for y in (0.1, 0.2, 0.3)]
    assert (correlate(some, "width", 4).tau, correlate(some, "width", 4).p, correlate(some, "width", 4).n) == (
        None,
        None,
        3,
    )
    assert correlate(some[:1], "width", 4).n == 1


def test_a_learning_curve_by_hand():
    reports = [Report(0, epoch, 4 / epoch, 0.1, 5 / epoch, epoch / 10, 1.0) for epoch in (1, 2, 3)]
    assert curve_signals(reports, 3) == {
        "loss-sum@3": pytest.approx(4 + 2 + 4 / 3),
        "train-loss@3": pytest.approx(4 / 3),
        "validation-loss@3": pytest.approx(5 / 3),
        "validation-accuracy@3": 0.3,
    }
    assert curve_signals(reports, 4) == {}
    assert curve_signals(reports[1:], 2) == {}  # an epoch is missing: its sum would be wrong


EARLY = (0.3, 0.35, 0.85, 0.4, 0.75, 0.65)


def test_groups_and_figures(tmp_path):
    path = tmp_path / "r.db"
    with Registry(path) as registry:
        finals = [0.5, 0.9, 0.6, 0.8, 0.7]
        add(registry, "one", [({"paths": 10 * y, "gf1": 1.0}, curve(y)) for y in finals])
        add(registry, "two", [({"paths": -y}, curve(y)[:2]) for y in EARLY], dataset={**DATA, "split": "s2"})
        add(registry, "other", [({"paths": y}, curve(y)) for y in finals], budget={"density": 0.01})
    first, second = snas.analyze_signals(path)
    assert (first.studies, first.candidates, first.finished) == (("one", "two"), 11, 5)
    assert (second.studies, second.kind.budget) == (("other",), "density 0.01")
    assert first.lengths == (4, 2)
    found = {(item.signal, item.epochs): item for item in first.correlations}
    assert (found["paths", 4].tau, found["paths", 4].n) == (pytest.approx(1), 5)
    assert found["gf1", 4].tau is None
    x = [10 * y for y in finals] + [-y for y in EARLY]
    y = [y - 0.2 for y in finals] + [y - 0.2 for y in EARLY]
    assert found["paths", 2].tau == pytest.approx(by_pairs(x, y))
    assert found["loss-sum@2", 4].tau == found["validation-loss@1", 4].tau == pytest.approx(-1)
    assert found["validation-accuracy@2", 4].tau == pytest.approx(1)
    assert ("validation-accuracy@2", 2) not in found  # it is that score
    assert ("loss-sum@4", 4) not in found
    assert "kept-weights" not in {item.signal for item in first.correlations}
    assert any("10 are needed" in note for note in first.notes)
    assert any("selected sample" in note for note in first.notes)
    assert not any("selected sample" in note for note in second.notes)


@pytest.mark.parametrize(
    "changed",
    [
        {"budget": {"density": 0.5}},
        {"rule": {"epochs": 4, "lr": 0.2}},
        {"rule": {"epochs": 8, "lr": 0.1}},
        {"dataset": {**DATA, "fingerprint": "d2"}},
        {"space": {"name": "net", **NETWORK, "network": "n2"}},
        {"pins": {"a": 1.0}},
    ],
)
def test_what_cannot_be_compared_is_of_another_kind(changed):
    assert kind_of(identity(**changed), "random") != kind_of(identity(), "random")


def test_what_can_be_compared_is_of_one_kind():
    same = identity(
        seed=7, strategy={"name": "bayes"}, space={"name": "net", **NETWORK, "representation": "block"},
        dataset={**DATA, "split": "s9"},
    )  # fmt: skip
    assert kind_of(same, "random") == kind_of(identity(), "random")
    assert kind_of(same, "snip") != kind_of(identity(), "random")


def test_only_what_was_recorded_before_and_what_did_not_fail(tmp_path):
    with Registry(tmp_path / "r.db") as registry:
        study = add(registry, "one", [({"paths": 1.0}, curve(0.5)), ({"paths": 2.0}, curve(0.6))])
        assert len(observe(registry, study)) == 2
        assert observe(registry, study, before=study.created) == []
        assert len(observe(registry, study, before="9999")) == 2
    with Registry(tmp_path / "s.db") as registry:
        study = add(registry, "one", [({"paths": 1.0}, curve(0.5)[:3]), ({"paths": 2.0}, curve(0.6))])
        registry.set_status(1, Status.FAILED, reason="diverged")
        ((kind, seen),) = observe(registry, study)
        assert (kind.rule, seen.signals["paths"], seen.signals["kept-weights"]) == ("random", 2.0, 5.0)


def test_rules_are_groups_and_old_candidates_have_their_studys(tmp_path):
    with Registry(tmp_path / "r.db") as registry:
        add(registry, "one", [({"paths": 1.0}, [0.5], {"rule": "snip"}), ({}, [0.5], {"rule": ""})], mask="er")
    assert [group.kind.rule for group in snas.analyze_signals(tmp_path / "r.db")] == ["snip", "er"]


def test_the_command(tmp_path, capsys):
    path = str(tmp_path / "r.db")
    with Registry(path) as registry:
        add(registry, "one", [({"paths": 10 * y}, curve(y)) for y in (0.5, 0.9, 0.6)])
    assert main(["analyze", "signals", "--registry", path]) == 0
    out = capsys.readouterr().out
    assert "net on digits, masks by random" in out
    assert "3 candidates, 3 trained fully" in out
    assert [line.split()[1] for line in out.splitlines() if line.split()[:1] == ["paths"]] == ["+1.00"]
    assert "note: 3 fully trained are too few to tell" in out
    assert main(["analyze", "signals", "--registry", path, "--format", "json", "--study", "one"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert (group["space"], group["epochs"], group["finished"], group["lengths"]) == ("net", 4, 3, [4])
    assert group["correlations"][0] | {"p": 0} == {
        "signal": "paths",
        "epochs": 4,
        "tau": pytest.approx(1),
        "p": 0,
        "n": 3,
    }


def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys):
    path = str(tmp_path / "r.db")
    with Registry(path) as registry:
        pass
    with pytest.raises(InputError, match="nothing was searched"):
        snas.analyze_signals(path)
    with Registry(path) as registry:
        add(registry, "one", [({}, [])])
    for given, message in (
        ({"study": "two"}, "no study 'two' in .*; there is: one"),
        ({"space": "vgg"}, "no study in .* meets all filters; there is: net on digits"),
        ({}, "no candidate of study 'one' in .* has trained an epoch yet"),
    ):
        with pytest.raises(InputError, match=message):
            snas.analyze_signals(path, **given)
    assert main(["analyze", "signals", "--registry", path, "--study", "two"]) == 2
    assert main(["analyze", "signals", "--registry", str(tmp_path / "none.db")]) == 2
    assert main(["analyze", "signals", "--registry", path, "--format", "xml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
