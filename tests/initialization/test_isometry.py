"""Approximate isometry: singular values move to the gain, the loss falls at every step, masked weights stay zero."""

import itertools

import pytest
import torch
from torch import nn

from snas.densities import Densities, Layer
from snas.errors import InputError
from snas.initialization.isometry import approximate_isometry, enforce_isometry, isometry_loss
from snas.initialization.variance import initialize, semi_orthogonal
from snas.masks import Masks, audit, choose


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(shape=(10, 30), density=0.3, seed=0):
    weight = semi_orthogonal(shape[0], shape[1], generator=seeded(seed)).double()
    return weight, torch.rand(shape, generator=seeded(seed + 1)) < density


def full_loss(weight):
    """Eq. 4.8 squared, as printed: on W^T W, whatever the shape."""
    return (weight.T @ weight - torch.eye(weight.shape[1], dtype=weight.dtype)).square().sum()


@pytest.mark.parametrize("shape", [(10, 30), (30, 10), (12, 12)])
def test_both_gram_matrices_give_the_same_loss_but_for_a_constant(shape):
    weight = torch.randn(shape, generator=seeded(), dtype=torch.float64)
    constant = max(0, shape[1] - shape[0])
    torch.testing.assert_close(full_loss(weight), isometry_loss(weight) + constant)


def test_loss_by_hand():
    """Singular values 2 and 1, gain 1: (4 - 1)^2 + 0; with gain 2 they are 1 and 1/2: 0 + (1/4 - 1)^2."""
    weight = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert float(isometry_loss(weight)) == 9.0
    assert float(isometry_loss(weight, gain=2.0)) == 0.5625


@pytest.mark.parametrize("shape", [(10, 30), (30, 10)])
def test_the_first_step_is_along_autograds_gradient(shape):
    weight, mask = problem(shape)
    start = (weight * mask).requires_grad_()
    (gradient,) = torch.autograd.grad(full_loss(start), start)
    gradient = gradient * mask
    moved = approximate_isometry(weight, mask, steps=1) - start.detach()
    step = -float((moved * gradient).sum() / gradient.square().sum())
    assert step > 0
    torch.testing.assert_close(moved, -step * gradient)
    # and as far as the loss falls along it
    along = [float(full_loss(start.detach() - factor * step * gradient)) for factor in (0.95, 1.0, 1.05)]
    assert along[1] < min(along[0], along[2])


@pytest.mark.parametrize("shape", [(10, 30), (30, 10), (12, 12)])
def test_the_loss_falls_at_every_step(shape):
    weight, mask = problem(shape)
    results = [approximate_isometry(weight, mask, steps=steps, tolerance=1e-9) for steps in range(30)]
    losses = [float(isometry_loss(result)) for result in results]
    assert losses[0] == float(isometry_loss(weight * mask))
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(losses))
    assert losses[10] < 0.2 * losses[0]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_any_scale_is_brought_down_or_up(scale):
    weight, mask = problem()
    result = approximate_isometry(scale * weight, mask)
    assert float(isometry_loss(result)) < 0.01


@pytest.mark.parametrize("shape", [(10, 30), (30, 10)])
def test_singular_values_move_to_the_gain(shape):
    weight, mask = problem(shape, density=0.5)
    before = torch.linalg.svdvals(weight * mask)
    after = torch.linalg.svdvals(approximate_isometry(weight, mask, gain=1.5, tolerance=1e-6))
    assert (before - 1.0).abs().mean() > 0.2
    assert (after - 1.5).abs().max() < 0.01


def test_masked_weights_are_zero_and_the_input_is_untouched():
    weight, mask = problem()
    before = weight.clone()
    result = approximate_isometry(weight, mask)
    assert torch.count_nonzero(result[~mask]) == 0
    assert torch.equal(weight, before)
    assert result.dtype == weight.dtype
    assert approximate_isometry(weight.float(), mask).dtype == torch.float32


def test_an_orthogonal_matrix_stays():
    weight, _ = problem()
    everything = torch.ones_like(weight, dtype=torch.bool)
    torch.testing.assert_close(approximate_isometry(2.0 * weight, everything, gain=2.0), 2.0 * weight)


def test_nothing_kept_and_empty_rows():
    weight, mask = problem()
    assert torch.count_nonzero(approximate_isometry(weight, torch.zeros_like(mask))) == 0
    mask[3] = False
    result = approximate_isometry(weight, mask)
    assert torch.isfinite(result).all()
    assert torch.count_nonzero(result[3]) == 0


def test_groups_are_matrices_of_their_own():
    weight = torch.randn(8, 3, 2, 2, generator=seeded(), dtype=torch.float64)
    mask = torch.rand(8, 3, 2, 2, generator=seeded(1)) < 0.6
    result = approximate_isometry(weight, mask, groups=2, tolerance=1e-7)
    halves = [approximate_isometry(w, m, tolerance=1e-7) for w, m in zip(weight.split(4), mask.split(4), strict=True)]
    assert all(float(isometry_loss(half)) < 1e-3 for half in (*result.split(4), *halves))
    together = float(isometry_loss(result, groups=2))
    assert together == pytest.approx(sum(float(isometry_loss(half)) for half in result.split(4)))


def test_masks_of_another_shape_are_refused():
    with pytest.raises(InputError, match="mask has shape"):
        approximate_isometry(torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool))


def test_every_layer_of_a_model_is_brought_to_the_gain():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 5), nn.Conv2d(4, 8, 3, groups=2))
    initialize(model, rule="orthogonal-full", nonlinearity="tanh", generator=seeded())
    layers = tuple(Layer(name, tuple(model.get_submodule(name).weight.shape)) for name in "023")
    scores = {layer.name: torch.rand(layer.shape, generator=seeded(1)) for layer in layers}
    masks = choose(scores, Densities(layers, tuple(layer.total // 2 for layer in layers)), generator=seeded())
    bias = model[2].bias.clone()

    def losses(weights):
        return [float(isometry_loss(w, gain=5 / 3, groups=g)) for w, g in zip(weights, (1, 1, 2), strict=True)]

    before = losses(model.get_submodule(layer.name).weight.detach() * masks[layer.name] for layer in layers)
    enforce_isometry(model, masks, nonlinearity="tanh")
    after = losses(model.get_submodule(layer.name).weight.detach() for layer in layers)
    assert all(new < 0.1 * old for new, old in zip(after, before, strict=True))
    audit(model, masks)
    assert torch.equal(model[2].bias, bias)
    assert all(p.requires_grad for p in model.parameters())


def test_a_dense_layer_without_submodule_name():
    """A network that is one layer: its weight belongs to the network itself."""
    model = nn.Linear(4, 3)
    initialize(model, rule="orthogonal", nonlinearity="relu", generator=seeded())
    weight = model.weight.detach().clone()
    enforce_isometry(model, Masks.dense([Layer("weight", (3, 4), parameter="weight")]), nonlinearity="relu")
    torch.testing.assert_close(model.weight.detach(), weight)
