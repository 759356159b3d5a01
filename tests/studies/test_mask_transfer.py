"""Masks of one data set on another."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

import snas
from snas.errors import InputError
from snas.studies.base import Point, open_study
from snas.studies.lab import Lab
from snas.studies.transfer import METHODS

ONE = {"registry": "r.db", "epochs": 1, "seeds": 1}


def test_all_pairs_are_measured_and_random_masks_once_for_each_data_set(tmp_path):
    result = snas.run_study("transfer", **ONE, output=tmp_path)
    kinds = [(point["pruning"], point["prune"], point["dataset"]) for point in result.points]
    assert len(kinds) == len(set(kinds)) == 4 + 4 + 2
    rows = result.tables[0].rows
    assert [row[0] for row in rows] == ["standard", "transfer"] * 2
    assert all("-" not in row[3:5] for row in rows)
    assert (tmp_path / "transfer-errors.svg").exists()


def test_the_mask_is_that_of_the_data_that_it_was_pruned_on():
    study, lab = open_study("transfer"), Lab()
    cells = study.cells(study.grid("tiny") | {"epochs": (1,), "seed": (0,)})
    half = "digits:classes=0-4"
    by = {(cell["pruning"], cell["prune"], cell["dataset"]): cell for cell in cells}
    own = study.measure(by["supervised", half, half], lab)
    other = study.measure(by["supervised", half, "digits:classes=5-9"], lab)
    blind = study.measure(by["unsupervised", half, half], lab)
    assert own["kept"] == other["kept"] != blind["kept"]
    bench = lab.bench("lenet-300-100", half, init="orthogonal-full")
    sparse = lab.prepare(bench, METHODS["supervised"], sum(own["kept"].values()), seed=0)
    assert sparse.densities.counts == own["kept"]


def test_data_sets_of_different_shapes_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"^digits and digits:classes=0-4 do not have examples of one shape"):
        snas.run_study("transfer", **ONE, prune="digits", dataset="digits:classes=0-4")


def test_the_table_has_the_layout_of_the_source():
    def point(dataset, prune, pruning, seed, error):
        return Point(
            {"dataset": dataset, "prune": prune, "pruning": pruning, "seed": seed}, {"test_error": error / 100}
        )

    points = [
        point("m", "m", "supervised", 0, 2.0),
        point("m", "m", "supervised", 1, 3.0),
        point("m", "m", "unsupervised", 0, 3.0),
        point("m", "f", "supervised", 0, 2.75),
        point("m", None, "random", 0, 15.0),
    ]
    rows = open_study("transfer").tables(points)[0].rows
    assert rows == [
        ["standard", "m", "m", "2.50 ± 0.71 (n=2)", "3.00", "+0.50", "15.00"],
        ["transfer", "f", "m", "2.75", "-", "-", "15.00"],
    ]


def test_random_masks_alone_have_a_table_and_a_picture_with_points():
    points = [
        Point(
            {"dataset": name, "prune": None, "pruning": "random", "seed": seed, "space": "s", "sparsity": 0.9},
            {"test_error": error + seed / 100},
        )
        for name, error in (("m", 0.15), ("f", 0.25))
        for seed in (0, 1)
    ]
    study = open_study("transfer")
    (table,) = study.tables(points)
    assert table.rows == [
        ["-", "-", "f", "-", "-", "-", "25.50 ± 0.71 (n=2)"],
        ["-", "-", "m", "-", "-", "-", "15.50 ± 0.71 (n=2)"],
    ]
    figure = Figure()
    (picture,) = study.pictures(points)
    picture.draw(figure)
    (series,) = figure.axes[0].containers
    assert list(series.lines[0].get_ydata()) == [15.5, 25.5]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["prune -\ntrain m", "prune -\ntrain f"]


def test_unknown_prunings_are_refused():
    with pytest.raises(InputError, match="pruning is 'magic'; choices: supervised, unsupervised, random"):
        snas.run_study("transfer", **ONE, pruning="magic")
