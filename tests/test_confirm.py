"""Confirmation on fresh seeds: whom it takes, what it costs, and that nothing else names the winner."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import snas
from snas.confirm import best_of, front_of, near_top, scores_of, search_scores
from snas.errors import FailedError, InputError, SnasError
from snas.listener import Listener
from snas.registry import Registry
from snas.seeds import Stream, derive
from snas.trials import Report, Status

FINISHED, RUNNING, REFUSED = Status.FINISHED, Status.RUNNING, Status.REFUSED
SMALL = {"strategy": "random", "samples": 8, "epochs": 2, "final_seeds": 0, "baselines": "snip", "batch_size": 128}


def report(accuracy: float, *, epoch: int, loss: float) -> Report:
    return Report(0, epoch, 1.0, 0.5, loss, accuracy, 0.25, "abc")


@pytest.fixture
def book(tmp_path):
    """A registry and a study, and how to write candidates into it by hand."""
    with Registry(tmp_path / "hand.db") as registry:
        study = registry.add_study("hand", identity={"seed": 0}, samples=9, environment={})

        def add(number, accuracy, *, status=FINISHED, kept=10, repeat=0, loss=1.0, epoch=2, reason=None, traits=None):
            known = registry.add_candidate(
                study, number, seed=number, point=np.zeros(1), kept={"a": kept}, repeat=repeat, traits=traits
            )
            if accuracy is not None:
                registry.record(known, report(accuracy, epoch=epoch, loss=loss), status=status)
            registry.set_status(known, status, reason=reason)

        yield registry, study, add


def test_those_trained_longest_are_near_the_top_and_ties_go_to_the_smaller(book):
    registry, study, add = book
    add(0, 0.8)
    add(1, 0.85, status=Status.PAUSED, epoch=1)
    add(6, 0.99, status=Status.PAUSED, epoch=1)
    add(7, 0.99, status=Status.FAILED, epoch=1)
    add(2, 0.9, kept=10)
    add(3, 0.9, kept=5)
    add(4, 0.9, kept=5)
    add(5, None, status=REFUSED, reason="empty")
    records = registry.candidates(study)
    assert near_top(records, 9, costs={}) == [3, 4, 2, 0, 6, 1]  # one epoch is not compared with two
    assert near_top(records, 2, costs={}) == [3, 4]
    assert near_top(records, 0, costs={}) == []


def test_with_costs_the_front_comes_first_and_its_ends_before_its_middle(book):
    registry, study, add = book
    for number, (accuracy, kept) in enumerate([(0.9, 100), (0.7, 10), (0.8, 50), (0.6, 60), (0.85, 51)]):
        add(number, accuracy, kept=kept)
    records = registry.candidates(study)
    costs = {record.number: (float(record.kept["a"]),) for record in records}
    assert near_top(records, 9, costs=costs)[-1] == 3  # worse and larger than 2
    assert set(near_top(records, 2, costs=costs)) == {0, 1}
    front = front_of(records, search_scores(records), costs, most=9)
    assert [record.number for record in front] == [0, 4, 2, 1]
    # Room between neighbours: 4 has 0.1 of 0.2 points and 50 of 90 weights, 2 has 0.15 of 0.2 and 41 of 90.
    assert [record.number for record in front_of(records, search_scores(records), costs, most=3)] == [0, 2, 1]


def test_scores_are_means_of_fresh_seeds_and_never_of_the_search(book):
    registry, study, add = book
    add(0, 0.99)
    add(1, 0.90)
    add(2, 0.95)
    for repeat, accuracies in ((1, (0.5, 0.75)), (2, (0.75, 0.75))):
        for number, accuracy in enumerate(accuracies):
            add(number, accuracy, repeat=repeat)
    scores = scores_of(registry, study, seeds=2)
    assert scores == {0: 0.625, 1: 0.75}  # candidate 2 was not trained again: its 0.95 is worth nothing
    assert best_of(registry.candidates(study), scores).number == 1
    assert scores_of(registry, study, seeds=0) == {0: 0.99, 1: 0.9, 2: 0.95}


def test_fewer_or_more_fresh_seeds_than_before_are_read_as_the_settings_say(book):
    registry, study, add = book
    for number, accuracy in enumerate((0.9, 0.8)):
        add(number, accuracy)
    for number, accuracies in enumerate(((0.25, 1.0), (0.5, 0.5))):
        for repeat, accuracy in enumerate(accuracies, start=1):
            add(number, accuracy, repeat=repeat)
    add(1, 1.0, repeat=3)
    assert scores_of(registry, study, seeds=1) == {0: 0.25, 1: 0.5}
    assert scores_of(registry, study, seeds=2) == {0: 0.625, 1: 0.5}
    assert scores_of(registry, study, seeds=3) == {1: (0.5 + 0.5 + 1.0) / 3}  # 0 has no third one


def test_an_unfinished_fresh_seed_counts_for_nothing(book):
    registry, study, add = book
    add(0, 0.9)
    add(1, 0.8)
    add(0, 0.99, repeat=1, status=RUNNING)
    assert scores_of(registry, study, seeds=1) == {0: 0.9, 1: 0.8}
    add(1, 0.7, repeat=1)
    assert scores_of(registry, study, seeds=1) == {1: 0.7}


def test_a_candidate_that_a_fresh_seed_refuses_comes_behind_those_that_always_work(book):
    registry, study, add = book
    for number in range(3):
        add(number, 0.9)
    add(0, 0.99, repeat=1)
    add(0, None, repeat=2, status=REFUSED, reason="no path")
    for repeat in (1, 2):
        add(1, 0.5, repeat=repeat)
        add(2, None, repeat=repeat, status=REFUSED, reason="no path")
    assert scores_of(registry, study, seeds=2) == {1: 0.5}


def test_where_every_candidate_lost_a_seed_those_that_lost_fewest_are_judged_by_the_rest(book):
    registry, study, add = book
    for number in range(2):
        add(number, 0.9)
        add(number, None, repeat=1, status=REFUSED, reason="no path")
    add(0, 0.7, repeat=2)
    add(1, 0.8, repeat=2)
    assert scores_of(registry, study, seeds=2) == {0: 0.7, 1: 0.8}


def test_nothing_that_can_be_named_is_an_error_with_its_reason(book):
    registry, study, add = book
    add(0, None, status=REFUSED, reason="layer 'a' is empty")
    with pytest.raises(SnasError, match=r"none of 1 candidates of study 'hand' could be trained; candidate 0: layer"):
        scores_of(registry, study, seeds=2)
    add(1, 0.9)
    add(2, 0.9)
    for number in (1, 2):
        add(number, None, repeat=1, status=REFUSED, reason="no path")
    what = r"none of 2 candidates near the top of study 'hand' could be trained on a fresh seed; candidate 1: no path"
    with pytest.raises(SnasError, match=what):
        scores_of(registry, study, seeds=1)


# The whole search


def tiny() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 10))


def space() -> snas.SearchSpace:
    return snas.SearchSpace.from_model(tiny, input_shape=(1, 8, 8), name="tiny")


def search(path: str = "r.db", **settings) -> snas.SearchResult:
    return snas.search(space(), **{**SMALL, "registry": path, **settings})


def read(path: str = "r.db"):
    with Registry(path) as registry:
        (study,) = registry.studies()
        return registry.candidates(study), registry.repeats(study), registry.entries()


def facts(path: str):
    candidates, repeats, entries = read(path)
    networks = [
        (
            one.number,
            one.repeat,
            one.seed,
            one.status,
            one.mask_checksum,
            [(r.epoch, r.train_loss) for r in one.reports],
        )
        for one in (*candidates, *repeats)
    ]
    return sorted(networks, key=lambda one: one[:2]), [(entry.key, entry.search_epochs) for entry in entries]


def values(result: snas.SearchResult) -> dict:
    found = result.as_dict()
    return {key: value for key, value in found.items() if key not in ("wall_seconds", "registry")}


class Stop(Exception):
    pass


class Kill(Listener):
    """Ends the process, as far as the search can tell, at the n-th event of confirmation."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _event(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop

    def on_repeat(self, number, *, repeat, start, until):
        self._event()

    def on_repeat_report(self, number, repeat, report, *, epochs_trained):
        self._event()


class Told(Listener):
    def __init__(self) -> None:
        self.failures: list[tuple[int, str]] = []
        self.cost = 0

    def on_failure(self, number, status, reason):
        self.failures.append((number, reason))

    def on_repeat_report(self, number, repeat, report, *, epochs_trained):
        assert report.trial == number
        self.cost = epochs_trained


def test_the_best_are_trained_again_on_seeds_that_nothing_else_uses():
    result = search(confirm=2, confirm_seeds=2)
    candidates, repeats, _ = read()
    chosen = near_top(candidates, 2, costs={})
    assert sorted({run.number for run in repeats}) == sorted(chosen)
    assert [(run.repeat, run.status, run.epochs) for run in repeats] == [(1, FINISHED, 2), (2, FINISHED, 2)] * 2
    fresh = {run.seed for run in repeats}
    assert len(fresh) == 2  # the same for all, so that luck is shared
    finals = {derive(0, Stream.FINAL, number) for number in range(100)}
    assert not fresh & (finals | {candidate.seed for candidate in candidates})
    means = {number: np.mean([run.validation_accuracy for run in repeats if run.number == number]) for number in chosen}
    with Registry("r.db") as registry:
        winner = registry.find_entry(result.best.id).candidate
    assert means[winner] == max(means.values())
    assert [run.traits for run in repeats] == [candidates[run.number].traits for run in repeats]


def test_confirmation_is_part_of_the_cost_of_the_search():
    told = Told()
    result = search(confirm=2, confirm_seeds=2, final_seeds=1, listener=told)
    candidates, repeats, entries = read()
    epochs = sum(one.epochs for one in candidates) + 2 * 2 * 2
    assert result.epochs_trained == told.cost == epochs
    (entry,) = [entry for entry in entries if entry.kind == "searched"]
    assert entry.search_epochs == epochs
    seconds = sum(report.seconds for one in (*candidates, *repeats) for report in one.reports)
    assert entry.search_seconds == pytest.approx(seconds)
    assert result.best.row.epochs_spent == epochs + 2


@pytest.mark.parametrize("step", [1, 2])
def test_a_kill_at_any_point_of_confirmation_changes_nothing(step):
    whole = search("whole.db", confirm=2, confirm_seeds=2)
    with pytest.raises(Stop):
        search(confirm=2, confirm_seeds=2, listener=Kill(0))  # filed, nothing trained
    kills = 0
    while True:
        try:
            parts = search(confirm=2, confirm_seeds=2, listener=Kill(step))
            break
        except Stop:
            kills += 1
    assert kills >= 5 - step  # 8 epochs in 4 trainings
    assert values(parts) == values(whole)
    assert facts("r.db") == facts("whole.db")
    with Registry("r.db") as registry:
        assert list(registry.files.rglob("*repeat*")) == []


def test_a_killed_confirmation_can_be_given_up_but_has_cost_what_it_has():
    with pytest.raises(Stop):
        search(confirm=2, confirm_seeds=2, listener=Kill(1))  # after its first epoch
    plain = search("plain.db", confirm=0)
    given_up = search(confirm=0)
    assert given_up.best.densities == plain.best.densities
    assert given_up.epochs_trained == plain.epochs_trained + 1


def test_without_final_seeds_the_row_tells_the_fresh_seeds_that_it_was_chosen_by():
    result = search(confirm=3, confirm_seeds=2)
    _, repeats, _ = read()
    means = [
        np.mean([run.validation_accuracy for run in repeats if run.number == number])
        for number in {run.number for run in repeats}
    ]
    assert len(means) == 3
    assert result.best.validation_accuracy == pytest.approx(max(means))
    assert result.best.row.validation_std is not None
    assert (result.best.test_accuracy, result.best.row.seeds, result.differences) == (None, 0, [])


@pytest.mark.parametrize("settings", [{"confirm": 0}, {"confirm": 1}, {"confirm_seeds": 0}, {"samples": 1}])
def test_without_a_choice_nothing_is_trained_again(settings):
    result = search(**settings)
    candidates, repeats, _ = read()
    assert repeats == []
    assert result.epochs_trained == sum(one.epochs for one in candidates)
    assert result.best.densities.counts == best_of(candidates, search_scores(candidates)).kept


def test_more_is_confirmed_when_a_study_is_resumed_with_more():
    search(confirm=2, confirm_seeds=1)
    before, once, _ = read()
    search(confirm=3, confirm_seeds=2)
    after, again, _ = read()
    assert facts_of(before) == facts_of(after)
    assert len(once) == 2
    assert len(again) == 6
    kept = {(run.number, run.repeat): run.reports for run in again}
    assert all(kept[run.number, run.repeat] == run.reports for run in once)
    fresh = search("fresh.db", confirm=3, confirm_seeds=2)
    assert values(search(confirm=3, confirm_seeds=2)) == values(fresh)


def facts_of(records):
    return [(one.number, one.status, one.reports) for one in records]


def test_candidates_of_a_grown_study_are_confirmed_too():
    search(samples=4, name="grown", confirm=2, confirm_seeds=1)
    _, once, _ = read()
    result = search(samples=16, name="grown", confirm=2, confirm_seeds=1)
    candidates, repeats, _ = read()
    numbers = {run.number for run in repeats}
    assert set(near_top(candidates, 2, costs={})) | {run.number for run in once} == numbers
    accuracies = {run.number: run.validation_accuracy for run in repeats}
    with Registry("r.db") as registry:
        winner = registry.find_entry(result.best.id).candidate
    assert accuracies[winner] == max(accuracies.values())


def test_a_candidate_that_fails_on_a_fresh_seed_is_not_the_winner(monkeypatch):
    plain = search("plain.db", confirm=2, confirm_seeds=2)
    with Registry("plain.db") as registry:
        winner = registry.find_entry(plain.best.id).candidate
        (study,) = registry.studies()
        chosen = near_top(registry.candidates(study), 2, costs={})
    from snas.evaluators import parked

    real = parked.Training

    def training(*arguments, key, **options):
        if key == f"trial-{winner}-repeat-2":
            raise FailedError("loss is nan")
        return real(*arguments, key=key, **options)

    monkeypatch.setattr(parked, "Training", training)
    told = Told()
    result = search(confirm=2, confirm_seeds=2, listener=told)
    assert told.failures == [(winner, "on fresh seed 2: loss is nan")]
    with Registry("r.db") as registry:
        assert registry.find_entry(result.best.id).candidate == next(one for one in chosen if one != winner)
    again = Told()
    assert search(confirm=2, confirm_seeds=2, listener=again).best.id == result.best.id
    assert again.failures == []  # a failed seed is not tried again


def test_the_front_of_several_objectives_is_made_of_confirmed_candidates():
    several = {
        "objectives": "accuracy,kept_weights",
        "max_density": 0.9,
        "front": 4,
        "confirm_seeds": 1,
        "final_seeds": 1,
    }
    result = search(**several)
    candidates, repeats, _ = read()
    fresh = {run.number: run.validation_accuracy for run in repeats}
    assert 1 < len(fresh) <= 4
    kept = {one.number: sum(one.kept.values()) for one in candidates}
    # By hand: those that no confirmed candidate beats in both.
    expected = {
        one
        for one in fresh
        if not any(
            fresh[other] >= fresh[one]
            and kept[other] <= kept[one]
            and (fresh[other] > fresh[one] or kept[other] < kept[one])
            for other in fresh
        )
    }
    with Registry("r.db") as registry:
        found = [registry.find_entry(one.id).candidate for one in result.front]
    assert set(found) == expected
    assert [fresh[number] for number in found] == sorted((fresh[number] for number in found), reverse=True)
    assert result.best.id == result.front[0].id
    for network, baselines in zip(result.front, result.front_baselines, strict=True):
        assert baselines["snip"].densities.kept_weights == network.densities.kept_weights
    again = search(**several)
    assert values(again) == values(result)


@pytest.mark.parametrize(("setting", "value"), [("confirm", -1), ("confirm_seeds", -1), ("confirm", 1.5), ("front", 0)])
def test_wrong_numbers_are_refused(setting, value):
    with pytest.raises(InputError, match=setting.replace("_", "-")):
        search(**{setting: value})


def test_the_same_network_found_twice_is_trained_again_once(book):
    registry, study, add = book
    traits = {"rule": "snip", "origin": "erk"}
    for number, (accuracy, kept, own) in enumerate(
        [(0.9, 5, traits), (0.95, 5, {**traits, "origin": "strategy"}), (0.8, 5, {"rule": "random"}), (0.7, 6, traits)]
    ):
        add(number, accuracy, kept=kept, traits=own)
    records = registry.candidates(study)
    assert near_top(records, 9, costs={}) == [1, 2, 3]
    costs = {record.number: (float(record.kept["a"]),) for record in records}
    assert sorted(near_top(records, 9, costs=costs)) == [1, 2, 3]
    assert [record.number for record in front_of(records, search_scores(records), costs, most=9)] == [1]
