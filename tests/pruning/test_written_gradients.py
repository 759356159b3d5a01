"""Gradients by graphs: the same as autograd gives, and none for networks that have no graph."""

import pytest
import torch
from torch import nn

from snas.densities import Layer
from snas.diagnostics import signals
from snas.masks import Masks, weights_of
from snas.pruning.passes import isolated, total_gradient
from snas.pruning.scores import CHUNK, Batch
from snas.pruning.written_gradients import written_gradient
from snas.search_spaces.lenet import lenet_300_100
from snas.search_spaces.mlp import mlp
from snas.search_spaces.perceptron import perceptron


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


SHAPE = (1, 4, 4)
SPACES = {
    "pairs with skip connections": lambda: mlp(SHAPE, 3, hidden_layers=5, width=32),
    "without normalization": lambda: mlp(SHAPE, 3, hidden_layers=4, width=16, batch_norm=False, activation="swish"),
    "relu": lambda: mlp(SHAPE, 3, hidden_layers=3, width=31, activation="relu", bias=False),
    "srelu": lambda: mlp(SHAPE, 3, hidden_layers=2, width=31, activation="srelu"),
    "plain": lambda: perceptron(SHAPE, 4, activation="tanh", layers=5, width=6),
    "lenet": lambda: lenet_300_100(SHAPE, 3),
}


def batch_of(size=33, classes=3, shape=SHAPE):
    return Batch(torch.randn(size, *shape, generator=seeded(1)), torch.arange(size) % classes)


def by_autograd(model, layers, batch):
    with isolated(model, layers, batch, generator=seeded()) as weights:
        return total_gradient(model, weights, batch)


def masked(space):
    model = space.build(generator=seeded())
    masks = Masks(space.layers, {x.name: torch.rand(x.shape, generator=seeded()) < 0.4 for x in space.layers})
    masks.apply(model)
    return model, masks


@pytest.mark.parametrize("name", SPACES)
def test_gradients_are_those_of_autograd(name):
    model, masks = masked(SPACES[name]())
    expected = by_autograd(model, masks.layers, batch_of())
    found = written_gradient(model, weights_of(model, masks.layers), batch_of())
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)
    assert any(bool(gradient.any()) for gradient in found)
    double = Batch(batch_of().x.double(), batch_of().y)
    expected = by_autograd(model.double(), masks.layers, double)
    for one, two in zip(written_gradient(model, weights_of(model, masks.layers), double), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SPACES)
def test_signals_are_the_same_either_way(name, monkeypatch):
    model, masks = masked(SPACES[name]())
    found = signals.gradient_signals(model, masks, batch_of(), generator=seeded())
    monkeypatch.setattr(signals, "written_gradient", lambda *_, **__: None)
    assert found == pytest.approx(signals.gradient_signals(model, masks, batch_of(), generator=seeded()), rel=1e-6)


def test_nothing_is_left_behind():
    model, masks = masked(SPACES["pairs with skip connections"]())
    kept = model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    before = {name: (value.clone(), value._version) for name, value in model.state_dict(keep_vars=True).items()}
    state = torch.get_rng_state()
    found = written_gradient(model, weights_of(model, masks.layers), batch_of())
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict(keep_vars=True).items():
        assert torch.equal(value, before[name][0])
        assert value._version == before[name][1]
        assert value.grad is (kept if name == "classifier.weight" else None)
    assert bool((kept == 1).all())
    assert not any(gradient.data_ptr() == kept.data_ptr() for gradient in found)


def test_gradients_that_were_there_come_back_after_an_error():
    model, masks = masked(SPACES["relu"]())
    kept = model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    wrong = Batch(batch_of().x, batch_of().y + 7)
    with pytest.raises((IndexError, RuntimeError)):
        written_gradient(model, weights_of(model, masks.layers), wrong)
    assert model.classifier.weight.grad is kept
    assert sum(parameter.grad is not None for parameter in model.parameters()) == 1


class Own(nn.Linear):
    """Somebody else's code."""


def hooked():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def shared():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    "make",
    [
        hooked,
        shared,
        lambda: nn.Sequential(Own(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval(),
        lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2)),
        lambda: nn.Sequential(nn.RNN(4, 4), nn.Linear(4, 2)),
    ],
)
def test_other_networks_are_left_to_autograd(make):
    model = make()
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    assert written_gradient(model, weights, batch_of(classes=2, shape=(4,))) is None


def test_other_batches_are_left_to_autograd():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    weights = [model[0].weight, model[2].weight]
    usual = batch_of(classes=2, shape=(4,))
    assert written_gradient(model, weights, usual) is not None
    masks = Masks.dense([Layer("0", (4, 4)), Layer("2", (2, 4))])
    for batch in (
        Batch(usual.x, usual.y, masks=masks),
        Batch(usual.x, usual.y, target="uniform"),
        Batch(usual.x.double(), usual.y),
        batch_of(CHUNK + 1, classes=2, shape=(4,)),
    ):
        assert written_gradient(model, weights, batch) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert written_gradient(model, weights, usual) is None
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert written_gradient(model, weights, usual) is None
    finally:
        handle.remove()
