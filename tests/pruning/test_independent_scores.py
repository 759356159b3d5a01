"""Every score of a small network in double precision against a second, separate computation: to 1e-6, same kept sets.

The networks are written a second time here, as functions of a list of weights; derivatives of the second computation
are finite differences, explicit Hessians and Jacobians, or plain products of matrices.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.nn import functional

from snas.densities import Layer
from snas.pruning.goal import Goal, prune_in_rounds
from snas.pruning.scores import Batch, scores

EXAMPLES, CLASSES = 6, 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(modules):
    model = nn.Sequential(*modules).double()
    generator = seeded(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6)
    return model


def mlp(activation):
    model = make([nn.Linear(5, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, CLASSES)])
    act = torch.tanh if activation is nn.Tanh else torch.relu
    biases = [model[i].bias.detach() for i in (0, 2, 4)]

    def forward(weights, x, shift=1.0):
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = x @ weight.T + shift * bias
            x = act(x) if i < 2 else x
        return x

    return model, forward, (5,)


def cnn(pool):
    modules = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), pool(2), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten()]
    model = make([*modules, nn.Linear(8, CLASSES)])
    biases = [model[i].bias.detach() for i in (0, 3, 6)]

    def forward(weights, x, shift=1.0):
        x = functional.conv2d(functional.pad(x, (1, 1, 1, 1)), weights[0]) + shift * biases[0].reshape(-1, 1, 1)
        windows = x.relu().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        x = windows.amax(4) if pool is nn.MaxPool2d else windows.mean(4)
        x = (functional.conv2d(x, weights[1]) + shift * biases[1].reshape(-1, 1, 1)).relu()
        return x.flatten(1) @ weights[2].T + shift * biases[2]

    return model, forward, (2, 6, 6)


NETWORKS = {
    "mlp-tanh": lambda: mlp(nn.Tanh),
    "mlp-relu": lambda: mlp(nn.ReLU),
    "cnn-max": lambda: cnn(nn.MaxPool2d),
    "cnn-mean": lambda: cnn(nn.AvgPool2d),
}


class Case:
    """A network, its second writing, and data."""

    def __init__(self, name):
        self.model, self.forward, shape = NETWORKS[name]()
        names = [key.removesuffix(".weight") for key, _ in self.model.named_parameters() if key.endswith("weight")]
        self.layers = [Layer(key, tuple(self.model.get_parameter(f"{key}.weight").shape)) for key in names]
        self.weights = [self.model.get_parameter(layer.parameter).detach().clone() for layer in self.layers]
        self.x = torch.randn(EXAMPLES, *shape, generator=seeded(1), dtype=torch.float64)
        self.y = torch.randint(CLASSES, (EXAMPLES,), generator=seeded(2))
        self.flat = torch.cat([weight.flatten() for weight in self.weights])
        torch.testing.assert_close(self.model(self.x), self.forward(self.weights, self.x))

    def split(self, flat):
        parts = flat.split([weight.numel() for weight in self.weights])
        return [part.reshape(weight.shape) for part, weight in zip(parts, self.weights, strict=True)]

    def loss(self, flat, temperature=1.0):
        """Mean negative log-probability of the labels, written out."""
        logits = self.forward(self.split(flat), self.x) / temperature
        picked = logits[torch.arange(EXAMPLES), self.y]
        return (torch.log(torch.exp(logits).sum(1)) - picked).mean()

    def score(self, name):
        result = scores.get(name)(self.model, self.layers, Batch(self.x, self.y), generator=seeded())
        assert all(value.dtype == torch.float64 for value in result.values())
        return torch.cat([result[layer.name].flatten() for layer in self.layers])


def difference(function, at, step=1e-4):
    """Slope in every coordinate, by central differences of fourth order."""
    slopes = []
    for j in range(len(at)):
        axis = torch.zeros_like(at)
        axis[j] = step
        near = function(at + axis) - function(at - axis)
        far = function(at + 2 * axis) - function(at - 2 * axis)
        slopes.append(float(8 * near - far) / (12 * step))
    return torch.tensor(slopes, dtype=torch.float64)


def agree(ours, theirs):
    """To 1e-6 relative, and the same best weights at every density."""
    theirs = theirs / theirs.abs().sum()
    ours = ours / ours.abs().sum()
    # What is zero but for rounding has no relative error.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)
    apart = np.diff(np.sort(theirs.numpy())) > 1e-10
    for kept in range(1, len(ours)):
        if apart[len(ours) - kept - 1]:
            best = [set(np.argsort(-values.numpy())[:kept].tolist()) for values in (ours, theirs)]
            assert best[0] == best[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_snip_is_the_slope_in_the_indicators(name):
    case = Case(name)
    present = torch.ones_like(case.flat)
    agree(case.score("snip"), difference(lambda c: case.loss(c * case.flat), present).abs())


@pytest.mark.parametrize("name", NETWORKS)
def test_grasp_is_the_explicit_hessian_times_the_gradient(name):
    case = Case(name)
    matrix = hessian(lambda w: case.loss(w, 200.0), case.flat)
    slope = difference(lambda w: case.loss(w, 200.0), case.flat)
    agree(case.score("grasp"), case.flat * (matrix @ slope))


def test_grasp_has_the_sign_of_what_removal_does_to_the_gradient():
    """The squared norm of the gradient falls by 2 w (Hg) to first order, so a thousandth of the weight is taken off."""
    case = Case("mlp-tanh")

    def norm(flat):
        flat = flat.clone().requires_grad_()
        (slope,) = torch.autograd.grad(case.loss(flat, 200.0), flat)
        return slope.square().sum()

    agree(case.score("grasp"), difference(lambda c: norm(c * case.flat), torch.ones_like(case.flat)))


@pytest.mark.parametrize("name", ["mlp-relu", "cnn-max", "cnn-mean"])
def test_obd_is_half_the_hessians_diagonal_times_the_squared_weight(name):
    """Exact for networks that are piecewise linear in every single weight."""
    case = Case(name)
    agree(case.score("obd"), case.flat.square() * hessian(case.loss, case.flat).diagonal() / 2)


def test_obd_is_the_diagonal_of_the_gauss_newton_matrix():
    """For tanh, whose own curvature it leaves out: J^T (diag(p) - p p^T) J with the explicit Jacobian J."""
    case = Case("mlp-tanh")
    slopes = jacobian(lambda w: case.forward(case.split(w), case.x), case.flat)
    p = case.forward(case.weights, case.x).softmax(1)
    matrix = sum(j.T @ (torch.diag(q) - torch.outer(q, q)) @ j for j, q in zip(slopes, p, strict=True)) / EXAMPLES
    agree(case.score("obd"), case.flat.square() * matrix.diagonal() / 2)
    full = hessian(case.loss, case.flat).diagonal()
    assert not torch.allclose(full, matrix.diagonal(), rtol=1e-2)


def flows(weights):
    """Synaptic flow of each weight of a chain of matrices: what arrives, times the weight, times what leads on."""
    sizes = [np.abs(weight) for weight in weights]
    result = []
    for i, size in enumerate(sizes):
        arriving = np.ones(sizes[0].shape[1])
        for before in sizes[:i]:
            arriving = before @ arriving
        leading = np.ones(sizes[-1].shape[0])
        for after in sizes[:i:-1]:
            leading = leading @ after
        result.append(leading[:, None] * size * arriving)
    return result


@pytest.mark.parametrize("name", ["mlp-tanh", "mlp-relu"])
def test_synflow_is_a_product_of_matrices(name):
    case = Case(name)
    expected = flows([weight.numpy() for weight in case.weights])
    agree(case.score("synflow"), torch.cat([torch.from_numpy(flow).flatten() for flow in expected]))


@pytest.mark.parametrize("name", ["mlp-relu", "cnn-mean"])
def test_synflow_is_what_the_output_loses_without_the_weight(name):
    """Every path crosses a layer once, so that the output is linear in every single absolute weight."""
    case = Case(name)
    ones = torch.ones(1, *case.x.shape[1:], dtype=torch.float64)

    def output(flat):
        return float(case.forward(case.split(flat), ones, shift=0.0).sum())

    whole = case.flat.abs()
    lost = [output(whole) - output(whole * (torch.arange(len(whole)) != j)) for j in range(len(whole))]
    agree(case.score("synflow"), torch.tensor(lost, dtype=torch.float64))


def test_synflow_through_max_pooling_is_the_slope_of_the_output():
    case = Case("cnn-max")
    ones = torch.ones(1, *case.x.shape[1:], dtype=torch.float64)
    whole = case.flat.abs()
    slope = difference(lambda c: case.forward(case.split(c * whole), ones, shift=0.0).sum(), torch.ones_like(whole))
    agree(case.score("synflow"), slope)


def rounds(case, score, kept, *, iterations, revive, guarded=False):
    """Masks after every round of `prune_in_rounds`, flat, as sets of places."""
    seen = []

    def watched(model, layers, batch, *, generator):
        seen.append(batch.masks)
        return scores.get(score)(model, layers, batch, generator=generator)

    masks = prune_in_rounds(
        case.model,
        watched,
        Goal(case.layers, kept),
        Batch(case.x, case.y),
        iterations=iterations,
        revive=revive,
        guarded=guarded,
        scoring=seeded(),
        choosing=seeded(1),
    )
    return [
        set(torch.cat([mask[layer.name].flatten() for layer in case.layers]).nonzero().flatten().tolist())
        for mask in (*seen[1:], masks)
    ]


def require_best(ours, values, kept):
    """So many, and the best ones; of equals any will do, be they zeros or weights on one and the same path."""
    order = np.argsort(-values)
    assert len(ours) == kept
    assert values[list(ours)].min() >= values[order[kept - 1]] - 1e-9 * values.max()
    if values[order[kept - 1]] - values[order[kept]] > 1e-9 * values.max():
        assert ours == set(order[:kept].tolist())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("revive", [True, False])
def test_force_and_iterative_snip_round_by_round(name, revive):
    """The saliency of the masked network times the dense weight, by finite differences; the best of all, or of those
    that are left."""
    case = Case(name)
    total, goal, iterations = len(case.flat), len(case.flat) // 4, 5
    mask = torch.ones(total, dtype=torch.float64)
    for number, ours in enumerate(rounds(case, "snip", goal, iterations=iterations, revive=revive), start=1):
        slope = difference(lambda w: case.loss(w), mask * case.flat)
        saliency = (slope * case.flat).abs() - (0.0 if revive else 1.0) * (1 - mask)  # gone: below all others
        kept = round(total ** (1 - number / iterations) * goal ** (number / iterations))
        require_best(ours, saliency.numpy(), kept)
        mask = torch.tensor([float(j in ours) for j in range(total)], dtype=torch.float64)


def test_force_brings_weights_back_and_iterative_snip_does_not():
    case = Case("mlp-relu")
    force, iterative = (rounds(case, "snip", 20, iterations=5, revive=revive) for revive in (True, False))
    assert any(later - earlier for earlier, later in pairwise(force))
    assert all(later < earlier for earlier, later in pairwise(iterative))


def test_synflow_round_by_round():
    """Matrices with zeros where weights are gone, and the lowest flows out until the schedule's count is left."""
    case = Case("mlp-relu")
    total, goal, iterations = len(case.flat), 9, 30
    weights = [weight.numpy().copy() for weight in case.weights]
    for number, ours in enumerate(rounds(case, "synflow", goal, iterations=iterations, revive=False), start=1):
        flat = np.concatenate([flow.ravel() for flow in flows(weights)])
        kept = round(total ** (1 - number / iterations) * goal ** (number / iterations))
        require_best(ours, flat, kept)
        gone = ~np.isin(np.arange(total), list(ours))
        parts = np.split(gone, np.cumsum([weight.size for weight in weights])[:-1])
        for weight, part in zip(weights, parts, strict=True):
            weight[part.reshape(weight.shape)] = 0.0
