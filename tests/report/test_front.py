from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from snas.errors import InputError
from snas.exports import Group, Row, export
from snas.ranking import Filter, contenders, rank
from snas.registry import Entry, Registry
from snas.report.front import Reference, front_group, front_rows, has_values, read_pareto, source_of, volumes
from snas.training.rule import TrainingRule
from snas.trials import Report, Status

ROW = Row(
    rank=1, id=1, name="a", kind="baseline", method="erk", space="net", dataset="d", kept_weights=10,
    total_weights=1000, density=0.01, compression=100.0, test_accuracy=0.9, test_std=0.01, validation_accuracy=0.9,
    validation_std=None, seeds=3, flops=40, epochs=1, epochs_spent=3, seconds=1.0, strategy="", mask_rule="erk",
    training_rule="sgd", layers=(("fc", 10, 1000),),
)  # fmt: skip
RULE = {
    **TrainingRule(epochs=1).as_dict(), "initialization": "he", "rescale": "auto", "first_layer": "search",
    "last_layer": "search", "epoch_rule": "last", "weights": "he",
}  # fmt: skip


def make_rows(values, **fields) -> list[Row]:
    return [
        replace(ROW, id=number, test_accuracy=accuracy, kept_weights=kept, flops=flops, **fields)
        for number, (accuracy, kept, flops) in enumerate(values, start=1)
    ]


@pytest.mark.parametrize("costs", [("kept_weights",), ("flops",), ("kept_weights", "flops")])
def test_a_row_is_on_the_front_where_no_other_outdoes_it(costs):
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = [(0.5 + 0.1 * rng.integers(5), int(rng.integers(1, 5)), int(rng.integers(1, 5))) for _ in range(8)]
        rows = make_rows(values)
        best = []
        for row in rows:
            better = [
                other
                for other in rows
                if other.test_accuracy >= row.test_accuracy
                and all(getattr(other, cost) <= getattr(row, cost) for cost in costs)
                and (
                    other.test_accuracy > row.test_accuracy
                    or any(getattr(other, cost) < getattr(row, cost) for cost in costs)
                )
            ]
            if not better:
                best.append(row.id)
        found = front_rows(rows, costs)
        assert {row.id for row in found} == set(best)
        assert [row.kept_weights for row in found] == sorted(row.kept_weights for row in found) or costs[0] == "flops"
        assert all(getattr(a, costs[0]) <= getattr(b, costs[0]) for a, b in itertools.pairwise(found))


def test_rows_that_are_not_fully_tested_or_known_are_on_no_front():
    costs = ("kept_weights", "flops")
    assert has_values(ROW, costs)
    assert not has_values(replace(ROW, test_accuracy=None), costs)
    assert not has_values(replace(ROW, failed=1), costs)
    cited = replace(ROW, kind="cited", flops=0)
    assert has_values(cited, ("kept_weights",))  # where it is ranked
    assert not has_values(replace(cited, rank=None), ("kept_weights",))
    assert not has_values(cited, costs)


def test_volumes_by_hand():
    # Above guessing at 10 %: 0.8 at 2 decades below 1000 weights, 0.85 at 1 decade, 0.5 at 2 decades.
    rows = [*make_rows([(0.9, 10, 40), (0.95, 100, 400)]), replace(ROW, id=3, method="snip", test_accuracy=0.6)]
    found = volumes(rows, ("kept_weights",), Reference(0.1, {"kept_weights": 1000.0}))
    assert found == pytest.approx({"all": 0.8 * 1 + 0.85 * 1, "erk": 1.65, "snip": 0.5 * 2})
    assert list(found) == ["all", "erk", "snip"]
    # A second cost: 40 of 4000 operations are two decades too; boxes 0.8 x 2 x 2 and 0.85 x 1 x 1, joined.
    both = Reference(0.1, {"kept_weights": 1000.0, "flops": 4000.0})
    assert volumes(rows[:2], ("kept_weights", "flops"), both)["all"] == pytest.approx(0.8 * 4 + 0.05 * 1)


def test_a_dense_network_and_one_that_guesses_cover_nothing():
    rows = make_rows([(0.99, 1000, 40), (0.1, 10, 40)])
    assert volumes(rows, ("kept_weights",), Reference(0.1, {"kept_weights": 1000.0})) == {"all": 0.0, "erk": 0.0}


def test_a_group_of_a_front_says_what_it_covers():
    group = Group("net", "d", 1, "One split", tuple(make_rows([(0.9, 10, 40), (0.95, 100, 400), (0.8, 50, 4)])))
    front = front_group(group, ("kept_weights",), Reference(0.1, {"kept_weights": 1000.0}))
    assert [row.id for row in front.rows] == [1, 2]
    assert front.hypervolume == pytest.approx({"all": 1.65, "erk": 1.65})
    assert "2 of 3 rows are on the front" in front.subtitle
    assert "times decades below 1,000 kept weights): 1.650" in front.subtitle.replace("all ", "")
    assert json.loads(export([front], "json"))["groups"][0]["hypervolume"] == pytest.approx(front.hypervolume)
    assert "hypervolume" not in json.loads(export([group], "json"))["groups"][0]


def test_sources_are_told_apart():
    searched = replace(ROW, kind="searched", method="searched", strategy="bayes")
    assert source_of(searched) == "searched (bayes)"
    assert source_of(replace(searched, strategy="")) == "searched"
    assert source_of(ROW) == "erk"
    assert source_of(replace(ROW, kind="cited")) == "erk (cited)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy", "pareto is 'accuracy'; name a cost beside the accuracy, as in accuracy,kept_weights"),
        ("kept_weights", "accuracy has to be one of them"),
        ("accuracy,seconds", "objective 'seconds' is unknown"),
    ],
)
def test_wrong_objectives(text, message):
    with pytest.raises(InputError, match=message):
        read_pareto(text)
    with pytest.raises(InputError, match=message):
        Filter(pareto=text)


def add(registry: Registry, key: str, accuracy: float, *, sides=(10, 10), kept=10, arguments=None, **values) -> None:
    """A network of two matrices, of `sides` to 10 and 10 to 10 units."""
    layers = [
        {"name": name, "shape": [10, side], "parameter": f"{name}.weight", "positions": 1, "block": name}
        for name, side in zip("ab", sides, strict=True)
    ]
    space = {"name": "net", "arguments": arguments or {}, "network": str(sides), "classes": 4, "layers": layers}
    data = {"name": "d", "fingerprint": "f", "split": "s", "train": 9, "validation": 1, "test": 5}
    base = {"name": key, "kind": "baseline", "method": "snip", "mask_rule": "snip", "seed": 0, "environment": {}}
    stored = registry.add_entry(
        Entry(
            **{**base, "key": key, "space": space, "dataset": data, "rule": RULE, "kept_weights": kept,
               "total_weights": 10 * sum(sides), "kept": {"a": kept - 4, "b": 4}, **values}
        )
    )  # fmt: skip
    if stored.cited:
        return
    run = registry.add_run(stored, 0, seed=0)
    registry.record(run, Report(0, 1, 1.0, 0.5, 1.0, 0.4, 1.5), status=Status.RUNNING)
    registry.finish(run, test_loss=None, test_accuracy=accuracy)


def test_shapes_of_one_space_share_a_front_and_rankings_stay_apart():
    with Registry("r.db") as registry:
        add(registry, "base", 0.75, kept=100, sides=(10, 10))
        add(registry, "wide", 0.85, kept=100, sides=(190, 10), arguments={"width": 19})
        add(registry, "thin", 0.65, kept=20, sides=(190, 10), arguments={"width": 19})
        add(registry, "longer", 0.99, kept=20, rule={**RULE, "epochs": 2})
        plain = rank(registry)
        groups = rank(registry, Filter(pareto="accuracy,kept_weights"))
        everything = contenders(registry, Filter(pareto="accuracy,kept_weights"))
    assert [[row.name for row in group.rows] for group in plain] == [["wide", "thin"], ["base"], ["longer"]]
    assert [[row.name for row in group.rows] for group in groups] == [["thin", "wide"], ["longer"]]
    assert [[row.name for row in group.rows] for group in everything] == [["wide", "base", "thin"], ["longer"]]
    assert [row.rank for row in groups[0].rows] == [3, 1]  # by accuracy, among all rows
    # Guessing among 4 classes; the largest dense network has 2,000 weights.
    assert groups[0].hypervolume["all"] == pytest.approx(0.4 * np.log10(2000 / 20) + 0.2 * np.log10(2000 / 100))
    assert groups[0].space == "net"
    assert "networks of 200 to 2,000 prunable weights in 2 to 2 layers" in groups[0].subtitle
    assert {row.space for row in groups[0].rows} == {"net (width=19)"}
    mixed = export(everything, "md")
    assert "| Rank | Name | Space |" in mixed
    assert "| Space |" not in export(plain, "md")


def test_flops_can_be_the_cost():
    with Registry("r.db") as registry:
        add(registry, "x", 0.5, kept=30)
        (group,) = rank(registry, Filter(pareto="accuracy,flops"))
    # 2 operations for each of 30 weights, of 200.
    assert group.hypervolume["all"] == pytest.approx(0.25 * np.log10(400 / 60))


def test_published_figures_are_on_a_front_only_where_they_are_ranked():
    with Registry("r.db") as registry:
        add(registry, "ours", 0.75, kept=100)
        cited = {
            "kind": "cited",
            "source": "a paper",
            "cited_density": 0.1,
            "cited_accuracy": 0.9,
            "total_weights": 200,
        }
        add(registry, "theirs", 0, kept=20, rule={"epochs": 300}, **cited)
        unranked = rank(registry, Filter(pareto="accuracy,kept_weights"))
        ranked = rank(registry, Filter(pareto="accuracy,kept_weights", cited="ranked"))
    assert [[row.name for row in group.rows] for group in unranked] == [["ours"]]
    assert [[row.name for row in group.rows] for group in ranked] == [["theirs"]]


def test_a_group_without_a_tested_row_has_no_front():
    with Registry("r.db") as registry:
        add(registry, "x", None)
        assert rank(registry, Filter(pareto="accuracy,kept_weights")) == []
        assert contenders(registry, Filter(pareto="accuracy,kept_weights")) == []


def test_labels_do_not_depend_on_the_order_of_arguments():
    with Registry("r.db") as registry:
        add(registry, "x", 0.5, arguments={"width": 3, "blocks": 2})
        add(registry, "y", 0.6, arguments={"blocks": 2, "width": 3})
        (group,) = rank(registry)
    assert {row.space for row in group.rows} == {"net (blocks=2, width=3)"}
