"""The study of steps and batch size, on grids of seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest

import snas
from snas.cli.main import main
from snas.errors import InputError
from snas.registry import Registry
from snas.studies.base import Point, measured, open_study, slug
from snas.studies.sections import pictures_of, tables_of
from snas.studies.steps_curves import compare_critical, curves_of

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
        ({"goal": "own"}, "goal is 'own', the source's own, but the source has no data set 'digits'; give goal"),
        ({"every": 0}, "every is 0, the source's own, but the source has no data set 'digits'; give every"),
        ({"every": -1}, "every is -1; expected at least 1 step"),
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
    assert {(cell["budget"], cell["cap"]) for cell in cells} == {(40_000, 0.0)}
    looks = {(cell["dataset"], cell["every"]) for cell in cells}  # appendix 5.B
    assert looks == {("mnist", 16), ("fashion-mnist", 16), ("cifar10", 32)}
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
    low, high = (float(text) for text in first.spread.split(" to "))
    assert low <= first.law.critical <= high
    assert first.misfit(first.law) < 0.2


def steps_point(size, sparsity, steps, seed=0, cap=0.0):
    """A cell whose trials needed so many steps; None: the goal was not reached."""
    trials = [
        {"number": place, "lr": 0.1, "status": "complete" if one else "incomplete", "steps": one or 999}
        for place, one in enumerate(steps)
    ]
    cell = {
        "dataset": "d", "space": "s", "optimizer": "sgd", "schedule": "constant", "goal": "0.1", "every": 1,
        "batch_size": size, "sparsity": sparsity, "seed": seed, "cap": cap,
    }  # fmt: skip
    return Point(cell, {"steps": min((one for one in steps if one), default=None), "trials": trials})


LADDER = {4: 1000, 16: 250, 64: 79, 256: 64, 1024: 61}


def test_several_seeds_are_averaged_in_the_curve_and_in_its_uncertainty():
    """Seeds that differ by a factor of 4, with one trial each: there is nothing to draw, and no uncertainty."""
    points = [
        steps_point(size, 0.0, [factor * steps], seed)
        for size, steps in LADDER.items()
        for seed, factor in enumerate((1, 4))
    ]
    (curve,) = curves_of(points, title="t")
    assert curve.known == {size: 2.5 * steps for size, steps in LADDER.items()}
    plateaus = {round(law.plateau, 6) for law in curve.laws}
    assert plateaus == {round(curve.law.plateau, 6)}
    low, high = (float(text) for text in curve.spread.split(" to "))
    assert low == high == pytest.approx(curve.law.critical, abs=0.5)
    table = open_study("steps-to-result").tables(points)[0]
    assert table.notes[0].startswith("means over 2 seeds of the fewest steps of any trial")


def test_critical_batch_sizes_are_compared_round_by_round_at_the_batch_sizes_known_to_both():
    """Equal trials but for a constant factor have equal critical batch sizes in every round; sizes that only one has
    reached would change its law alone."""
    rng = np.random.default_rng(0)
    trials = {size: (steps * rng.uniform(1, 3, size=6)).round() for size, steps in LADDER.items()}
    dense = [steps_point(size, 0.0, list(steps)) for size, steps in trials.items()]
    thin = [steps_point(size, 0.9, list(2 * steps)) for size, steps in trials.items() if size != 1024]
    thin.append(steps_point(1024, 0.9, [None] * 6))
    first, second = curves_of(dense + thin, title="t")
    found = compare_critical(first, second)
    assert found.sizes == (4, 16, 64, 256)
    for one, other in zip(first.laws_at(found.sizes), second.laws_at(found.sizes), strict=True):
        assert other.c == pytest.approx(2 * one.c, rel=0.02)
        assert other.critical == pytest.approx(one.critical, rel=0.05)  # weights know of the steps' coarseness
    note = open_study("steps-to-result").tables(dense + thin)[1].notes[-1]
    assert note.endswith("of 1,000 resamples, the same trials drawn for both, at the 4 batch sizes that both reached")


def test_critical_batch_sizes_beyond_what_was_measured_decide_nothing():
    sizes = (4, 16, 64, 256)
    falling = [steps_point(size, 0.0, [4096 // size]) for size in sizes]
    too = [steps_point(size, 0.9, [8192 // size]) for size in sizes]
    flat = [steps_point(size, 0.9, [50]) for size in sizes]
    first, second = curves_of(falling + too, title="t")
    assert (first.beyond, second.beyond) == (">", ">")
    assert first.spread == ">256 to >256"
    found = compare_critical(first, second)
    assert (found.larger, found.smaller, found.open) == (0, 0, found.rounds)
    note = open_study("steps-to-result").tables(falling + too)[1].notes[-1]
    assert "larger than dense: in 0 %, undecided in 100 % (both beyond what was measured) of 1,000 resamples" in note
    first, last = curves_of(falling + flat, title="t")
    found = compare_critical(first, last)
    assert (found.larger, found.smaller, found.open) == (0, found.rounds, 0)
    assert compare_critical(first, curves_of(flat[:2], title="t")[0]) is None


def test_the_ratio_to_the_dense_network_is_of_equal_batch_sizes():
    points = [steps_point(4, 0.0, [100]), steps_point(16, 0.0, [40]), steps_point(64, 0.0, [None])]
    points += [steps_point(16, 0.9, [60]), steps_point(64, 0.9, [50]), steps_point(256, 0.9, [30])]
    rows = open_study("steps-to-result").tables(points)[0].rows
    assert [(row[0], row[-1]) for row in rows] == [("4", "-"), ("16", "1.50"), ("64", "-"), ("256", "-")]


def test_equal_workloads_looked_at_at_different_distances_are_apart():
    points = [steps_point(4, 0.0, [100]), steps_point(4, 0.0, [90])]
    points[1] = Point({**points[1].cell, "every": 2}, points[1].result)
    tables = open_study("steps-to-result").tables(points)
    assert [table.rows[0][1] for table in tables if table.title.startswith("Steps")] == ["100", "90"]
    assert tables[0].title.endswith("goal error 0.1, looked for every 1 steps")


def test_batch_sizes_are_given_with_commas():
    options = ["--factor", "trials=1", "--factor", "goal=0.5", "--factor", "every=4", "--factor", "sparsity=0", "-q"]
    command = ["study", "steps-to-result", "--batch-size", "64,256", *options, "--registry", "r.db"]
    assert main(command) == 0
    with Registry("r.db") as registry:
        found = registry.measurements("steps-to-result").values()
    assert [one.cell["batch_size"] for one in found] == [64, 256]


def test_all_means_are_over_the_same_seeds_where_a_network_of_one_failed():
    """Seed 1 needs 4 times the steps; sparse and dense need the same. One sparse network of seed 1 failed."""
    points = [
        steps_point(size, sparsity, [factor * steps], seed)
        for size, steps in LADDER.items()
        for seed, factor in enumerate((1, 4))
        for sparsity in (0.0, 0.9)
    ]
    whole = [
        Point(point.cell, {}, "diverged") if (point["batch_size"], point["sparsity"], point["seed"]) == (16, 0.9, 1)
        else point
        for point in points
    ]  # fmt: skip
    steps = open_study("steps-to-result").tables(whole)[0]
    assert [tuple(row) for row in steps.rows[:3]] == [
        ("4", "2500", "2500", "1.00"), ("16", "625", "-", "-"), ("64", "197.5", "197.5", "1.00"),
    ]  # fmt: skip
    assert "not all 2 seeds were measured, or a network was refused or failed, in 1 of 10 places" in steps.notes[1]
    assert len(steps.notes) == 2
    dense, thin = curves_of(measured(whole), title="t")
    assert list(thin.known) == [4, 64, 256, 1024]
    assert compare_critical(dense, thin).sizes == (4, 64, 256, 1024)
    low, high = (float(text) for text in thin.spread.split(" to "))
    assert low == high == pytest.approx(thin.law.critical, abs=0.5)  # one trial each: nothing to draw
    # A sparsity that a seed has nothing of at all is no mean over fewer.
    first, second = curves_of([one for one in points if not one["sparsity"] or not one["seed"]], title="t")
    assert (len(first.known), second.known, second.law) == (5, {}, None)
    assert compare_critical(first, second) is None
    alone = curves_of([one for one in points if not one["seed"]], title="t")[1]
    assert compare_critical(first, alone) is None


def test_what_no_seed_has_is_told_apart_from_what_never_arrived():
    points = [steps_point(4, 0.0, [100]), steps_point(16, 0.0, [None]), steps_point(16, 0.9, [60])]
    notes = open_study("steps-to-result").tables(points)[0].notes
    assert "no trial reached the goal, in 1 of 4 places" in notes[1]
    assert "nothing was measured, or a network was refused or failed, in 1 of 4 places" in notes[2]


def test_critical_batch_sizes_beyond_the_data_are_told_as_the_outermost_batch_size():
    sizes = (4, 16, 64, 256)
    falling = [steps_point(size, 0.0, [4096 // size]) for size in sizes]
    flat = [steps_point(size, 0.9, [50]) for size in sizes]
    law = open_study("steps-to-result").tables(falling + flat)[1]
    columns = [law.titles.index(title) for title in ("critical batch size 2T", "sum: critical")]
    assert [[row[column] for column in columns] for row in law.rows] == [[">256", ">256"], ["<4", "<4"]]


def test_networks_without_momentum_are_told_once_beside_several_ranges_of_it():
    result = snas.run_study(
        "steps-to-result", registry="r.db", trials=1, goal="0.5", sparsity=0.0, every=4,
        optimizer=["sgd", "momentum"], momentum=["0..0.5", "0..0.9"], factor={"batch_size": "64,256"},
    )  # fmt: skip
    titles = [table.title for table in result.tables if table.title.startswith("Steps")]
    named = "Steps to result: lenet-300-100 on digits, "
    assert titles == [
        f"{named}sgd, goal error 0.5",
        f"{named}momentum, goal error 0.5, momentum 0..0.5",
        f"{named}momentum, goal error 0.5, momentum 0..0.9",
    ]
    pictures = [picture.name for picture in pictures_of(result.study, result.points)]
    names = [name for name in pictures if name.startswith("trials")]
    assert names == [f"trials-{slug(title.partition(': ')[2])}" for title in titles]


def test_decays_are_apart_and_a_constant_rate_is_told_once():
    cells = open_study("steps-to-result").cells({
        **open_study("steps-to-result").grid("tiny"), "schedule": ("constant", "linear"),
        "decay_factor": ("0.01..0.1", "0.1..0.2"),
    })  # fmt: skip
    trial = {"number": 0, "lr": 0.1, "status": "complete", "steps": 10}
    points = [Point(cell, {"steps": 10, "trials": [trial]}) for cell in {repr(cell): cell for cell in cells}.values()]
    titles = [table.title for table in tables_of(open_study("steps-to-result"), points) if "Steps" in table.title]
    assert [title.partition("goal error 0.05")[2] for title in titles] == [
        "", ", decay factor 0.01..0.1", ", decay factor 0.1..0.2",
    ]  # fmt: skip
