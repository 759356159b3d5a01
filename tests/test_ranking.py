from __future__ import annotations

import pytest

from snas.errors import InputError
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


def cite(registry: Registry, name: str, accuracy: float, density: float = 0.1, **values) -> None:
    """A published figure for the space and data of `entry`, unless `values` say otherwise."""
    space = {"name": "net", "arguments": {}, "network": "", "layers": []}
    nowhere = {"name": "d", "fingerprint": "", "split": "", "train": 0, "validation": 0, "test": 0}
    figures = {"cited_density": density, "cited_accuracy": accuracy, "source": f"Table of {name}"}
    weights = {"kept_weights": 0, "total_weights": 0, "kept": {}}
    fields = {"kind": "cited", "method": name, "name": "published", "space": space, "dataset": nowhere}
    rule = {"rule": {"epochs": 0}, "mask_rule": ""}
    registry.cite([entry(f"cited {name}", **{**fields, **figures, **weights, **rule, **values})])


def shown(registry: Registry, **chosen) -> list[list[tuple[int | None, str]]]:
    return [
        [(row.rank, row.method if row.cited else row.name) for row in group.rows]
        for group in rank(registry, Filter(**chosen))
    ]


def test_published_figures_follow_every_group_of_their_space_and_data_unranked():
    with Registry("r.db") as registry:
        cite(registry, "thin", 0.99, 0.05)
        cite(registry, "dense", 0.97, 1.0)
        cite(registry, "thick", 0.95, 0.1)
        cite(registry, "thick too", 0.96, 0.1)
        add(registry, "low", [0.7])
        add(registry, "high", [0.9])
        add(registry, "none", [])
        add(registry, "longer", [0.8], rule={**RULE, "epochs": 3})
        cited = [(None, "dense"), (None, "thick too"), (None, "thick"), (None, "thin")]
        assert shown(registry) == [[(1, "high"), (2, "low"), (None, "none"), *cited], [(1, "longer"), *cited]]
        group = rank(registry)[0]
    assert "published figures of other splits and training lengths, below, unranked" in group.subtitle
    assert (group.epochs, group.space, group.dataset) == (2, "net", "d")


def test_published_figures_are_ranked_where_that_is_asked_for():
    with Registry("r.db") as registry:
        add(registry, "low", [0.7])
        add(registry, "high", [0.9])
        add(registry, "none", [])
        cite(registry, "best", 0.95)
        cite(registry, "middle", 0.8)
        assert shown(registry, cited="ranked") == [
            [(1, "best"), (2, "high"), (3, "middle"), (4, "low"), (None, "none")],
        ]
        (group,) = rank(registry, Filter(cited="ranked"))
        assert "ranked among the measured rows" in group.subtitle
        assert shown(registry, cited="hidden") == [[(1, "high"), (2, "low"), (None, "none")]]
        (group,) = rank(registry, Filter(cited="hidden"))
        assert "published" not in group.subtitle


def test_published_figures_without_measured_rows_are_groups_of_their_own_at_the_end():
    other = {"name": "a-net", "arguments": {"layers": "3"}, "network": "", "layers": []}
    with Registry("r.db") as registry:
        cite(registry, "alone", 0.9, space=other)
        cite(registry, "alone too", 0.8, space=other)
        cite(registry, "elsewhere", 0.9, dataset={"name": "e"})
        add(registry, "x", [0.5])
        assert shown(registry) == [
            [(1, "x")],
            [(None, "alone"), (None, "alone too")],
            [(None, "elsewhere")],
        ]
        groups = rank(registry)
        assert [(group.space, group.dataset, group.epochs) for group in groups[1:]] == [
            ("a-net (layers=3)", "d", 0),
            ("net", "e", 0),
        ]
        assert all("nothing of this space and data set was measured here" in group.subtitle for group in groups[1:])
        assert shown(registry, cited="ranked")[1] == [(1, "alone"), (2, "alone too")]
        assert shown(registry, cited="hidden") == [[(1, "x")]]
        assert shown(registry, epochs=2) == [[(1, "x")]]  # they have no length to be chosen by


def test_filters_apply_to_published_figures_too():
    with Registry("r.db") as registry:
        add(registry, "x", [0.5])  # 28 of 112 weights
        cite(registry, "thin", 0.9, 0.05)
        cite(registry, "thick", 0.9, 0.5, kept_weights=56, total_weights=112)

        def names(**values) -> list[str]:
            return [name for group in shown(registry, **values) for _, name in group]

        assert names() == ["x", "thick", "thin"]
        assert names(max_density=0.05) == ["thin"]
        assert names(max_density=0.3) == ["x", "thin"]
        assert names(max_weights=56) == ["x", "thick"]  # that of thin is not known
        assert names(max_weights=55) == ["x"]
        assert names(study="x") == ["x"]
        assert names(space="net", dataset="d", epochs=2) == ["x", "thick", "thin"]
        assert names(space="other") == names(dataset="e") == names(epochs=3) == []


def test_the_row_of_a_published_figure_says_what_its_source_says():
    with Registry("r.db") as registry:
        cite(registry, "snip", 0.984, 0.05, cited_std=0.002, cited_seeds=20, rule={"epochs": 30})
        (group,) = rank(registry)
    (row,) = group.rows
    assert (row.kind, row.method, row.source) == ("cited", "snip", "Table of snip")
    assert (row.test_accuracy, row.test_std, row.seeds, row.epochs) == (0.984, 0.002, 20, 30)
    assert (row.density, row.compression) == (0.05, 20.0)
    assert (row.validation_accuracy, row.flops, row.seconds, row.layers) == (None, 0, 0.0, ())


def test_an_unknown_place_for_published_figures_lists_the_choices():
    with pytest.raises(InputError, match="cited is 'below'; choices: unranked, ranked, hidden"):
        Filter(cited="below")
