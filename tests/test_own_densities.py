"""Densities that methods choose themselves, as places where a search begins."""

from __future__ import annotations

import pytest

import snas
from snas.bench import open_bench
from snas.budget import Budget
from snas.errors import InputError
from snas.own_densities import measure_own, read_methods
from snas.pruning.methods import open_method
from snas.registry import Registry
from snas.seeds import Stream, derive
from snas.settings import SearchSettings
from snas.training.task import Task


@pytest.fixture(name="task", scope="module")
def _task() -> Task:
    return open_bench(SearchSettings(space="lenet-300-100", threads=1)).task


def _within(task: Task, **budget: float) -> Task:
    return task.of(task.space.with_budget(Budget(**budget), pinned={}))


def test_what_is_no_method_names_none():
    for text in (None, "none", "rules", "12", "snip.json", "nowhere"):
        assert read_methods(text) == ()


def test_methods_have_settings_and_stand_in_their_order():
    names = [method.name for method in read_methods("synflow, early-ticket:passes=2:examples=100,snip")]
    assert names == ["synflow", "early-ticket:examples=100:passes=2", "snip"]


WRONG = {
    "snip,3": "warm-start has '3' among methods",
    "dense": "warm-start is 'dense', which does not choose a fixed mask",
    "snip,rigl": "warm-start is 'rigl', which does not choose a fixed mask",
    "snip,synflow,snip": "warm-start names 'snip' twice",
    "snip:tempo=3": "tempo",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_one_is_one_line_before_anything_is_written(tmp_path, text):
    with pytest.raises(InputError, match=WRONG[text]) as raised:
        snas.search("lenet-300-100", density=0.1, warm_start=text, registry="r.db")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_the_densities_are_those_of_the_method(task):
    source = measure_own(open_method("snip"), _within(task, density=0.05), seed=3)
    sparse = task.prepare(open_method("snip"), 2510, seed=derive(3, Stream.START))
    assert source.densities == sparse.densities
    assert (source.name, source.rule) == ("snip", "snip")


def test_they_are_within_the_budget(task):
    own = measure_own(open_method("snip"), _within(task, density=0.05), seed=3).densities
    capped = _within(task, density=0.05, caps={"fc3": own.counts["fc3"] / 2 / 1000})
    found = measure_own(open_method("snip"), capped, seed=3).densities
    assert found.counts["fc3"] == own.counts["fc3"] // 2
    assert found.kept_weights == 2510


def test_a_layer_that_a_method_empties_keeps_one_weight(task):
    method = open_method("magnitude:initialization=he")  # of all weights the smallest are those of the first layer
    kept = 20
    assert task.own_densities(method, kept, seed=derive(0, Stream.START)).empty_layers
    densities = measure_own(method, _within(task, weights=kept), seed=0).densities
    assert min(densities.kept) == 1
    assert densities.kept_weights == kept


def test_without_a_budget_there_is_nothing_to_share_out(task):
    with pytest.raises(InputError, match="warm-start snip needs a budget, such as --density"):
        measure_own(open_method("snip"), task, seed=0)


def test_a_search_begins_with_them_and_goes_on_with_the_rules(tmp_path):
    settings = {"density": 0.05, "warm_start": "snip,synflow", "mask": "random,synflow", "strategy": "random"}
    settings |= {"samples": 8, "epochs": 1, "final_seeds": 0, "confirm": 0, "registry": str(tmp_path / "r.db")}
    found = snas.search("lenet-300-100", **settings)
    with Registry(tmp_path / "r.db") as registry:
        study = registry.find_study(found.study)
        records = registry.candidates(study)
    assert [record.traits["origin"] for record in records[:3]] == ["snip random", "snip synflow", "synflow random"]
    assert sorted(records[0].kept.values()) != sorted(records[2].kept.values())
    assert records[0].kept == records[1].kept
    again = snas.search("lenet-300-100", **settings | {"samples": 9})  # the same starts: the study goes on
    assert (again.study, again.candidates) == (found.study, 9)
