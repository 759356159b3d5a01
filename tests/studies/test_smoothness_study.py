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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sparsity": 1.0}, "sparsity is 1.0; expected 0 <= sparsity < 1"),
        ({"every": 0}, "every is 0; expected at least 1 step"),
        ({"examples": 9000}, "examples is 9000; digits has 1294 to train on"),
    ],
)
def test_bad_grids_are_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        snas.run_study("smoothness", registry="r.db", **given)
