"""snas transfer: what is carried, what stands beside it, what is refused. Run in process."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

import snas
from snas.baselines import rule_of
from snas.cli.main import main
from snas.densities import Densities
from snas.pruning.methods import given_densities, open_method
from snas.registry import Registry
from snas.transfers import _with_erk

QUIET = ["--quiet", "--threads", "1"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(name="source")
def _source() -> snas.Result:
    """Smart ratios at 5 %: far from ERK, which so cannot be taken for them."""
    return snas.prune("lenet-300-100", method="smart", density=0.05, epochs=1, final_seeds=1, lr=0.05)


def trainings() -> int:
    with sqlite3.connect("snas.db") as db:
        return db.execute("SELECT count(*) FROM reports").fetchone()[0]


def test_a_row_is_carried_over_as_it_is_where_nothing_else_is_asked(capsys, source):
    code, out, err = run(capsys, "transfer", str(source.id), "--final-seeds", "2", "--format", "json", *QUIET)
    assert (code, err) == (0, "")
    value = json.loads(out)
    carried = value["carried"]
    assert {name: layer["kept"] for name, layer in carried["layers"].items()} == source.densities.counts
    assert list(value["baselines"]) == ["erk"]
    assert value["baselines"]["erk"]["kept_weights"] == carried["kept_weights"] == 2510
    assert carried["test_accuracy"]["n"] == 2
    assert [(one["method"], one["reference"], one["seeds"]) for one in value["differences"]] == [
        ("transferred", "erk", 2)
    ]
    # The same densities, rule, rule of training and seed: the same network as the source's.
    with Registry("snas.db") as registry:
        entry = registry.find_entry(carried["id"])
        ours, theirs = registry.runs(entry)[0], registry.runs(registry.find_entry(source.id))[0]
        assert (ours.mask_checksum, ours.test_accuracy) == (theirs.mask_checksum, theirs.test_accuracy)
        assert (entry.kind, entry.method, entry.rule["lr"]) == ("searched", "transferred", 0.05)


def test_again_trains_nothing_twice_and_more_seeds_are_added(capsys, source):
    command = ["transfer", str(source.id), "--density", "0.1", "--mask", "random", "--format", "json", *QUIET]
    first = json.loads(run(capsys, *command, "--final-seeds", "1")[1])
    spent = trainings()
    assert json.loads(run(capsys, *command, "--final-seeds", "1")[1]) == first
    assert trainings() == spent
    more = json.loads(run(capsys, *command, "--final-seeds", "2")[1])
    assert trainings() == spent + 2
    assert more["carried"]["id"] == first["carried"]["id"]


def test_the_table_has_the_rows_of_the_transfer_alone_and_show_tells_the_origin(capsys, source):
    code, out, _ = run(
        capsys, "transfer", str(source.id), "--mask", "snip", "--train", "rigl", "--epochs", "2", "--final-seeds", "1",
        "--baselines", "dense,snip", *QUIET,
    )  # fmt: skip
    assert code == 0
    assert "transferred (row 1, snip + rigl)" in out
    assert "snip:allocation=erk + rigl" in out
    assert "dense-1" in out
    assert "smart" not in out.partition("densities of row")[0]
    with Registry("snas.db") as registry:
        row = next(entry for entry in registry.entries() if entry.method == "transferred")
    code, out, _ = run(capsys, "show", str(row.id))
    assert code == 0
    assert "origin" in out
    assert "densities of row 1 (smart-0.05: smart; lenet-300-100 on digits, 2,510 of 50,200 weights)" in out
    shown = json.loads(run(capsys, "show", str(row.id), "--format", "json")[1])
    assert shown["source"].startswith("densities of row 1")
    assert (shown["kind"], shown["strategy"], shown["mask_rule"]) == ("searched", "row 1", "snip + rigl")


def test_to_another_network_and_data_and_on_from_there(tmp_path, source):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 1, 4, 4)).astype(np.float32), rng.integers(0, 3, 120)
    data = snas.from_arrays(x, y)
    result = snas.transfer(
        source.id, space="mlp", space_arg={"hidden-layers": 4}, dataset=data, density=0.1, mask="random",
        baselines="none", final_seeds=1, batch_size=16, threads=1,
    )  # fmt: skip
    carried = result.carried
    assert carried.row.kept_weights == round(0.1 * carried.row.total_weights)
    assert carried.row.space == "mlp (hidden_layers=4)"
    assert carried.entry.rule["lr"] == 0.01  # the space's own, not the row's
    longer = snas.train(carried.id, space="mlp", dataset=data, epochs=2, threads=1)
    assert longer.densities == carried.densities
    again = snas.transfer(carried.id, space="lenet-300-100", dataset="digits", final_seeds=1, threads=1)
    assert again.carried.entry.source.startswith(f"densities of row {carried.id} (transfer-1: row 1, random; mlp")
    with pytest.raises(snas.InputError, match="is of data of your own"):
        snas.transfer(carried.id)


def test_arguments_of_the_row_stay_where_the_space_does(source):
    first = snas.prune("mlp", method="er", density=0.2, epochs=1, final_seeds=1, space_arg={"hidden_layers": 4})
    wide = snas.transfer(first.id, space_arg={"width": 90}, final_seeds=1, threads=1)
    assert wide.carried.row.space == "mlp (hidden_layers=4, width=90)"


def test_a_searched_row_keeps_its_rule():
    found = snas.search(
        "lenet-300-100", density=0.05, mask="snip", train="set", samples=2, epochs=1, final_seeds=1, confirm=0,
        baselines="none", strategy="random", threads=1,
    )  # fmt: skip
    result = snas.transfer(found.best.id, density=0.03, final_seeds=1, threads=1)
    assert result.carried.entry.mask_rule == "snip + set"
    assert list(result.baselines) == ["snip:allocation=erk + set"]
    assert "epochs of search" in result.carried.entry.source


WRONG = {
    "no row 9 in snas.db": ["9"],
    "keeps every weight; there is nothing to carry over": ["2"],
    "density is 1.5; expected 0 < density <= 1": ["1", "--density", "1.5"],
    "cannot be met": ["1", "--density", "0.00001"],
    "unknown space 'nospace'": ["1", "--space", "nospace"],
    "unknown dataset 'nodata'": ["1", "--dataset", "nodata"],
    "unknown mask rule 'nomask'": ["1", "--mask", "nomask"],
    "unknown training rule 'norule'": ["1", "--train", "norule"],
    "unknown method 'nomethod'": ["1", "--baselines", "nomethod"],
    "baseline 'snip' is given twice": ["1", "--baselines", "snip,snip"],
    "possible with at least one in each layer: 302": ["1", "--density", "0.002", "--baselines", "smart"],
    "final-seeds is 0; expected": ["1", "--final-seeds", "0"],
    "takes images": ["1", "--space", "lenet-5-caffe"],
    "no argument 'x'": ["1", "--space-arg", "x=1"],
    "Invalid value for 'ID'": ["one"],
    "format is 'xml'": ["1", "--format", "xml"],
}  # fmt: skip


def test_wrong_use_is_one_line_and_writes_nothing(capsys, source):
    snas.prune("lenet-300-100", method="dense", epochs=1, final_seeds=1)
    spent = trainings()
    for message, arguments in WRONG.items():
        code, out, err = run(capsys, "transfer", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (message, err)
        assert message in err, (message, err)
    with Registry("snas.db") as registry:
        assert len(registry.entries()) == 2
    assert trainings() == spent


def test_without_a_registry_there_is_nothing_to_carry(capsys, tmp_path):
    code, _, err = run(capsys, "transfer", "1")
    assert (code, err) == (2, "snas: no registry at snas.db; run snas search first or name another with --registry\n")
    assert list(tmp_path.iterdir()) == []


# The rule of a row, and the method that differs from it by its densities only


def test_rules_of_rows(source):
    expected = {
        "snip": ("snip", "static"),
        "smart": ("random", "static"),
        "erk:initialization=orthogonal": ("erk:initialization=orthogonal", "static"),
        "rigl:every=50": ("random", "rigl:every=50"),
        "dsr": ("random", "static"),
        "snip + set": ("snip", "set"),
    }
    assert {name: rule_of(replace(source.entry, method=name)) for name in expected} == expected
    assert rule_of(replace(source.entry, kind="searched", mask_rule="snip + set")) == ("snip", "set")
    assert rule_of(replace(source.entry, kind="searched", mask_rule="grasp")) == ("grasp", "static")


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("random", "erk"),
        ("snip", "snip:allocation=erk"),
        ("snip:target=uniform", "snip:allocation=erk:target=uniform"),
        ("smart", "erk"),  # without its allocation a random rule is random
        ("random + rigl", "rigl"),
        ("random + set", "set:allocation=erk"),
        ("synflow + rigl:every=50", "synflow:allocation=erk + rigl:every=50"),
    ],
)
def test_beside_it_stands_the_same_rule_with_erk(rule, name):
    method = open_method(_with_erk(given_densities(rule)))
    assert (method.name, method.allocation) == (name, "erk")
    differing = {"name", "allocation", "help"}
    for field in set(method.__dataclass_fields__) - differing:
        assert getattr(method, field) == getattr(given_densities(rule), field), field


def test_a_score_alone_is_a_rule_too(monkeypatch):
    from snas.pruning.scores import scores

    scores.register("first")(scores.get("magnitude"))
    try:
        method = open_method(_with_erk(given_densities("first + rigl")))
        assert (method.score, method.allocation, method.rescale, method.movement) == ("first", "erk", False, "rigl")
    finally:
        del scores._members["first"]


def test_joined_methods_are_baselines_too(source):
    result = snas.prune("lenet-300-100", method="snip + set", density=0.05, epochs=1, final_seeds=1, threads=1)
    assert (result.row.method, result.densities.kept_weights) == ("snip + set", 2510)
    given = snas.prune("lenet-300-100", method="snip + set", densities_from=source.id, epochs=1, final_seeds=1)
    assert given.densities == Densities(source.densities.layers, source.densities.kept)
    for wrong in ("dense + set", "rigl + set", "dct + set", "snip + dsr", "snip + "):
        with pytest.raises(snas.InputError):
            open_method(wrong)
