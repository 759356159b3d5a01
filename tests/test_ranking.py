from __future__ import annotations

import pytest

from snas.ranking import Filter, make_row, rank
from snas.registry import Entry, Registry
from snas.training.rule import TrainingRule
from snas.trials import Report, Status

LAYERS = [
    {"name": "a", "shape": [4, 2, 3, 3], "parameter": "a.weight", "positions": 64, "block": "a"},
    {"name": "b", "shape": [10, 4], "parameter": "b.weight", "positions": 1, "block": "b"},
]
RULE = {
    **TrainingRule(epochs=2).as_dict(), "initialization": "he", "rescale": "auto", "first_layer": "search",
    "last_layer": "search", "epoch_rule": "last", "weights": "he",
}  # fmt: skip


def entry(key: str, **values) -> Entry:
    base = {"key": key, "name": key, "kind": "baseline", "method": "snip", "mask_rule": "snip", "seed": 0}
    space = {"name": "net", "arguments": {}, "network": "n", "layers": LAYERS}
    data = {"name": "d", "fingerprint": "f", "split": "s", "train": 9, "validation": 1, "test": 5}
    return Entry(
        **{**base, "space": space, "dataset": data, "rule": RULE, "environment": {}, "kept_weights": 28,
           "total_weights": 112, "kept": {"a": 18, "b": 10}, **values}
    )  # fmt: skip


def add(registry: Registry, key: str, accuracies: list[float | None], **values) -> Entry:
    stored = registry.add_entry(entry(key, **values))
    for number, accuracy in enumerate(accuracies):
        run = registry.add_run(stored, number, seed=number)
        for epoch in (1, 2):
            report = Report(number, epoch, 1.0, 0.5, 1.0, 0.4 + 0.1 * epoch + 0.1 * number, 1.5)
            registry.record(run, report, status=Status.RUNNING)
        registry.finish(run, test_loss=None, test_accuracy=accuracy)
    return stored


def test_row_has_the_mean_and_sample_deviation_of_the_seeds():
    with Registry("r.db") as registry:
        row = make_row(registry, add(registry, "x", [0.8, 0.9, 1.0]))
    assert row.test_accuracy == pytest.approx(0.9)
    assert row.test_std == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert row.validation_accuracy == pytest.approx(0.7)  # of 0.6, 0.7, 0.8 after the last epoch
    assert (row.seeds, row.epochs_spent, row.seconds) == (3, 6, 9.0)
    assert (row.density, row.compression) == (0.25, 4.0)
    assert row.flops == 2 * (18 * 64 + 10)
    assert row.layers == (("a", 18, 72), ("b", 10, 40))


def test_one_seed_has_no_spread_and_none_has_no_result():
    with Registry("r.db") as registry:
        one, none = make_row(registry, add(registry, "x", [0.8])), make_row(registry, add(registry, "y", []))
    assert (one.test_accuracy, one.test_std, one.seeds) == (0.8, None, 1)
    assert (none.test_accuracy, none.validation_accuracy, none.seeds) == (None, None, 0)


def test_refused_and_unfinished_seeds_do_not_count():
    with Registry("r.db") as registry:
        stored = add(registry, "x", [0.8])
        registry.set_status(registry.add_run(stored, 1, seed=1), Status.REFUSED, reason="no path")
        registry.add_run(stored, 2, seed=2)
        row = make_row(registry, stored)
        assert (row.seeds, row.failed) == (1, 1)


def test_a_mean_over_survivors_is_not_ranked():
    with Registry("r.db") as registry:
        add(registry, "whole", [0.7])
        survivor = add(registry, "survivor", [0.9])
        registry.set_status(registry.add_run(survivor, 1, seed=1), Status.FAILED, reason="loss is nan")
        (group,) = rank(registry)
    assert [(row.rank, row.name) for row in group.rows] == [(1, "whole"), (None, "survivor")]


def test_search_cost_is_counted():
    with Registry("r.db") as registry:
        stored = registry.set_search_cost(add(registry, "x", [0.8]), epochs=100, seconds=50.0)
        row = make_row(registry, stored)
    assert (row.epochs_spent, row.seconds) == (102, 53.0)


def test_ranks_by_test_accuracy_then_size_and_leaves_unmeasured_rows_unranked():
    with Registry("r.db") as registry:
        add(registry, "low", [0.7])
        add(registry, "big", [0.9], kept_weights=40)
        add(registry, "small", [0.9], kept_weights=20)
        add(registry, "none", [])
        (group,) = rank(registry)
    assert [(row.rank, row.name) for row in group.rows] == [(1, "small"), (2, "big"), (3, "low"), (None, "none")]


def test_what_cannot_be_compared_is_never_in_one_ranking():
    with Registry("r.db") as registry:
        base = entry("base")
        others = {
            "space": {**base.space, "name": "other"},
            "arguments": {**base.space, "arguments": {"width": 3}},
            "network": {**base.space, "network": "m"},
            "layers": {**base.space, "layers": [LAYERS[1]]},
            "dataset": {**base.dataset, "name": "e"},
            "fingerprint": {**base.dataset, "fingerprint": "g"},
            "split": {**base.dataset, "split": "t"},
            "epochs": {**base.rule, "epochs": 3},
        }
        add(registry, "base", [0.5])
        for name, value in others.items():
            field = "dataset" if "fingerprint" in value else "space" if "layers" in value else "rule"
            kept = {"kept": {"b": 10}} if name == "layers" else {}
            add(registry, name, [0.5], **{field: value}, **kept)
        groups = rank(registry)
    assert [len(group.rows) for group in groups] == [1] * 9


def test_filters():
    with Registry("r.db") as registry:
        add(registry, "x", [0.5], kept_weights=56)
        add(registry, "y", [0.6])

        def names(**values) -> list[str]:
            return [row.name for group in rank(registry, Filter(**values)) for row in group.rows]

        assert names() == ["y", "x"]
        assert names(max_density=0.25) == ["y"]
        assert names(max_weights=56) == ["y", "x"]
        assert names(max_weights=55) == ["y"]
        assert names(study="x") == ["x"]
        assert names(space="net", dataset="d", epochs=2) == ["y", "x"]
        assert names(space="other") == names(dataset="e") == names(epochs=3) == []
