"""The loop end to end on small networks: records, resumption to the bit, refusals, finalists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import snas
from snas.errors import InputError, SnasError
from snas.listener import Listener
from snas.registry import Registry
from snas.trials import Status

SMALL = {"samples": 6, "epochs": 4, "final_seeds": 1, "registry": "r.db", "batch_size": 128}


class Stop(Exception):
    pass


class StopAfter(Listener):
    """Kills the process, as far as the search can tell, after a number of epochs; nothing is cleaned up."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def on_report(self, report, *, best, epochs_trained):
        self.left -= 1
        if self.left == 0:
            raise Stop

    def on_run_epoch(self, entry, seed, report):
        self.on_report(report, best=0.0, epochs_trained=0)


def tiny() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 10)
    )


def space() -> snas.SearchSpace:
    return snas.SearchSpace.from_model(tiny, input_shape=(1, 8, 8), name="tiny")


def records(path: str = "r.db"):
    with Registry(path) as registry:
        (study,) = registry.studies()
        return registry.candidates(study), [registry.runs(entry) for entry in registry.entries()]


def without_clock(result: snas.SearchResult) -> dict:
    values = result.as_dict()
    del values["wall_seconds"], values["registry"]
    return values


def facts(candidates):
    return [
        (
            c.number,
            c.point.tolist(),
            c.status,
            c.mask_checksum,
            [(r.epoch, r.train_loss, r.validation_loss) for r in c.reports],
        )
        for c in candidates
    ]


def test_search_records_everything_and_ranks_it():
    result = snas.search(space(), strategy="random", **SMALL)
    candidates, runs = records()
    assert [candidate.number for candidate in candidates] == list(range(6))
    assert {candidate.status for candidate in candidates} <= {Status.PAUSED, Status.FINISHED}
    for candidate in candidates:
        assert [report.epoch for report in candidate.reports] == list(range(1, candidate.epochs + 1))
        assert candidate.epochs in (1, 2, 4)
    with Registry("r.db") as registry:
        repeats = registry.repeats(registry.studies()[0])
    assert result.epochs_trained == sum(candidate.epochs for candidate in [*candidates, *repeats])
    assert result.candidates == 6
    again = {run.number for run in repeats}
    fresh = {number: [run.validation_accuracy for run in repeats if run.number == number] for number in again}
    assert [len(values) for values in fresh.values()] == [2] * 3
    best = max(
        (c for c in candidates if c.number in fresh), key=lambda c: (np.mean(fresh[c.number]), -sum(c.kept.values()))
    )
    assert result.best.densities.counts == best.kept
    assert [len(seeds) for seeds in runs] == [1, 1, 1, 1]
    for seeds in runs:
        assert seeds[0].epochs == 4
        assert seeds[0].test_accuracy is not None
    kept = result.best.densities.kept_weights
    assert result.baselines["snip"].densities.kept_weights == kept
    assert result.baselines["ldi"].densities.kept_weights == kept
    assert result.baselines["dense"].densities.kept_weights == 64 * 24 + 24 * 10
    (group,) = result.leaderboard()
    assert sorted(row.method for row in group.rows) == ["dense", "ldi", "searched", "snip"]
    accuracies = [row.test_accuracy for row in group.rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [row.rank for row in group.rows] == [1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["random", "evolution", "bayes"])
@pytest.mark.parametrize("stops", [(1, 2, 3), (5, 7), (13, 1)])
def test_interrupted_search_ends_like_an_uninterrupted_one(strategy, stops):
    whole = snas.search(space(), strategy=strategy, **{**SMALL, "registry": "whole.db"})
    for epochs in stops:
        with pytest.raises(Stop):
            snas.search(space(), strategy=strategy, listener=StopAfter(epochs), **SMALL)
    parts = snas.search(space(), strategy=strategy, **SMALL)
    assert without_clock(parts) == without_clock(whole)
    one, one_runs = records("whole.db")
    two, two_runs = records()
    assert facts(one) == facts(two)
    for first, second in zip(one_runs, two_runs, strict=True):
        assert [run.test_accuracy for run in first] == [run.test_accuracy for run in second]
        assert [run.mask_checksum for run in first] == [run.mask_checksum for run in second]


@pytest.mark.parametrize(
    "more",
    [
        {"brackets": 2, "density": 0.1},
        {"objectives": "accuracy,kept_weights", "max_density": 0.5, "front": 3, "baselines": "snip", "brackets": 2},
        {"mask": "auto", "train": "static,rigl", "max_density": 0.5, "warm_start": "none"},
    ],
)
def test_interrupted_searches_of_every_kind_end_like_uninterrupted_ones(more):
    whole = snas.search(space(), strategy="random", **{**SMALL, **more, "registry": "whole.db"})
    for epochs in (2, 5, 6):
        with pytest.raises(Stop):
            snas.search(space(), strategy="random", listener=StopAfter(epochs), **SMALL, **more)
    parts = snas.search(space(), strategy="random", **SMALL, **more)
    assert without_clock(parts) == without_clock(whole)
    assert facts(records("whole.db")[0]) == facts(records()[0])


def test_finished_search_trains_nothing_again():
    first = snas.search(space(), strategy="random", **SMALL)

    class Nothing(Listener):
        def on_report(self, report, *, best, epochs_trained):
            raise AssertionError("trained again")

        def on_run_epoch(self, entry, seed, report):
            raise AssertionError("trained again")

    again = snas.search(space(), strategy="random", listener=Nothing(), **SMALL)
    assert without_clock(first) == without_clock(again)


@pytest.mark.parametrize("fault", ["short", "one bit"])
def test_lost_checkpoint_costs_its_epochs_and_changes_nothing(fault, caplog):
    whole = snas.search(space(), strategy="random", **{**SMALL, "registry": "whole.db"})
    with pytest.raises(Stop):
        snas.search(space(), strategy="random", listener=StopAfter(8), **SMALL)
    with Registry("r.db") as registry:
        files = list(registry.files.rglob("*.safetensors"))
        assert files
        for file in files:
            content = bytearray(file.read_bytes())
            content[-5] ^= 2
            file.write_bytes(content if fault == "one bit" else content[:50])
    assert without_clock(snas.search(space(), strategy="random", **SMALL)) == without_clock(whole)
    assert "damaged" in caplog.text


def test_samples_can_grow_and_earlier_candidates_stay():
    name = {"name": "growing"}
    alone = {**SMALL, **name, "final_seeds": 0, "confirm": 0}
    snas.search(space(), strategy="random", **{**alone, "samples": 3})
    before, _ = records()
    result = snas.search(space(), strategy="random", **alone)
    after, _ = records()
    assert len(after) == 6
    for old, new in zip(before, after, strict=False):
        assert new.reports[: len(old.reports)] == old.reports
    assert result.baselines == {}
    assert result.best.test_accuracy is None
    assert result.best.validation_accuracy == max(c.validation_accuracy for c in after if c.epochs == 4)


def test_same_name_with_other_settings_is_refused():
    snas.search(space(), strategy="random", name="mine", **{**SMALL, "samples": 1, "final_seeds": 0})
    for other, what in (
        ({"seed": 1}, "seed 0"),
        ({"epochs": 8}, "rule epochs 4"),
        ({"mask": "magnitude"}, "mask random"),
        ({"representation": "uniform"}, "space representation layer"),
    ):
        with pytest.raises(InputError, match=f"study 'mine' .* {what}"):
            snas.search(space(), strategy="random", name="mine", **{**SMALL, "final_seeds": 0, **other})
    with pytest.raises(InputError, match="space name tiny"):
        snas.search("lenet-300-100", strategy="random", name="mine", **{**SMALL, "final_seeds": 0})
    with pytest.raises(InputError, match="strategy name random"):
        snas.search(space(), strategy="bayes", name="mine", **{**SMALL, "final_seeds": 0})


BASE = {"name": "mine", "samples": 1, "epochs": 2, "final_seeds": 0, "registry": "r.db", "density": 0.2}


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({}, {"density": 0.3}, "budget density=0.2 (now density=0.3)"),
        ({}, {"density": None}, "budget density=0.2 (now none), warm-start rules (now none)"),
        ({}, {"density": None, "max_density": 0.3}, "budget density=0.2 (now max_density=0.3)"),
        ({}, {"floor": {"5": 0.5}}, "budget density=0.2 (now density=0.2 floors (5=0.5))"),
        ({"density": None, "max_density": 0.5}, {"pin": {"5": 1.0}}, "pins none (now 5=1.0)"),
        ({}, {"mask": "snip"}, "mask random (now snip)"),
        ({"mask": "random,snip"}, {"mask": "auto"}, "mask random,snip (now auto)"),
        ({}, {"train": "rigl"}, "train static (now rigl)"),
        ({"train": "set,static"}, {"train": "static"}, "train set,static (now static)"),
        ({}, {"brackets": 2}, "brackets 1 (now 2)"),
        ({"brackets": 2}, {"brackets": 1}, "brackets 2 (now 1)"),
        ({}, {"warm_start": "none"}, "warm-start rules (now none)"),
        (
            {"density": None, "max_density": 0.5, "min_density": 0.005, "warm_start": "none"},
            {"objectives": "accuracy,kept_weights"},
            "objectives accuracy (now accuracy,kept_weights)",
        ),
        (
            {"density": None, "shape": {"width": "8,16"}},
            {"shape": {"width": "8,24"}},
            "shapes width=8,16 (now width=8,24)",
        ),
        (
            {"density": None, "shape": {"width": "8,16"}},
            {"shape": {}},
            "space representation depth (now layer), shapes width=8,16 (now none)",
        ),
    ],
)
def test_a_change_of_what_is_searched_is_named_and_the_same_resumes(before, after, what):
    tried = "mlp" if "shape" in before else space()
    settings = {"strategy": "random", **BASE, **before}
    first = snas.search(tried, **settings)
    assert without_clock(snas.search(tried, **settings)) == without_clock(first)
    with pytest.raises(InputError) as error:
        snas.search(tried, **{**settings, **after})
    told = str(error.value)
    assert f"study 'mine' in r.db was made with {what}" in told.replace("; use the same settings", " ;")
    assert "\n" not in told


class Fixed:
    """Proposes what it was told to."""

    def __init__(self, *points):
        self.points = points

    def ask(self, history, n, *, dimensions, rng):
        return [np.asarray(self.points[len(history)], dtype=float)]


def test_emptied_layers_and_cut_paths_are_refused_before_training():
    strategy = Fixed([0.5, 0.0], [1 / (64 * 24), 1 / 240], [0.9, 0.9])
    result = snas.search(space(), strategy=strategy, **{**SMALL, "samples": 3, "final_seeds": 0})
    candidates, _ = records()
    assert [candidate.status for candidate in candidates] == [Status.REFUSED, Status.REFUSED, Status.FINISHED]
    assert candidates[0].reason == "layer '5' keeps none of its weights"
    assert "path" in candidates[1].reason
    assert [candidate.epochs for candidate in candidates] == [0, 0, 4]
    assert result.best.densities.counts == candidates[2].kept


def test_search_without_a_trainable_candidate_says_why():
    with pytest.raises(SnasError, match=r"none of 2 candidates .* candidate 0: layer '5' keeps none"):
        snas.search(space(), strategy=Fixed([0.5, 0.0], [0.0, 0.5]), **{**SMALL, "samples": 2})


def test_diverged_candidates_fail_with_their_reason():
    with pytest.raises(SnasError, match="loss is"):
        snas.search(space(), strategy="random", **{**SMALL, "lr": 1e30, "samples": 2, "final_seeds": 0})
    candidates, _ = records()
    assert {candidate.status for candidate in candidates} == {Status.FAILED}


def test_the_search_sees_no_test_data(monkeypatch):
    """Finals apart, nothing asks for the test split."""
    from snas import bench

    def forbidden(*_, **__):
        raise AssertionError("the test split was touched")

    monkeypatch.setattr(bench, "held_out", forbidden)
    snas.search(space(), strategy="random", **{**SMALL, "final_seeds": 0})
    with pytest.raises(AssertionError, match="touched"):
        snas.search(space(), strategy="random", **SMALL)


def test_built_network_of_a_method_that_prunes_later_is_dense():
    settings = {name: SMALL[name] for name in ("epochs", "registry") if name in SMALL}
    result = snas.prune(space(), method="gradual", density=0.3, final_seeds=1, **settings)
    kept = sum(int((parameter != 0).sum()) for parameter in result.build().parameters() if parameter.ndim > 1)
    assert result.densities.kept_weights < kept == result.densities.total_weights


def test_built_network_has_the_recorded_mask_and_zero_weights():
    result = snas.search(space(), strategy="random", **SMALL)
    with Registry("r.db") as registry:
        recorded = registry.runs(registry.find_entry(result.best.id))[0].mask_checksum
    model = result.best.build()
    for name, kept in result.best.densities.counts.items():
        assert int(model.get_parameter(f"{name}.weight").count_nonzero()) == kept
    from snas.masks import Masks

    masks = {name: model.get_parameter(f"{name}.weight") != 0 for name in result.best.densities.counts}
    assert Masks(result.best.densities.layers, masks).checksum() == recorded


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    snas.search(space(), strategy="random", **{**SMALL, "samples": 2})
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    other = before + 1
    snas.search(space(), strategy="random", **{**SMALL, "samples": 2}, threads=other)
    assert torch.get_num_threads() == before
    row = snas.prune(space(), method="snip", density=0.1, epochs=1, final_seeds=1, threads=other).row.id
    assert torch.get_num_threads() == before
    snas.train(row, space=space(), final_seeds=2, threads=other)
    assert torch.get_num_threads() == before
    snas.sweep(space(), methods="snip", densities="0.1", epochs=1, seeds=1, threads=other)
    assert torch.get_num_threads() == before
    snas.transfer(row, space=space(), final_seeds=1, threads=other)
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="unknown method"):
        snas.prune(space(), method="nonsense", threads=other)
    assert torch.get_num_threads() == before


def test_prune_keeps_the_exact_count_and_resumes():
    with pytest.raises(Stop):
        snas.prune(space(), method="snip", density=0.1, listener=StopAfter(2), epochs=3, final_seeds=2, registry="r.db")
    result = snas.prune(space(), method="snip", density=0.1, epochs=3, final_seeds=2, registry="r.db")
    assert result.densities.kept_weights == 178  # round(0.1 * 1776)
    assert result.row.seeds == 2
    whole = snas.prune(space(), method="snip", density=0.1, epochs=3, final_seeds=2, registry="whole.db")
    assert whole.row.test_accuracy == result.row.test_accuracy
    assert whole.densities == result.densities


def test_train_adds_seeds_or_a_longer_row():
    result = snas.search(space(), strategy="random", **SMALL)
    with pytest.raises(InputError, match="other data"):
        snas.train(
            result.best.id,
            space=space(),
            dataset=snas.from_arrays(np.zeros((40, 1, 8, 8)), np.arange(40) % 10),
            registry="r.db",
        )
    more = snas.train(result.best.id, space=space(), final_seeds=2, registry="r.db")
    assert (more.id, more.row.seeds) == (result.best.id, 2)
    longer = snas.train(result.best.id, space=space(), epochs=6, final_seeds=1, registry="r.db")
    assert longer.id not in (row.id for row in result.leaderboard()[0].rows)
    assert (longer.row.epochs, longer.row.seeds, longer.densities) == (6, 1, result.best.densities)
    assert len(snas.leaderboard("r.db")) == 2  # lengths are not mixed in one ranking


def test_a_mask_that_cannot_be_reproduced_is_never_trained_on(monkeypatch):
    with pytest.raises(Stop):
        snas.prune(space(), method="snip", density=0.1, listener=StopAfter(2), epochs=3, final_seeds=1, registry="r.db")
    from snas.masks import Masks

    monkeypatch.setattr(Masks, "checksum", lambda self: "another")
    with pytest.raises(SnasError, match="another mask here"):
        snas.prune(space(), method="snip", density=0.1, epochs=3, final_seeds=1, registry="r.db")
    ((run,),) = all_runs("r.db")
    assert run.epochs == 2


def all_runs(path):
    with Registry(path) as registry:
        return [registry.runs(entry) for entry in registry.entries()]


class Fragile(nn.Sequential):
    def forward(self, x):
        if self.training and x.shape[0] == 7:
            raise RuntimeError("out of luck")
        return super().forward(x)


def fragile():
    return Fragile(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10))


def test_a_network_that_raises_fails_its_candidates_with_the_reason():
    odd = snas.SearchSpace.from_model(fragile, input_shape=(1, 8, 8), name="fragile")
    with pytest.raises(SnasError, match=r"none of 2 candidates .* RuntimeError: out of luck"):
        snas.search(odd, strategy="random", **{**SMALL, "samples": 2, "batch_size": 7})
    candidates, _ = records()
    assert {candidate.status for candidate in candidates} == {Status.FAILED}
    with pytest.raises(SnasError, match="out of luck"):
        snas.prune(odd, method="random", density=0.5, epochs=1, final_seeds=2, batch_size=7, registry="p.db")
    assert [run.status for run in all_runs("p.db")[0]] == [Status.FAILED] * 2


@pytest.mark.parametrize("point", [[0.5], [0.5, 1.5], [0.5, float("nan")], [0.5, 0.5, 0.5]])
def test_a_strategy_that_breaks_its_contract_is_named(point):
    with pytest.raises(SnasError, match="strategy Fixed proposed"):
        snas.search(space(), strategy=Fixed(point), **SMALL)


def test_a_row_is_trained_by_one_process_at_a_time():
    from snas.locks import owned

    result = snas.search(space(), strategy="random", **SMALL)
    busy = pytest.raises(InputError, match="entry 1 is being worked on by another process")
    with Registry("r.db") as registry, owned(registry, f"entry-{result.best.id}"), busy:
        snas.train(result.best.id, space=space(), final_seeds=2, registry="r.db")
    assert snas.train(result.best.id, space=space(), final_seeds=2, registry="r.db").row.seeds == 2


def test_spaces_that_do_not_fit_the_data_are_refused():
    for shape, classes, what in (((1, 4, 4), 10, "shape"), ((1, 8, 8), 3, "classes")):

        def network(shape=shape, classes=classes):
            return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], classes))

        odd = snas.SearchSpace.from_model(network, input_shape=shape, name="odd")
        with pytest.raises(InputError, match=what):
            snas.search(odd, strategy="random", **SMALL)


def test_a_space_keeps_its_own_representation():
    uniform = space().with_options(representation="uniform")
    snas.search(uniform, strategy="random", **{**SMALL, "samples": 1, "final_seeds": 0})
    candidates, _ = records()
    assert candidates[0].point.shape == (1,)


def test_networks_of_one_name_and_shape_have_studies_of_their_own():
    def other():
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.Tanh(), nn.Dropout(0.1), nn.Linear(24, 10)
        )

    tanh = snas.SearchSpace.from_model(other, input_shape=(1, 8, 8), name="tiny")
    settings = {**SMALL, "samples": 1}
    first = snas.search(space(), strategy="random", **settings)
    second = snas.search(tanh, strategy="random", **settings)
    assert first.study != second.study
    assert len(snas.leaderboard("r.db")) == 2
    with pytest.raises(InputError, match="another network"):
        snas.train(first.best.id, space=tanh, registry="r.db")


def test_every_epoch_says_where_it_was_trained(monkeypatch):
    from snas import bench

    real = bench.environment
    with pytest.raises(Stop):
        snas.prune(space(), method="snip", density=0.1, listener=StopAfter(1), epochs=2, final_seeds=1, registry="r.db")
    monkeypatch.setattr(bench, "environment", lambda device: {**real(device), "torch": "99"})
    snas.prune(space(), method="snip", density=0.1, epochs=2, final_seeds=1, registry="r.db")
    with Registry("r.db") as registry:
        seen = [environment["torch"] for environment in registry.environments(registry.find_entry(1))]
    assert seen == [torch.__version__, "99"]


def test_volumes_can_be_searched():
    def network():
        return nn.Sequential(
            nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, (1, 3, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
        )

    volumes = snas.SearchSpace.from_model(network, input_shape=(1, 8, 8), name="volumes")
    assert (
        snas.search(volumes, strategy="random", **{**SMALL, "samples": 1, "epochs": 1}).best.test_accuracy is not None
    )


def test_an_interrupted_longer_training_shows_no_figure_of_the_search():
    result = snas.search(space(), strategy="random", **{**SMALL, "final_seeds": 0})
    with pytest.raises(Stop):
        snas.train(result.best.id, space=space(), epochs=6, listener=StopAfter(2), registry="r.db")
    longer = next(group for group in snas.leaderboard("r.db") if group.epochs == 6)
    assert longer.rows[0].validation_accuracy is None
    back = snas.train(longer.rows[0].id, space=space(), epochs=4, final_seeds=1, registry="r.db")
    assert back.id == result.best.id


def test_rows_of_an_earlier_winner_are_hidden_and_marked():
    # The second candidate is the better one: the study's winner changes when it grows.
    grown = {"strategy": "random", "name": "grown", "epochs": 2, "final_seeds": 1, "registry": "r.db"}
    first = snas.search("lenet-300-100", samples=3, **grown)
    second = snas.search("lenet-300-100", samples=20, **grown)
    assert first.best.id != second.best.id
    shown = {row.id for group in snas.leaderboard("r.db") for row in group.rows}
    assert second.best.id in shown
    assert first.best.id not in shown
    everything = {row.id: row for group in snas.leaderboard("r.db", superseded=True) for row in group.rows}
    assert everything[first.best.id].superseded == 1
    assert everything[first.best.id].method == "searched (superseded)"
    assert everything[second.best.id].superseded == 0


def test_rows_and_data_of_ones_own_are_found_again():
    data = snas.from_arrays(np.random.default_rng(0).normal(size=(60, 1, 8, 8)), np.arange(60) % 10)
    result = snas.prune(space(), method="random", density=0.5, dataset=data, epochs=1, final_seeds=1, registry="r.db")
    with pytest.raises(InputError, match="in Python: dataset="):
        snas.train(result.id, space=space(), registry="r.db")
    again = snas.train(np.int64(result.id), space=space(), dataset=data, final_seeds=2, registry="r.db")
    assert again.row.seeds == 2
    assert len(repr(again)) < 3000
