"""The study of steps and batch size, on grids of seconds."""

from __future__ import annotations

import json

import pytest

import snas
from snas.errors import InputError
from snas.studies.base import Point, measured, open_study
from snas.studies.steps_curves import curves_of

SMALL = {
    "factor": {"batch_size": "16,64,256"},
    "trials": 3,
    "goal": "0.15",
    "every": 4,
    "budget": 60,
    "registry": "r.db",
}


def test_every_cell_has_its_trials_and_the_fewest_steps_are_its_result(tmp_path):
    result = snas.run_study("steps-to-result", **SMALL, output=tmp_path / "out")
    assert len(measured(result.points)) == 6
    for point in result.points:
        trials = point.result["trials"]
        assert [trial["number"] for trial in trials] == [0, 1, 2]
        done = [trial["steps"] for trial in trials if trial["status"] == "complete"]
        assert point.result["steps"] == min(done)
        assert all(steps % 4 == 0 for steps in done)
        total = 300 * 64 + 300 * 100 + 100 * 10
        assert point.result["kept"] == (total if point["sparsity"] == 0 else round(total * 0.1))
    titles = [table.title.partition(":")[0] for table in result.tables]
    assert titles == ["Steps to result", "The law", "Metaparameters"]
    assert len(result.tables[0].rows) == 3
    assert result.tables[0].titles[-1] == "90 % / dense"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"steps-to-result-curves.png", "steps-to-result-trials.svg"} <= names
    json.loads((tmp_path / "out" / "steps-to-result.json").read_text())


def test_more_trials_extend_what_is_there_by_blocks():
    given = SMALL | {"factor": {"batch_size": "64"}, "sparsity": 0.0, "cap": 0}
    first = snas.run_study("steps-to-result", **given)
    both = snas.run_study("steps-to-result", **given, block=[0, 1])
    assert both.points[0].result == first.points[0].result
    assert [trial["number"] for trial in both.points[1].result["trials"]] == [3, 4, 5]
    curve = curves_of(both.points, title="t")[0]
    assert len(curve.trials[64]) == 6
    assert curve.known[64] == min(point.result["steps"] for point in both.points)


def test_a_goal_that_is_met_at_the_start_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"^goal is 0.99, and the network's error is that small before the first step"):
        snas.run_study("steps-to-result", **SMALL | {"goal": "0.99"})


def test_a_goal_that_is_never_met_leaves_a_table_that_says_so(tmp_path):
    given = SMALL | {"goal": "0.001", "budget": 8, "factor": {"batch_size": "16,64"}, "sparsity": 0.9}
    result = snas.run_study("steps-to-result", **given, output=tmp_path)
    assert [point.result["steps"] for point in result.points] == [None, None]
    assert result.tables[0].rows[0][1] == "-"
    assert "no trial reached the goal, in 2 of 2 places; give a larger goal" in result.tables[0].notes[-1]
    assert result.tables[1].rows == [["90 %", *["-"] * 8]]
    assert not (tmp_path / "steps-to-result-curves.png").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"goal": "0"}, "goal is 0; expected a fraction"),
        ({"goal": "low"}, "goal is low; expected a fraction"),
        ({"goal": "own"}, "goal is 'own', but the source has no data set 'digits'"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; choices: sgd, momentum, nesterov"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; choices"),
        ({"sparsity": 1.0}, "sparsity is 1.0; expected 0 <= sparsity < 1"),
        ({"lr": "0..1"}, "lr is '0..1'; expected 0 < low <= high"),
        ({"momentum": "0.5..1"}, "momentum is '0.5..1'"),
        ({"budget": 2}, "budget is 2; expected at least 4, the steps between evaluations"),
        ({"cap": 0.5}, "cap is 0.5; expected at least 1, or 0 for none"),
        ({"factor": {"batch_size": "1048576"}}, "batch-size is 1048576; expected at most 1294"),
    ],
)
def test_contradictory_grids_are_refused_in_one_line(given, message):
    with pytest.raises(InputError) as error:
        snas.run_study("steps-to-result", **SMALL | given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_paper_scale_is_the_sources_grid():
    study = open_study("steps-to-result")
    cells = study.cells(study.grid("paper"))
    assert len(cells) == 3 * 3 * 14 * 4 * 100
    goals = {(cell["dataset"], cell["space"], cell["schedule"], cell["goal"]) for cell in cells}
    assert goals == {
        ("mnist", "simple-cnn", "constant", "0.02"),
        ("fashion-mnist", "simple-cnn", "constant", "0.12"),
        ("cifar10", "resnet20:blocks=1", "linear", "0.4"),
    }
    assert {cell["batch_size"] for cell in cells} == {2**power for power in range(1, 15)}
    assert {(cell["budget"], cell["every"], cell["cap"]) for cell in cells} == {(40_000, 16, 0.0)}
    assert {cell["momentum"] for cell in cells if cell["optimizer"] == "sgd"} == {None}
    assert {cell["decay_steps"] is None for cell in cells if cell["schedule"] == "linear"} == {False}


def test_curves_know_the_laws_of_their_points():
    def point(size, sparsity, steps):
        trials = [{"number": 0, "lr": 0.1, "status": "complete", "steps": steps}]
        trials += [{"number": 1, "lr": 0.2, "status": "incomplete", "steps": 2 * steps}]
        cell = {"batch_size": size, "sparsity": sparsity, "seed": 0, "every": 1, "cap": 1.5}
        return Point(cell, {"steps": steps, "trials": trials})

    sizes = [4, 16, 64, 256, 1024]
    dense, thin = [1000, 250, 79, 64, 61], [2000, 500, 126, 66, 55]
    points = [point(size, 0.0, steps) for size, steps in zip(sizes, dense, strict=True)]
    points += [point(size, 0.9, steps) for size, steps in zip(sizes, thin, strict=True)]
    first, second = curves_of(points, title="t")
    assert (first.sparsity, second.sparsity) == (0.0, 0.9)
    assert first.law
    assert second.law
    assert first.law.critical < second.law.critical
    assert first.best(16)["lr"] == 0.1
    assert first.known[1024] == 61
    assert first.spread[0] <= first.law.critical <= first.spread[1]
    assert first.misfit(first.law) < 0.2
