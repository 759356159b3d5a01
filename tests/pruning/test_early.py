"""A short training that only leaves a mask: its steps by hand, what it keeps, and that it leaves no trace."""

import math

import pytest
import torch
from torch import nn

from snas.densities import Densities, Layer
from snas.errors import DivergedError
from snas.masks import Masks
from snas.pruning.early import short_training
from snas.pruning.goal import Goal, prune_in_rounds
from snas.pruning.methods import given_densities, methods, open_method
from snas.pruning.prepare import prepare
from snas.pruning.scores import Batch, scores
from snas.search_spaces.base import SearchSpace


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def linear():
    model = nn.Linear(4, 3).double()
    with torch.no_grad():
        model.weight.copy_(drawn(3, 4, seed=2))
        model.bias.copy_(drawn(3, seed=3))
    return model


def convolutional():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5)]
        return nn.Sequential(*modules)


LAYERS = [Layer("fc", (3, 4), "weight")]
FEW = Batch(drawn(60, 4), torch.arange(60) % 3)  # fewer than a minibatch: each step sees them all
IMAGES = Batch(torch.randn(250, 1, 6, 6, generator=seeded()), torch.arange(250) % 5)


def by_hand(weight, bias, mask, steps, *, lr):
    """Softmax regression with momentum 0.9, its gradients written out; changes weight and bias in place."""
    for _ in range(steps):
        logits = FEW.x @ weight.T + bias
        errors = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True) - torch.eye(3, dtype=torch.float64)[FEW.y]
        errors /= len(FEW.y)
        velocity = by_hand.velocity = [
            0.9 * old + new
            for old, new in zip(by_hand.velocity, [(errors.T @ FEW.x) * mask, errors.sum(0)], strict=True)
        ]
        weight -= lr * velocity[0] * mask
        bias -= lr * velocity[1]


def test_steps_are_those_of_masked_descent_with_momentum():
    model = linear()
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    mask = torch.ones(3, 4, dtype=torch.bool)
    by_hand.velocity = [torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    with short_training(model, FEW, passes=5, lr=0.3, generator=seeded()) as advance:
        advance(Masks(LAYERS, {"fc": mask}), 0.4)
        by_hand(weight, bias, mask, 2, lr=0.3)
        torch.testing.assert_close(model.weight, weight, rtol=1e-12, atol=1e-12)
        mask = mask.clone()
        mask[0, 1] = mask[2, 3] = False
        advance(Masks(LAYERS, {"fc": mask}), 1.0)
        weight *= mask
        by_hand(weight, bias, mask, 3, lr=0.3)
        torch.testing.assert_close(model.weight, weight, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model.bias, bias, rtol=1e-12, atol=1e-12)
        assert model.weight[0, 1] == model.weight[2, 3] == 0


def test_one_cut_keeps_what_is_largest_after_the_training():
    model = linear()
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    by_hand.velocity = [torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    by_hand(weight, bias, torch.ones(3, 4, dtype=torch.bool), 40, lr=0.5)
    assert set(weight.abs().flatten().topk(4)[1].tolist()) != set(model.weight.abs().flatten().topk(4)[1].tolist())
    with short_training(model, FEW, passes=40, lr=0.5, generator=seeded()) as advance:
        masks = prune_in_rounds(
            model,
            scores.get("magnitude"),
            Goal(LAYERS, 4),
            FEW,
            iterations=1,
            revive=False,
            guarded=False,
            scoring=seeded(),
            choosing=seeded(),
            advance=advance,
        )
    assert set(masks["fc"].flatten().nonzero().flatten().tolist()) == set(weight.abs().flatten().topk(4)[1].tolist())


@pytest.mark.parametrize("diverges", [False, True])
def test_it_leaves_no_trace(diverges):
    """Parameters, buffers, gradients, modes and random numbers; also where it diverges."""
    model = convolutional().eval()
    model[0].train()
    model[0].weight.grad = gradient = torch.ones_like(model[0].weight)
    model[5].bias.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    buffers, state = dict(model.named_buffers()), torch.random.get_rng_state()
    layers = [Layer("0", (4, 1, 3, 3)), Layer("5", (5, 64))]
    masks = Masks.dense(layers)

    batch = Batch(IMAGES.x / (0.0 if diverges else 1.0), IMAGES.y)

    def train():
        with short_training(model, batch, passes=3, lr=0.1, generator=seeded()) as advance:
            advance(masks, 1.0)
            assert not torch.equal(model[0].weight, before["0.weight"])
            assert not torch.equal(model[1].weight, before["1.weight"])
            assert not torch.equal(model[1].running_mean, before["1.running_mean"])
            assert torch.equal(model[5].bias, before["5.bias"])

    if not diverges:
        train()
    else:
        with pytest.raises(DivergedError, match="learning_rate is lower"):
            train()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(buffer is buffers[key] for key, buffer in model.named_buffers())
    assert model[0].weight.grad is gradient
    assert bool((gradient == 1).all())
    assert [module.training for module in model] == [True, False, False, False, False, False]
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name != "0.weight")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("examples", "passes", "steps"), [(250, 1, 2), (250, 3, 6), (60, 2, 2), (100, 1, 1)])
def test_a_pass_is_of_whole_minibatches(examples, passes, steps):
    model, seen = convolutional(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    batch = Batch(IMAGES.x[:examples], IMAGES.y[:examples])
    masks = Masks.dense([Layer("5", (5, 64))])
    with short_training(model, batch, passes=passes, lr=0.01, generator=seeded()) as advance:
        for share in (0.5, 1.0, 1.0):
            advance(masks, share)
    assert len(seen) == steps
    assert {len(x) for x in seen} == {min(examples, 100)}
    first = torch.cat(seen[: math.ceil(steps / passes)]).flatten(1)
    assert len(first.unique(dim=0)) == len(first)  # within a pass nothing is seen twice


SPACE = SearchSpace.from_model(
    lambda: nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 2)), input_shape=(20,), name="few-matter"
)
X = torch.randn(2000, 20, generator=seeded(7))
TWO_MATTER = Batch(X, (X[:, 0] + X[:, 1] > 0).long())


def test_a_ticket_keeps_the_inputs_that_matter():
    """The class is the sign of the sum of two inputs: initial magnitudes know nothing of that."""
    densities = Densities(SPACE.layers, (16, 12))

    def share(rule):
        made = [prepare(SPACE, given_densities(rule), densities, TWO_MATTER, seed=seed) for seed in range(5)]
        assert all(sparse.densities == densities for sparse in made)
        return sum(int(sparse.masks["0"][:, :2].sum()) for sparse in made) / (5 * 16)

    assert share("magnitude") < 0.3
    assert share("early-ticket:passes=5") > 0.6


def test_a_ticket_is_trained_from_its_initial_weights():
    dense = prepare(SPACE, methods.get("dense"), 176, TWO_MATTER, seed=3).model.state_dict()
    ticket = prepare(SPACE, methods.get("early-ticket"), 40, TWO_MATTER, seed=3)
    assert ticket.densities.kept_weights == 40
    for key, value in ticket.model.state_dict().items():
        mask = ticket.masks.get(key.removesuffix(".weight"))
        assert torch.equal(value, dense[key] if mask is None else dense[key] * mask)
    again = prepare(SPACE, methods.get("early-ticket"), 40, TWO_MATTER, seed=3)
    assert again.masks == ticket.masks
    untrained = prepare(SPACE, open_method("early-ticket:passes=0"), 40, TWO_MATTER, seed=3)
    assert untrained.masks != ticket.masks
