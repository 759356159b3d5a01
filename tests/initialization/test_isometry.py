"""Approximate isometry: singular values move to the gain, the loss falls at every step, masked weights stay zero."""

import itertools
import math

import pytest
import torch
from torch import nn

from snas.densities import Densities, Layer
from snas.errors import InputError
from snas.initialization.isometry import approximate_isometry, enforce_isometry, isometry_loss, stacked
from snas.initialization.spectral import deviation
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
    initialize(model, rule="orthogonal-full", nonlinearity="relu", generator=seeded())
    layers = tuple(Layer(name, tuple(model.get_submodule(name).weight.shape)) for name in "023")
    scores = {layer.name: torch.rand(layer.shape, generator=seeded(1)) for layer in layers}
    masks = choose(scores, Densities(layers, tuple(layer.total // 2 for layer in layers)), generator=seeded())
    bias = model[2].bias.clone()

    def losses(weights):
        return [float(isometry_loss(w, gain=math.sqrt(2), groups=g)) for w, g in zip(weights, (1, 1, 2), strict=True)]

    before = losses(model.get_submodule(layer.name).weight.detach() * masks[layer.name] for layer in layers)
    enforce_isometry(model, masks, nonlinearity="relu")
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


# Spectral norm


def largest(weight, gain=1.0):
    """Spectral norm of eq. 4.8 by singular values: the largest |s^2 - 1|."""
    return float((torch.linalg.svdvals(weight / gain) ** 2 - 1).abs().max())


@pytest.mark.parametrize("shape", [(10, 30), (30, 10), (12, 12)])
def test_the_deviation_is_that_of_the_singular_values(shape):
    weight = torch.randn(2, *sorted(shape), generator=seeded(), dtype=torch.float64)
    expected = torch.tensor([largest(part) for part in weight], dtype=torch.float64)
    torch.testing.assert_close(deviation(weight), expected)


@pytest.mark.parametrize("shape", [(10, 30), (30, 10), (12, 12)])
@pytest.mark.parametrize("seed", range(3))
def test_the_spectral_norm_lowers_the_largest_deviation_further(shape, seed):
    weight, mask = problem(shape, density=0.5, seed=seed)
    frobenius = approximate_isometry(weight, mask, tolerance=0.05, gain=1.5)
    spectral = approximate_isometry(weight, mask, tolerance=0.005, gain=1.5, norm="spectral")
    assert torch.count_nonzero(spectral[~mask]) == 0
    assert largest(spectral, 1.5) < 0.5 * largest(frobenius, 1.5)
    assert largest(spectral, 1.5) < 0.05 * largest(weight * mask, 1.5)


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_no_result_is_worse_than_what_was_given(norm, density, scale):
    for seed, shape in enumerate([(10, 30), (30, 10), (12, 12)]):
        weight, mask = problem(shape, density, seed)
        given = scale * weight * mask
        result = approximate_isometry(scale * weight, mask, norm=norm)
        measure = largest if norm == "spectral" else lambda w: float(isometry_loss(w))
        assert measure(result) <= measure(given) * (1 + 1e-5)


def test_where_no_isometry_is_possible_the_spectral_norm_is_one_and_the_rest_is_still_mended():
    """Two rows share their only column, one keeps nothing; the others can be brought to 1."""
    weight, mask = problem((8, 12), density=0.6)
    mask[:3] = False
    mask[:2, 0] = True
    result = approximate_isometry(weight, mask, norm="spectral")
    assert largest(result) == pytest.approx(1, rel=1e-5)
    values = torch.linalg.svdvals(result)
    torch.testing.assert_close(values[:6], torch.ones(6, dtype=torch.float64), rtol=0, atol=0.03)
    assert float(values[6:].abs().max()) < 1e-6


def test_spectral_groups_are_matrices_of_their_own():
    weight = torch.randn(8, 3, 2, 2, generator=seeded(), dtype=torch.float64)
    mask = torch.rand(8, 3, 2, 2, generator=seeded(1)) < 0.7
    result = approximate_isometry(weight, mask, groups=2, norm="spectral")
    assert all(largest(half.flatten(1)) < 0.02 for half in result.split(4))


def test_nothing_kept_with_the_spectral_norm():
    weight, mask = problem()
    assert torch.count_nonzero(approximate_isometry(weight, torch.zeros_like(mask), norm="spectral")) == 0


def test_an_unknown_norm_is_refused():
    with pytest.raises(InputError, match="norm is 'nuclear'; choices: frobenius, spectral"):
        approximate_isometry(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool), norm="nuclear")


# Stacked matrices


@pytest.mark.parametrize(
    ("module", "name", "parts"),
    [
        (nn.LSTM(3, 5), "weight_ih_l0", 4),
        (nn.LSTM(3, 5, proj_size=2), "weight_hr_l0", 1),
        (nn.GRU(3, 5, bidirectional=True), "weight_hh_l0_reverse", 3),
        (nn.GRUCell(3, 5), "weight_ih", 3),
        (nn.RNN(3, 5), "weight_hh_l0", 1),
        (nn.MultiheadAttention(6, 2), "in_proj_weight", 3),
        (nn.Conv2d(4, 8, 3, groups=2), "weight", 2),
        (nn.Linear(3, 5), "weight", 1),
    ],
)
def test_stacked_weights(module, name, parts):
    assert stacked(module, name) == parts
    assert module.get_parameter(name).shape[0] % parts == 0


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_each_gate_of_a_recurrent_layer_is_made_isometric(norm):
    model = nn.Sequential()
    model.add_module("rnn", nn.LSTM(6, 5))
    layers = [
        Layer(f"rnn.{name}", (20, n), parameter=f"rnn.{name}") for name, n in (("weight_ih_l0", 6), ("weight_hh_l0", 5))
    ]
    scores = {layer.name: torch.rand(layer.shape, generator=seeded(1)) for layer in layers}
    masks = choose(scores, Densities(tuple(layers), (100, 80)), generator=seeded())
    weights = [model.get_parameter(layer.parameter) for layer in layers]
    for weight in weights:
        weight.data.copy_(torch.randn(weight.shape, generator=seeded(2)))
    enforce_isometry(model, masks, nonlinearity="tanh", norm=norm)
    audit(model, masks)
    for weight in weights:
        for gate in weight.detach().split(5):
            assert largest(gate) < 0.1
