"""The orthogonality score by hand, by explicit loops, and against what approximate isometry does to it."""

import math

import pytest
import torch
from torch import nn

from snas.densities import Layer
from snas.diagnostics.orthogonality import orthogonality_score
from snas.initialization.isometry import enforce_isometry
from snas.initialization.variance import initialize
from snas.masks import Masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_by_hand():
    """Rows (2, 0) and (0, 1): residual diag(3, 0). The second layer keeps one of two equal rows: diag(0, -1)."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        model[1].weight.copy_(torch.tensor([[0.6, 0.8], [0.6, 0.8]]))
    layers = [Layer("0", (2, 2)), Layer("1", (2, 2))]
    masks = Masks(layers, {"0": torch.ones(2, 2).bool(), "1": torch.tensor([[True, True], [False, False]])})
    assert orthogonality_score(model, masks) == pytest.approx((3 + 1) / 2)


@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_by_loops(gain):
    torch_generator = seeded(3)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4))
    initialize(model, rule="he", nonlinearity="relu", generator=torch_generator)
    layers = [Layer("0", (3, 2, 2, 2)), Layer("2", (4, 12))]
    masks = Masks(layers, {x.name: torch.rand(x.shape, generator=torch_generator) < 0.5 for x in layers})
    total = 0.0
    for layer in layers:
        weight = model.get_submodule(layer.name).weight.detach() * masks[layer.name]
        rows = [(row.flatten() / gain).tolist() for row in weight]
        squares = 0.0
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                squares += (sum(a * b for a, b in zip(one, other, strict=True)) - (i == j)) ** 2
        total += math.sqrt(squares)
    assert orthogonality_score(model, masks, gain=gain) == pytest.approx(total / 2, rel=1e-5)


def test_more_outputs_than_inputs_cannot_be_orthogonal():
    model = nn.Sequential(nn.Linear(4, 13, bias=False))
    initialize(model, rule="orthogonal", nonlinearity="linear", generator=seeded())
    assert orthogonality_score(model, Masks.dense([Layer("0", (13, 4))])) == pytest.approx(3.0, rel=1e-5)


def test_gates_are_matrices_of_their_own():
    model = nn.Sequential()
    model.add_module("rnn", nn.GRU(4, 2))
    layer = Layer("rnn", (6, 4), parameter="rnn.weight_ih_l0")
    with torch.no_grad():
        model.rnn.weight_ih_l0.copy_(torch.eye(2, 4).repeat(3, 1))
    assert orthogonality_score(model, Masks.dense([layer])) == 0


def test_pruning_raises_it_and_approximate_isometry_lowers_it_again():
    model = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 20))
    initialize(model, rule="orthogonal", nonlinearity="tanh", generator=seeded())
    layers = [Layer("0", (30, 40)), Layer("2", (20, 30))]
    masks = Masks(layers, {x.name: torch.rand(x.shape, generator=seeded(1)) < 0.4 for x in layers})
    dense = orthogonality_score(model, Masks.dense(layers))
    pruned = orthogonality_score(model, masks)
    enforce_isometry(model, masks, nonlinearity="tanh")
    assert dense < 1e-5 < orthogonality_score(model, masks) < 0.1 * pruned
