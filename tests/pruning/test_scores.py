"""Scores against hand-worked values, explicit indicator variables and finite differences; they leave no trace."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from snas.densities import Layer
from snas.pruning.scores import Batch, scores


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(factory, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory()


class Pair(nn.Module):
    """Two weights: the logits of classes 0 and 1 are w1 x1 + w2 x2 and 0."""

    def __init__(self, weight):
        super().__init__()
        self.fc = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([weight]))

    def forward(self, x):
        return torch.cat((self.fc(x), torch.zeros(len(x), 1)), 1)


PAIR = [Layer("fc", (1, 2))]


def test_snip_of_two_weights_by_hand():
    """dL/dc_j = (dL/dz) w_j x_j with one dL/dz for both, so the scores are as |w1 x1| : |w2 x2| = 3 : 2."""
    batch = Batch(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    score = scores.get("snip")(Pair([3.0, -1.0]), PAIR, batch, generator=seeded())["fc"]
    torch.testing.assert_close(score, torch.tensor([[0.6, 0.4]]))


def test_snip_of_two_weights_by_finite_differences():
    """Eq. 3.5 literally: take a little of one connection away, and see what the loss does."""
    batch = Batch(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([0, 1]))
    model, delta = Pair([0.7, -0.4]).double(), 1e-6

    def loss(present):
        logits = functional_call(model, {"fc.weight": model.fc.weight * present}, (batch.x.double(),))
        return nn.functional.cross_entropy(logits, batch.y)

    ones = torch.ones(1, 2, dtype=torch.float64)
    changes = [(loss(ones) - loss(ones - delta * torch.eye(2)[[j]])).abs().item() / delta for j in range(2)]
    expected = torch.tensor([changes]) / sum(changes)
    score = scores.get("snip")(Pair([0.7, -0.4]), PAIR, batch, generator=seeded())["fc"]
    torch.testing.assert_close(score, expected.float(), rtol=1e-4, atol=0)


def test_snip_does_not_underflow():
    """Gradients of about 1e-19 times weights of about 1e-23 vanish in float32; their ratio does not."""
    batch = Batch(torch.tensor([[1e-19, 2e-19]]), torch.tensor([0]))
    score = scores.get("snip")(Pair([3e-23, -1e-23]), PAIR, batch, generator=seeded())["fc"]
    torch.testing.assert_close(score, torch.tensor([[0.6, 0.4]]))


LAYERS = [Layer("0", (4, 2, 3, 3)), Layer("5", (3, 16))]
BATCH = Batch(torch.randn(10, 2, 4, 4, generator=seeded()), torch.randint(3, (10,), generator=seeded()))


def network():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    )


def test_snip_against_explicit_indicator_variables():
    """Eq. 3.5 and 3.6 with c as variables of their own, in double precision, with the batch's normalization."""
    model = make(network)
    reference = make(network).double().train()
    reference[3].eval()
    present = {layer.parameter: torch.ones(layer.shape, dtype=torch.float64, requires_grad=True) for layer in LAYERS}
    weights = {name: c * reference.get_parameter(name).detach() for name, c in present.items()}
    loss = nn.functional.cross_entropy(functional_call(reference, weights, (BATCH.x.double(),)), BATCH.y)
    gradients = torch.autograd.grad(loss, list(present.values()))
    total = sum(g.abs().sum() for g in gradients)
    result = scores.get("snip")(model, LAYERS, BATCH, generator=seeded())
    for layer, gradient in zip(LAYERS, gradients, strict=True):
        torch.testing.assert_close(result[layer.name], (gradient.abs() / total).float(), rtol=1e-4, atol=1e-8)
    assert sum(float(s.sum()) for s in result.values()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", ["random", "magnitude", "snip"])
def test_scores_leave_no_trace(name):
    model = make(network)
    model[1].eval()
    backward = model(BATCH.x).sum()
    backward.backward()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    with torch.no_grad():
        result = scores.get(name)(model, LAYERS, BATCH, generator=seeded())
    assert {key: tuple(value.shape) for key, value in result.items()} == {x.name: x.shape for x in LAYERS}
    assert not any(value.requires_grad for value in result.values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.requires_grad for p in model.parameters())


def test_modes_are_restored_after_an_error():
    model = make(network).eval()
    with pytest.raises(RuntimeError):
        scores.get("snip")(model, LAYERS, Batch(torch.ones(2, 5), BATCH.y), generator=seeded())
    assert not any(module.training for module in model.modules())


def test_snip_scores_are_the_same_in_either_mode_and_for_any_seed():
    """Dropout is off, so nothing is drawn; the batch's statistics are used even by a network in evaluation mode."""
    model = make(network)
    first = scores.get("snip")(model, LAYERS, BATCH, generator=seeded(1))
    again = scores.get("snip")(model.eval(), LAYERS, BATCH, generator=seeded(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_snip_of_a_frozen_weight_and_of_an_unused_one():
    model = make(network)
    model.add_module("unused", nn.Linear(2, 2))
    model.forward = lambda x: nn.Sequential(*list(model)[:6])(x)
    model[0].weight.requires_grad_(False)
    result = scores.get("snip")(model, [*LAYERS, Layer("unused", (2, 2))], BATCH, generator=seeded())
    assert torch.count_nonzero(result["0"]) > 0
    assert torch.count_nonzero(result["unused"]) == 0
    assert not model[0].weight.requires_grad


def test_snip_of_a_dead_network_is_zero():
    batch = Batch(torch.zeros(1, 2), torch.tensor([0]))
    assert scores.get("snip")(Pair([1.0, 1.0]), PAIR, batch, generator=seeded())["fc"].tolist() == [[0.0, 0.0]]


def test_magnitude():
    score = scores.get("magnitude")(Pair([3.0, -4.0]), PAIR, Batch(*torch.ones(2, 1)), generator=seeded())
    assert score["fc"].tolist() == [[3.0, 4.0]]


def test_random_scores_come_from_the_generator():
    first, again, other = (
        scores.get("random")(Pair([3.0, -4.0]), PAIR, Batch(*torch.ones(2, 1)), generator=seeded(seed))["fc"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_score_says_what_it_is():
    assert {"random", "magnitude", "snip", "grasp", "obd", "synflow"} <= set(scores.names())
    assert all(scores.summary(name).endswith((".", ").")) for name in scores.names())
