"""The study of smoothness: which steps are measured, and what its table says."""

from __future__ import annotations

import re

import pytest

import snas
from snas.errors import InputError
from snas.studies.base import Point
from snas.studies.smoothness import Smoothness


def test_steps_are_measured_at_the_distance_asked_for_and_dense_networks_once():
    grid = {"sparsity": [0, 0.95], "epochs": 2, "every": 17, "seeds": 1, "method": "snip", "examples": 100}
    result = snas.run_study("smoothness", registry="r.db", output="out", **grid)
    dense, sparse = result.points
    assert dense.result["steps"] == sparse.result["steps"] == [0, 17, 34]  # of 2 x 21
    assert dense.result["constants"] != sparse.result["constants"]
    assert min(dense.result["constants"]) > 0
    assert dense.result["examples"] == 100
    assert len(dense.result["train_loss"]) == 2


def test_the_table_tells_the_first_step_from_the_rest():
    points = [
        Point({"sparsity": 0.0, "seed": seed}, {"constants": [9.0, 1.0 + seed, 3.0 + seed], "test_accuracy": 0.5})
        for seed in (0, 1)
    ] + [Point({"sparsity": 0.9, "seed": 0}, {}, "diverged")]
    (table,) = Smoothness().tables(points)
    assert table.rows == [["0 %", "9 (9 to 9)", "2.5 (2 to 3)", "50 (50 to 50)", "2"]]


def test_optimizers_without_momentum_stand_beside_those_with_it():
    study = Smoothness()
    grid = study.grid("tiny") | {"optimizer": ("sgd", "nesterov", "adam"), "momentum": (0.5, 0.9), "seed": (0,)}
    cells = study.cells(grid | {"sparsity": (0.9,)})
    found = dict.fromkeys((cell["optimizer"], cell["momentum"]) for cell in cells)
    assert list(found) == [("sgd", 0.5), ("sgd", 0.9), ("nesterov", 0.5), ("nesterov", 0.9), ("adam", None)]
    options = {"epochs": 1, "every": 30, "sparsity": 0.9, "seeds": 1, "examples": 50}
    result = snas.run_study("smoothness", registry="r.db", optimizer="sgd,adam", **options)
    assert [(point["optimizer"], point["momentum"], point.reason) for point in result.points] == [
        ("sgd", 0.0, None), ("adam", None, None)
    ]  # fmt: skip
    assert len(result.tables) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sparsity": 1.0}, "sparsity is 1.0; expected 0 <= sparsity < 1"),
        ({"every": 0}, "every is 0; expected at least 1 step"),
        ({"optimizer": "nope"}, "optimizer is nope; expected one of sgd, nesterov, adam"),
        ({"optimizer": "sgd,nope", "momentum": 0.5}, "optimizer is nope; expected one of sgd, nesterov, adam"),
        ({"examples": 9000}, "examples is 9000; digits has 1294 to train on"),
    ],
)
def test_bad_grids_are_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        snas.run_study("smoothness", registry="r.db", **given)
