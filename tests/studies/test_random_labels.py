"""Networks on true and on shuffled labels."""

from __future__ import annotations

import pytest
import torch

import snas
from snas.errors import InputError
from snas.studies.base import open_study
from snas.studies.lab import Lab
from snas.studies.random_labels import with_shuffled_labels

FEW = {"registry": "r.db", "examples": 100, "epochs": 25, "lr": 0.003}


def test_only_the_order_of_the_training_labels_changes():
    bench = Lab().bench("lenet-300-100", "digits")
    shuffled = with_shuffled_labels(bench, seed=1)
    old, new = bench.task.data, shuffled.task.data
    assert torch.equal(old.train.x, new.train.x)
    assert torch.equal(old.validation.y, new.validation.y)
    assert torch.equal(old.train.y.bincount(), new.train.y.bincount())
    assert 0.03 < float((old.train.y == new.train.y).float().mean()) < 0.2  # a tenth agrees by chance
    assert torch.equal(with_shuffled_labels(bench, seed=1).task.data.train.y, new.train.y)


def test_the_dense_network_memorizes_what_the_sparse_one_cannot(tmp_path):
    result = snas.run_study("random-labels", **FEW, sparsity=[0.0, 0.99], output=tmp_path)
    fitted = {(point["labels"], point["sparsity"]): point.result["fitted_error"] for point in result.points}
    assert fitted["shuffled", 0.0] < 0.05
    assert fitted["shuffled", 0.99] > 0.5
    tested = {(point["labels"], point["sparsity"]): point.result["test_error"] for point in result.points}
    assert tested["true", 0.0] < 0.3
    assert tested["shuffled", 0.0] > 0.7
    assert [row[0] for row in result.tables[0].rows] == [
        "true, dense",
        "true, 99 % sparse",
        "shuffled, dense",
        "shuffled, 99 % sparse",
    ]
    assert (tmp_path / "random-labels-losses.png").exists()


def test_masks_are_chosen_by_true_labels():
    study, lab = open_study("random-labels"), Lab()
    grid = study.grid("tiny") | {"sparsity": (0.9,), "epochs": (1,), "examples": (100,)}
    seen = []
    prepare = lab.prepare
    lab.prepare = lambda *args, **more: seen.append(prepare(*args, **more)) or seen[-1]
    for cell in study.cells(grid):
        study.measure(cell, lab)
    assert len(seen) == 2
    assert seen[0].masks == seen[1].masks


def test_a_second_weight_decay_is_for_the_dense_network_on_shuffled_labels():
    study = open_study("random-labels")
    decayed = [cell for cell in study.cells(study.grid("paper")) if cell["weight_decay"]]
    assert [(cell["labels"], cell["sparsity"]) for cell in decayed] == [("shuffled", 0.0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [({"labels": "noisy"}, "labels are 'noisy'"), ({"sparsity": 1.0}, "expected 0 <= sparsity < 1")],
)
def test_bad_grids_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        snas.run_study("random-labels", **FEW | given)
