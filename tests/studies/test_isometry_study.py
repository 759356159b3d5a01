"""The study of signal propagation: what its cells are, what they measure, and how refused networks are told."""

from __future__ import annotations

import re

import pytest
from matplotlib.figure import Figure

import snas
from snas.diagnostics.jacobian import jacobian_statistics
from snas.diagnostics.orthogonality import orthogonality_score
from snas.errors import InputError
from snas.studies.base import Point, measured, open_study
from snas.studies.isometry_report import label
from snas.studies.lab import Lab
from snas.training.task import score_batch

CELL = {
    "dataset": "digits", "space": "mlp-tanh:layers=4:width=30", "init": "orthogonal", "pruning": "snip",
    "isometry": "none", "sparsity": 0.9, "epochs": 1, "lr": 0.1, "momentum": 0.9, "batch_size": 100, "examples": 50,
    "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def lab():
    return Lab(device="cpu")


def test_isometry_brings_singular_values_back_and_orthogonality_nearer(lab):
    study = open_study("isometry")
    plain = study.measure(CELL, lab)
    mended = study.measure({**CELL, "isometry": "frobenius"}, lab)
    assert plain["pruned"]["mean"] < 0.5 * plain["dense"]["mean"]
    assert mended["pruned"]["mean"] > 0.7 * mended["dense"]["mean"]
    assert mended["orthogonality"] < 0.8 * plain["orthogonality"]
    assert plain["layers"] == mended["layers"]
    total = 30 * 64 + 2 * 900 + 300
    kept = sum(round((1 - share) * size) for share, size in zip(plain["layers"], (1920, 900, 900, 300), strict=True))
    assert kept == round(0.1 * total)
    assert len(plain["losses"]) == 13  # 1,294 examples in batches of 100, each step a point
    assert plain["losses"][0] == pytest.approx(2.3, abs=0.2)


def test_what_is_measured_is_what_the_diagnostics_say(lab):
    cell = {**CELL, "epochs": 0, "pruning": None, "sparsity": 0, "init": "glorot"}
    result = open_study("isometry").measure(cell, lab)
    bench = lab.bench(cell["space"], "digits", init="glorot")
    sparse = lab.prepare(bench, "dense", bench.space.total_weights, seed=0)
    x = score_batch(bench.task.data, seed=0, examples=50).x
    assert result["pruned"]["std"] == jacobian_statistics(sparse.model, x).std
    assert result["orthogonality"] == orthogonality_score(sparse.model, sparse.masks)
    assert "losses" not in result


def test_cells_are_trained_at_the_largest_sparsity_and_other_weights_are_looked_at_there_alone():
    study = open_study("isometry")
    cells = study.cells(study.grid("small"))
    names = {(label(cell), cell["sparsity"]): cell["epochs"] for cell in cells}
    assert names["LDI-CS-AI", 0.9] == 3
    assert names["LDI-CS-AI", 0.5] == 0
    assert names["LDI-Dense", 0.0] == 3
    assert {sparsity for name, sparsity in names if name in ("VS-L-CS", "SG 10-CS", "SG 0.01-CS")} == {0.9}
    assert not [name for name, _ in names if name.startswith(("VS-L", "SG")) and not name.endswith("-CS")]


def test_a_network_without_a_way_through_is_told_and_its_layers_shown():
    result = snas.run_study(
        "isometry", registry="r.db", output="out", space=CELL["space"], init=["orthogonal", "normal:30"], seeds=1,
        sparsity=[0, 0.97], epochs=1, pruning="snip", examples=20,
    )  # fmt: skip
    refused = next(point for point in result.points if point["init"] == "normal:30")
    assert refused.result["refused"].startswith("layer 'fc")
    assert len(refused.result["layers"]) == 4
    jacobians, by_sparsity, orthogonality = result.tables
    assert jacobians.titles == [
        "initial weights",
        "mean",
        "std",
        "condition",
        *(f"layer {n}" for n in (1, 2, 3, 4)),
        "error %",
    ]
    assert [row[0] for row in jacobians.rows] == ["LDI", "SG, std 30"]
    assert jacobians.rows[1][-1] == "- (1 refused)"
    assert by_sparsity.titles == ["network", "0 %", "97 %"]
    assert [row[0] for row in by_sparsity.rows] == ["LDI-CS", "LDI-CS-AI"]
    assert [row[0] for row in orthogonality.rows] == ["LDI-CS", "LDI-CS-AI"]
    assert orthogonality.bold


def test_networks_are_named_apart():
    """Two initial weights under one name would be taken for one network, and averaged."""
    names = ["glorot", "orthogonal", "orthogonal-full", "normal:0.1", "truncated:0.1", "he-truncated"]
    cells = [{**CELL, "init": name, "pruning": pruning} for name in names for pruning in ("snip", "random")]
    assert len({label(cell) for cell in cells}) == len(cells)
    assert label({**CELL, "init": "normal:0.1"}) == "SG 0.1-CS"


def test_each_pruning_has_its_own_jacobians_and_rows():
    result = snas.run_study(
        "isometry", registry="r.db", space=CELL["space"], init=["orthogonal"], seeds=1, sparsity=[0, 0.5], epochs=1,
        pruning=["random", "magnitude"], isometry="none", examples=20,
    )  # fmt: skip
    titles = [table.title for table in result.tables]
    assert [title.partition(": ")[2] for title in titles[:2]] == [
        f"Jacobian and {name} pruning by initial weights" for name in ("random", "magnitude")
    ]
    assert [row[0] for row in result.tables[-1].rows] == ["LDI-Rand", "LDI-Mag"]
    for point, row in zip(measured(result.points, sparsity=0.5), result.tables[-1].rows, strict=True):
        assert row[1] == f"{point.result['orthogonality']:.2f}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pruning": "cs"}, "pruning is 'cs'; choices: snip, random, magnitude"),
        ({"isometry": "yes"}, "isometry is 'yes'; choices: none, frobenius, spectral"),
        ({"sparsity": 1}, "sparsity is 1.0; expected 0 <= sparsity < 1"),
        ({"sparsity": 0}, "sparsity is 0 alone"),
        ({"init": "best"}, "init is 'best'; choices"),
        ({"init": ["glorot", "he"], "pruning": "random"}, "pruning has no 'snip', and among several"),
        ({"init": ["lecun", "he"], "isometry": "spectral"}, "isometry has no 'none', and among several"),
    ],
)
def test_bad_grids_are_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        snas.run_study("isometry", registry="r.db", **given)


def points_of(**factors):
    """Points of the cells of a grid, with the numbers of each made up."""
    study = open_study("isometry")
    values = {"mean": 1.0, "std": 1.0, "condition": 1.0}
    result = {"dense": values, "pruned": values, "layers": [0.1], "orthogonality": 0.2, "refused": None}
    found = []
    for cell in study.cells({**study.grid("tiny"), "seed": (0,), **factors}):
        curve = {"losses": [2.0, 1.0], "every": 1, "test_accuracy": 0.9} if cell["epochs"] else {}
        found.append(Point(cell, {**result, **curve}))
    return study, found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("init", "lines"),
    [(("he",), {"VS-H-CS", "VS-H-CS-AI", "VS-H-Dense"}), (("glorot", "he"), {"VS-G-CS", "VS-G-CS-AI", "VS-G-Dense"})],
)
def test_the_training_of_what_is_looked_at_throughout_is_drawn(init, lines):
    study, points = points_of(init=init, pruning=("snip",))
    picture = next(picture for picture in study.pictures(points) if picture.name == "training-1")
    figure = Figure(figsize=picture.size, layout="constrained")
    picture.draw(figure)
    assert {line.get_label() for line in figure.axes[0].lines} == lines


def test_nothing_without_a_line_or_a_row_is_shown():
    study, points = points_of(init=("lecun", "he"), pruning=("snip",))
    assert any(point.result.get("losses") for point in points)
    assert study.pictures(points) == []
    assert [len(table.rows) for table in study.tables(points)] == [2, 2]


def test_initial_weights_that_are_looked_at_in_one_way_alone_are_named_under_the_tables():
    study, points = points_of(init=("glorot", "he", "normal:1"))
    *_, by_sparsity, orthogonality = study.tables(points)
    for table in (by_sparsity, orthogonality):
        assert table.notes[-1] == "after SNIP at 90 %, without isometry, alone: VS-H; SG, std 1"
    for inits in (("he",), ("glorot", "orthogonal")):
        study, points = points_of(init=inits)
        assert not any("alone" in note for table in study.tables(points) for note in table.notes)
