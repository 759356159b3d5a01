"""Scores that look at data leave no trace in any network, and are exact over many examples."""

import copy

import pytest
import torch
from torch import nn

from snas.densities import Layer
from snas.masks import Masks
from snas.pruning.passes import chunks, isolated, losses
from snas.pruning.scores import CHUNK, Batch, scores


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(factory, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory()


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(4, 5, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)
        self.out = nn.Linear(10, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0].mean(1))


class Steps(nn.Module):
    def __init__(self):
        super().__init__()
        self.long, self.gated = nn.LSTMCell(4, 5), nn.GRUCell(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        state, gated = None, None
        for step in x.unbind(1):
            state = self.long(step, state)
            gated = self.gated(state[0], gated)
        return self.out(gated)


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.mix = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True, **options)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.norm(x + self.mix(x, x, x, need_weights=False)[0]).mean(1))


def convolution():
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 4, 1),
        nn.GroupNorm(2, 4),
        nn.GLU(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


NETWORKS = {
    "convolution": convolution,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN),
    "cells": Steps,
    "attention": Attention,
    "attention-apart": lambda: Attention(kdim=4, vdim=4, bias=False),
}
X = torch.randn(7, 6, 4, generator=seeded(1))
Y = torch.randint(3, (7,), generator=seeded(2))


def layers_of(model):
    return [
        Layer(name, tuple(parameter.shape), name) for name, parameter in model.named_parameters() if parameter.ndim > 1
    ]


def half(layers):
    return Masks(layers, {layer.name: torch.rand(layer.shape, generator=seeded(3)) < 0.7 for layer in layers})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("score", ["snip", "grasp", "obd", "synflow"])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_trace_and_a_use_for_every_network(network, score, masked):
    model = make(NETWORKS[network])
    layers = layers_of(model)
    next(model.children()).eval()
    model.out.bias.requires_grad_(False) if hasattr(model, "out") else None
    pending = model(X).square().sum()  # a graph of the caller's own, which must still work afterwards
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    places = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    modes = [(module.training, getattr(module, "dropout", None)) for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.random.get_rng_state()
    with torch.no_grad():
        batch = Batch(X, Y, masks=half(layers) if masked else None)
        result = scores.get(score)(model, layers, batch, generator=seeded())
    assert {key: tuple(value.shape) for key, value in result.items()} == {x.name: x.shape for x in layers}
    assert all(bool(torch.isfinite(value).all()) and not value.requires_grad for value in result.values())
    assert all(torch.count_nonzero(value) > 0 for value in result.values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == tensors
    assert [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())] == places
    assert [(module.training, getattr(module, "dropout", None)) for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    pending.backward()


@pytest.mark.parametrize("network", NETWORKS)
def test_dropout_is_off(network):
    model = make(NETWORKS[network])
    layers = layers_of(model)
    for score in ("snip", "grasp", "obd"):
        first, again = (scores.get(score)(model, layers, Batch(X, Y), generator=seeded(seed)) for seed in (1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_everything_is_put_back_after_an_error():
    model = make(convolution).eval()
    layers = layers_of(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for score in ("snip", "grasp", "obd"):
        with pytest.raises(RuntimeError):
            scores.get(score)(model, layers, Batch(torch.ones(2, 5), Y[:2], masks=half(layers)), generator=seeded())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_masked_weights_are_zero_inside_and_shared_buffers_stay_shared():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    model[2].running_mean = model[1].running_mean
    layers = [Layer("0", (4, 4))]
    masks = half(layers)
    original = model[0].weight.detach().clone()
    with isolated(model, layers, Batch(X[:, 0], Y, masks=masks), generator=seeded()) as (weight,):
        assert weight is model[0].weight
        assert torch.equal(weight, original * masks["0"])
        assert model[2].running_mean is model[1].running_mean
        model(X[:, 0])
        assert torch.count_nonzero(model[1].running_mean) > 0
    assert torch.count_nonzero(model[1].running_mean) == 0
    assert torch.equal(model[0].weight, original)


def test_two_weights_with_one_gradient():
    """Autograd hands out the same tensor for both terms of a sum."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.randn(3, 4, generator=seeded(i))) for i in (1, 2))

        def forward(self, x):
            return x @ (self.a + self.b).T

    model = Sum()
    layers = [Layer("a", (3, 4), "a"), Layer("b", (3, 4), "b")]
    many = Batch(X[:, 0].repeat(100, 1), Y.repeat(100))
    one, repeated = (
        scores.get("snip")(model, layers, batch, generator=seeded()) for batch in (Batch(X[:, 0], Y), many)
    )
    torch.testing.assert_close(one, repeated)


def test_chunks_hold_every_example_once_and_no_last_one_alone():
    def sizes(examples):
        batch = Batch(torch.arange(float(examples)).reshape(-1, 1), torch.arange(examples))
        parts = list(chunks(batch, torch.device("cpu")))
        assert torch.equal(torch.cat([y for _, y in parts]), batch.y)
        assert torch.equal(torch.cat([x for x, _ in parts]), batch.x)
        return [len(y) for _, y in parts]

    assert sizes(1) == [1]
    assert sizes(CHUNK) == [CHUNK]
    assert sizes(CHUNK + 1) == [CHUNK + 1]
    assert sizes(CHUNK + 2) == [CHUNK, 2]
    assert sizes(2 * CHUNK + 1) == [CHUNK, CHUNK + 1]


@pytest.mark.parametrize("target", ["labels", "uniform", "raw", "softmax"])
@pytest.mark.parametrize("score", ["snip", "grasp", "obd"])
def test_many_chunks_are_exact(score, target, monkeypatch):
    """In chunks of 3, 3 and 1 + 3 as in one of all 10: without normalization there is no difference."""
    model = make(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))).double()
    layers = layers_of(model)
    batch = Batch(
        torch.randn(10, 4, generator=seeded(1)).double(), torch.randint(3, (10,), generator=seeded(2)), target
    )
    whole = scores.get(score)(model, layers, batch, generator=seeded())
    small = Batch.chunks
    monkeypatch.setattr(Batch, "chunks", lambda self: small(self, 3))
    parts = scores.get(score)(model, layers, batch, generator=seeded())
    torch.testing.assert_close(whole, parts, rtol=1e-10, atol=0)


def test_losses_of_all_targets_by_hand():
    """Logits (0, ln 3): the softmax is (1/4, 3/4); and (0, -ln 3) for the second example."""
    model = nn.Linear(1, 2)
    model.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.zeros(2)})
    model.double()
    three = torch.tensor(3.0, dtype=torch.float64).log()
    x = torch.stack((three, -three)).reshape(2, 1)
    y = torch.tensor([1, 1])

    def loss(target):
        return sum(float(part.detach()) for part in losses(model, Batch(x, y, target)))

    log4 = 2 * torch.log(torch.tensor(2.0, dtype=torch.float64))
    assert loss("labels") == pytest.approx(float((log4 - three + log4) / 2))
    # logsumexp is ln 4 and ln 4 - ln 3; the mean prediction is (1/2, 1/2), the uniform one; the mean logits are zero.
    mean = float(log4 + log4 - three) / 2
    assert loss("uniform") == pytest.approx(mean)
    assert loss("softmax") == pytest.approx(mean)
    assert loss("raw") == pytest.approx(mean)
    lopsided = x * torch.tensor([[1.0], [0.0]])  # logits (0, ln 3) and (0, 0)
    part = sum(float(p.detach()) for p in losses(model, Batch(lopsided, y, "raw")))
    assert part == pytest.approx(float((log4 - three * three / 2 + log4 / 2) / 2))


@pytest.mark.parametrize("target", ["uniform", "raw", "softmax"])
def test_snip_without_labels(target):
    """The loss's slope in the logits is softmax minus target, whatever the target adds up to."""
    model = make(lambda: nn.Linear(4, 3)).double()
    x = torch.randn(8, 4, generator=seeded(1)).double()
    logits = model(x).detach()
    p = logits.softmax(1)
    t = {"uniform": torch.full((3,), 1 / 3).double(), "raw": logits.mean(0), "softmax": p.mean(0)}[target]
    expected = ((p - t).T @ x / 8 * model.weight.detach()).abs()
    layers = [Layer("fc", (3, 4), "weight")]
    results = [
        scores.get("snip")(model, layers, Batch(x, y, target), generator=seeded())["fc"]
        for y in (torch.zeros(8, dtype=torch.long), torch.ones(8, dtype=torch.long))
    ]
    torch.testing.assert_close(results[0], expected / expected.sum())
    assert torch.equal(*results)


def test_the_measured_network_is_the_masked_one():
    """As if the weights had been set to zero, but for the factor, which is the weight that there was."""
    model = make(convolution)
    layers = layers_of(model)
    masks = half(layers)
    zeroed = copy.deepcopy(model)
    masks.apply(zeroed)
    for score in ("snip", "grasp", "obd", "synflow"):
        ours = scores.get(score)(model, layers, Batch(X, Y, masks=masks), generator=seeded())
        theirs = scores.get(score)(zeroed, layers, Batch(X, Y, masks=masks), generator=seeded())
        for name, mask in masks.items():
            if score != "synflow":  # those that are gone have scores too, so the sums differ
                ratios = ours[name][mask] / ours[name][mask].abs().sum()
                expected = theirs[name][mask] / theirs[name][mask].abs().sum()
                torch.testing.assert_close(ratios, expected, rtol=1e-4, atol=1e-8)
                assert torch.count_nonzero(theirs[name][~mask]) == 0
                assert torch.count_nonzero(ours[name][~mask]) > 0
            else:
                torch.testing.assert_close(ours[name], theirs[name])
                assert torch.count_nonzero(ours[name][~mask]) == 0
