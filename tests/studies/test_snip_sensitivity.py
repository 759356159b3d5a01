"""What SNIP depends on."""

from __future__ import annotations

import pytest

import snas
from snas.errors import InputError
from snas.studies.base import open_study
from snas.studies.lab import Lab

ONE = {"registry": "r.db", "epochs": 1, "seeds": 1}


def test_batch_and_initialization_are_varied_one_at_a_time(tmp_path):
    result = snas.run_study(
        "snip-sensitivity", **ONE, factor={"examples": "100,1,0", "init": "glorot,normal"}, output=tmp_path
    )
    varied = [(point["examples"], point["init"]) for point in result.points]
    assert varied == [(100, "glorot"), (100, "normal"), (1, "glorot"), (0, "glorot")]
    batch, init = result.tables
    assert [row[0] for row in batch.rows] == ["1", "100", "all"]
    assert [row[0] for row in init.rows] == ["VS-X", "RN"]
    assert batch.rows[1][1] == init.rows[0][1]
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "snip-sensitivity-maps.png",
        "snip-sensitivity-errors.png",
    }
    assert all(len(point.result["map"]) == 64 for point in result.points)


def test_all_networks_of_a_seed_are_trained_from_the_same_weights():
    study, lab = open_study("snip-sensitivity"), Lab()
    cells = study.cells(study.grid("tiny") | {"epochs": (1,), "seed": (0,), "examples": (100,)})
    seen = []
    train = lab.train

    def spy(bench, method, kept, *, seed, sparse):
        seen.append(
            {name: value.clone() for name, value in sparse.model.state_dict().items()} | {"masks": sparse.masks}
        )
        return train(bench, method, kept, seed=seed, sparse=sparse)

    lab.train = spy
    for cell in cells[:2]:
        study.measure(cell, lab)
    one, two = seen
    assert one["masks"] != two["masks"]
    both = one["masks"]["fc1"] & two["masks"]["fc1"]
    assert both.any()
    assert (one["fc1.weight"][both] == two["fc1.weight"][both]).all()
    assert not one["fc1.weight"][~one["masks"]["fc1"]].any()


def test_networks_whose_first_layer_does_not_see_the_whole_input_have_no_map():
    result = snas.run_study(
        "snip-sensitivity", **ONE, space="resnet14:width=8", init="glorot", factor={"examples": "100"}
    )
    assert [point.result["map"] for point in result.points] == [None]
    assert open_study("snip-sensitivity").pictures(result.points) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "luck"}, "init is 'luck'"),
        ({"factor": {"examples": "-1"}}, "examples is -1; expected at least 1, or 0 for all"),
        ({"sparsity": 0.0}, "expected 0 < sparsity < 1"),
    ],
)
def test_bad_grids_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        snas.run_study("snip-sensitivity", **ONE | given)
