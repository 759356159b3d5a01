"""Signals at initialization: gradients against autograd, and that measuring leaves no trace in what is trained."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from snas.data.arrays import from_arrays
from snas.data.split import split_data
from snas.densities import Densities, Layer
from snas.diagnostics.signals import SIGNALS, gradient_signals, measure
from snas.masks import Masks
from snas.pruning.methods import given_densities
from snas.pruning.scores import Batch
from snas.search_spaces.base import SearchSpace
from snas.training.checkpoints import Checkpoints
from snas.training.rule import TrainingRule
from snas.training.task import Task, Training, score_batch


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6 * 64, 4)
    )


SPACE = SearchSpace.from_model(network, input_shape=(3, 8, 8), name="net")
RNG = np.random.default_rng(0)
Y = np.arange(97) % 4
DATA = split_data(from_arrays(RNG.normal(size=(97, 3, 8, 8)).astype("f4") + Y[:, None, None, None], Y), seed=0)
RULE = TrainingRule(epochs=3, batch_size=16, lr=0.05)
TASK = Task(SPACE, DATA, RULE, "he", None, torch.device("cpu"))
DENSITIES = Densities.from_fractions(SPACE.layers, [0.5, 0.3])


def test_norms_are_those_of_autograd():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    layers = (Layer("0", (3, 4), parameter="0.weight"), Layer("2", (2, 3), parameter="2.weight"))
    masks = Masks(layers, {layer.name: torch.rand(layer.shape) < 0.6 for layer in layers})
    masks.apply(model)
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 2
    found = gradient_signals(model, masks, Batch(x, y), generator=torch.Generator())
    functional.cross_entropy(model(x), y).backward()
    per_layer = [
        [
            float(model.get_parameter(layer.parameter).grad[i, j])
            for i in range(layer.shape[0])
            for j in range(layer.shape[1])
            if masks[layer.name][i, j]
        ]
        for layer in layers
    ]
    everything = [value for values in per_layer for value in values]
    assert found["gf1"] == pytest.approx(np.abs(everything).sum())
    assert found["gf2"] == pytest.approx(np.linalg.norm(everything))
    assert found["egf1"] == pytest.approx(np.mean([np.abs(values).sum() for values in per_layer]))
    assert found["egf2"] == pytest.approx(np.mean([np.linalg.norm(values) for values in per_layer]))


def test_measuring_leaves_no_trace():
    sparse = TASK.prepare(given_densities("random"), DENSITIES, seed=5)
    model = sparse.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    versions = [parameter._version for parameter in model.parameters()]
    flags = [(module, module.training) for module in model.modules()]
    state = torch.get_rng_state()
    first = TASK.measure(sparse, seed=5)
    assert list(first) == list(SIGNALS)
    assert all(isinstance(value, float) and np.isfinite(value) for value in first.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter._version for parameter in model.parameters()] == versions
    assert [(module, module.training) for module in model.modules()] == flags
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert TASK.measure(sparse, seed=5) == first


@pytest.mark.parametrize("rule", ["random", "snip", "random + rigl", "random + set"])
def test_training_is_the_same_to_the_bit(rule, tmp_path):
    def train(folder, measured):
        training = Training(
            TASK,
            given_densities(rule),
            DENSITIES,
            seed=3,
            key="x",
            checkpoints=Checkpoints(tmp_path / folder),
            measured=measured,
        )
        reports = [training.report(epoch, 0) for epoch in training.run(start=0, until=3)]
        return reports, training.session.tensors()

    plain, plain_tensors = train("plain", False)
    measured, measured_tensors = train("measured", True)
    for one, two in zip(plain, measured, strict=True):
        for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "mask_checksum"):
            assert getattr(one, name) == getattr(two, name)
    assert plain_tensors.keys() == measured_tensors.keys()
    assert all(torch.equal(value, measured_tensors[name]) for name, value in plain_tensors.items())
    assert [set(report.signals) for report in measured] == [set(SIGNALS), set(), set()]
    assert not any(report.signals for report in plain)


def test_what_cannot_be_measured_is_left_out(caplog):
    class Picky(nn.Linear):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise KeyError("single precision only")
            return super().forward(x)

    model = Picky(3, 2)
    masks = Masks.dense([Layer("weight", (2, 3), parameter="weight")])
    batch = Batch(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))
    with caplog.at_level(logging.INFO, logger="snas"):
        found = measure(model, masks, batch, generator=torch.Generator())
    assert list(found) == ["gf1", "gf2", "egf1", "egf2"]
    assert "paths are not measured" in caplog.text
    with torch.no_grad():
        model.weight.fill_(float("inf"))
    assert measure(model, masks, batch, generator=torch.Generator()) == {}


def test_the_batch_is_that_of_scores_and_of_at_most_128():
    assert len(score_batch(DATA, seed=1).y) == len(DATA.train.y) < 128
    one = TASK.measure(TASK.prepare(given_densities("random"), DENSITIES, seed=1), seed=1)
    two = TASK.measure(TASK.prepare(given_densities("random"), DENSITIES, seed=2), seed=2)
    assert one["gf1"] != two["gf1"]
