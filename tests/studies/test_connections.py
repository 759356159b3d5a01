"""Maps of kept connections."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import snas
from snas.densities import Layer
from snas.errors import InputError
from snas.masks import Masks
from snas.pruning.scores import Batch, scores
from snas.search_spaces.catalog import open_space
from snas.studies.maps import as_image, input_map


def test_a_map_is_the_share_of_units_that_keep_a_weight_from_each_input():
    space = open_space("lenet-300-100", input_shape=(1, 1, 2), classes=2)
    first = torch.zeros(300, 2, dtype=torch.bool)
    first[:30, 0] = True
    first[:, 1] = True
    rest = {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in space.layers[1:]}
    found = input_map(Masks(space.layers, {"fc1": first, **rest}), space)
    assert found == [0.1, 1.0]
    assert as_image(found, (1, 1, 2)).tolist() == [[0.1, 1.0]]
    assert as_image([1, 2, 3, 4], (2, 1, 2)).tolist() == [[2.0, 3.0]]


def test_the_gradient_is_a_score():
    """Of logits w x with one example of class 0 the gradient is (softmax - onehot) x."""
    model = torch.nn.Linear(2, 2, bias=False)
    model.load_state_dict({"weight": torch.zeros(2, 2)})
    batch = Batch(torch.tensor([[1.0, -2.0]]), torch.tensor([0]))
    found = scores.get("gradient")(model, [Layer("fc", (2, 2), "weight")], batch, generator=torch.Generator())
    assert found["fc"].tolist() == [[0.5, 1.0], [0.5, 1.0]]


def test_kept_connections_look_like_their_class(tmp_path):
    result = snas.run_study(
        "connections", registry="r.db", sparsity=[0.5, 0.9], dataset="digits", output=tmp_path, score="snip"
    )
    assert len(result.points) == 2
    thin = result.points[1].result
    for own, mean in zip(thin["maps"], thin["means"], strict=True):
        assert np.corrcoef(own, mean)[0, 1] > 0.3  # inputs without size have no connection sensitivity
    rows = result.tables[0].rows
    assert [row[0] for row in rows] == ["digits, snip, 50 %", "digits, snip, 90 %"]
    half = result.points[0].result
    pairs = zip(half["maps"], thin["maps"], strict=True)
    assert rows[0][2] == f"{np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]):.2f}"
    assert rows[1][2] == "-"  # it is the sparsest
    assert result.tables[0].rows[0][-1] == "-"  # no inverted data
    assert (tmp_path / "connections-digits-snip.png").exists()


def test_sparsities_share_their_kept_number():
    result = snas.run_study("connections", registry="r.db", sparsity=0.9, score="gradient")
    assert {point["dataset"] for point in result.points} == {"digits", "digits:inverted"}
    assert result.tables[0].rows[0][-1] != "-"
    assert {point.result["kept"] for point in result.points} == {round(0.1 * (64 * 300 + 300 * 100 + 1000))}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"score": "luck"}, "unknown score 'luck'"),
        ({"sparsity": 0.0}, "sparsity is 0.0; expected 0 < sparsity < 1"),
        ({"examples": 0}, "examples is 0; expected at least 1 of each class"),
        ({"space": "resnet14"}, "it is not fully connected to the 64 values of an example"),
        ({"dataset": "digits:sideways"}, "unknown view 'sideways'"),
    ],
)
def test_bad_grids_are_refused_in_one_line(given, message):
    with pytest.raises(InputError) as error:
        snas.run_study("connections", registry="r.db", **given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
