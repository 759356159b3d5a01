"""Initial weights have the scale, the structure and, masked, the variance that they promise."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from snas.densities import Densities, Layer
from snas.errors import InputError
from snas.initialization import RULES, parse_rule, require_rule
from snas.initialization.variance import (
    delta_orthogonal,
    gain,
    initialize,
    orthogonal_kernel,
    rescale_by_fan_in,
    semi_orthogonal,
    truncated_normal,
)
from snas.masks import Masks, choose


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(module, rule, nonlinearity="relu"):
    initialize(module, rule=rule, nonlinearity=nonlinearity, generator=seeded())
    return module.weight.detach()


# Rules


@pytest.mark.parametrize(
    ("rule", "linear", "convolution"),
    [
        # fan-in and fan-out: 200 and 300; 16 * 9 = 144 and 64 * 9 = 576
        ("he", math.sqrt(2 / 200), math.sqrt(2 / 144)),
        ("glorot", math.sqrt(2 / 500), math.sqrt(2 / 720)),
        ("lecun", math.sqrt(1 / 200), math.sqrt(1 / 144)),
        ("normal", 0.1, 0.1),
        ("normal:0.02", 0.02, 0.02),
        ("truncated", 0.1, 0.1),
        ("truncated:3", 3.0, 3.0),
    ],
)
def test_standard_deviations(rule, linear, convolution):
    assert float(drawn(nn.Linear(200, 300), rule).std()) == pytest.approx(linear, rel=0.02)
    assert float(drawn(nn.Conv2d(16, 64, 3), rule).std()) == pytest.approx(convolution, rel=0.03)


@pytest.mark.parametrize("rule", ["he", "glorot", "lecun"])
def test_truncated_forms_have_the_rules_deviation_and_no_tails(rule):
    plain, cut = (drawn(nn.Linear(300, 400), name) for name in (rule, f"{rule}-truncated"))
    assert float(cut.std()) == pytest.approx(float(plain.std()), rel=0.01)
    assert float(cut.abs().max()) < 2.2737 * float(plain.std()) < float(plain.abs().max())


def test_truncated_normals_are_those_of_scipy():
    draws = truncated_normal((50_000,), generator=seeded()).double().numpy()
    law = stats.truncnorm(-2, 2, scale=1 / stats.truncnorm(-2, 2).std())
    assert law.std() == pytest.approx(1)
    assert stats.kstest(draws, law.cdf).pvalue > 0.01


@pytest.mark.parametrize(
    "rule", ["normal:", "normal:0", "normal:-1", "normal:x", "truncated:nan", "he:0.1", "normal:inf"]
)
def test_rules_with_a_wrong_number(rule):
    with pytest.raises(InputError, match=r"^init is '.*'; choices: he, .*; also normal:STD or truncated:STD"):
        require_rule(rule)


def test_rules_are_parsed_in_one_place():
    assert parse_rule("normal") == ("normal", 0.1)
    assert parse_rule("truncated:2e-3") == ("truncated", 0.002)
    assert parse_rule("orthogonal-full") == ("orthogonal-full", None)
    for rule in RULES:
        require_rule(rule)


def test_groups_count_in_both_fans():
    """8 channels in 4 groups: each output sees 2 channels, each input feeds 40 / 4 outputs, over 49 taps."""
    assert float(drawn(nn.Conv2d(8, 40, 7, groups=4), "he").std()) == pytest.approx(math.sqrt(2 / 98), rel=0.05)
    weight = drawn(nn.Conv2d(8, 40, 7, groups=4), "glorot")
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (98 + 490)), rel=0.05)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "as-built"])
def test_every_weight_layer_is_drawn_and_biases_are_zero(rule):
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Linear(5, 3), nn.PReLU())
    others = {name: value.clone() for name, value in model.state_dict().items() if name[0] in "13"}
    state = torch.random.get_rng_state()
    for module in (model[0], model[2]):
        module.weight.data.fill_(7)
    initialize(model, rule=rule, nonlinearity="relu", generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), state)
    for module in (model[0], model[2]):
        assert (module.weight != 7).all()
        assert (module.bias == 0).all()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in others.items())


def test_as_built_changes_nothing():
    model = nn.Linear(3, 3)
    before = model.weight.clone(), model.bias.clone()
    initialize(model, rule="as-built", nonlinearity="relu", generator=seeded())
    assert torch.equal(model.weight, before[0])
    assert torch.equal(model.bias, before[1])


def test_a_shared_weight_is_drawn_once():
    first, second, third = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
    plain = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    second.weight = first.weight
    for model in (nn.Sequential(first, second, third), plain):
        initialize(model, rule="he", nonlinearity="relu", generator=seeded())
    assert torch.equal(third.weight, plain[1].weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "xavier", "nonlinearity": "relu"}, "unknown initialization 'xavier'; choices: he,"),
        ({"rule": "he", "nonlinearity": "step"}, "unknown nonlinearity 'step'; choices: linear,"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(InputError, match=message):
        initialize(nn.Linear(2, 2), **arguments, generator=seeded())


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("linear", lambda z: z),
        ("relu", functional.relu),
        ("leaky_relu", functional.leaky_relu),
        ("prelu", lambda z: functional.leaky_relu(z, 0.25)),
        ("srelu", lambda z: functional.leaky_relu(z, 0.2)),
        ("elu", functional.elu),
        ("selu", functional.selu),
        ("swish", functional.silu),
        ("silu", functional.silu),
        ("gelu", functional.gelu),
    ],
)
def test_gains_give_back_what_the_nonlinearity_takes(name, function):
    """The second moment of f(z) for a standard normal z, by quadrature."""
    z = torch.linspace(-9, 9, 180_001, dtype=torch.float64)
    weights = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    moment = float((function(z) ** 2 * weights).sum())
    assert gain(name) == pytest.approx(1 / math.sqrt(moment), rel=1e-4)


# Orthogonal


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (7, 3), (3, 7), (1, 4), (1, 1)])
def test_semi_orthogonal_matrices(rows, columns):
    matrix = semi_orthogonal(rows, columns, generator=seeded())
    assert matrix.shape == (rows, columns)
    torch.testing.assert_close(torch.linalg.svdvals(matrix), torch.ones(min(rows, columns)))


def test_semi_orthogonal_signs_are_even():
    """Without the choice of signs, QR has a preferred orientation."""
    entries = torch.stack([semi_orthogonal(2, 2, generator=seeded(seed))[0, 0] for seed in range(200)])
    assert 70 < int((entries > 0).sum()) < 130


@pytest.mark.parametrize(
    ("nonlinearity", "expected"), [("linear", 1.0), ("tanh", 1.0), ("relu", math.sqrt(2)), ("selu", 0.966026)]
)
def test_orthogonal_weights_have_the_gain_of_mean_field_theory(nonlinearity, expected):
    for rule in ("orthogonal", "orthogonal-full"):
        weight = drawn(nn.Linear(6, 4), rule, nonlinearity)
        torch.testing.assert_close(torch.linalg.svdvals(weight), torch.full((4,), expected))


def test_tanh_keeps_its_conventional_gain_elsewhere():
    assert float(drawn(nn.Linear(200, 300), "he", "tanh").std()) == pytest.approx(5 / 3 / math.sqrt(200), rel=0.02)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (4, 8, 3, 3), (4, 4, 5), (6, 3, 1, 1), (2, 2, 3, 3, 3), (3, 3, 2)])
def test_delta_orthogonal_is_a_block_at_the_centre(shape):
    kernel = delta_orthogonal(shape, generator=seeded())
    centre = kernel[(..., *[(size - 1) // 2 for size in shape[2:]])]
    torch.testing.assert_close(torch.linalg.svdvals(centre), torch.ones(min(shape[:2])))
    assert torch.count_nonzero(kernel) == shape[0] * shape[1]


def circular(x, kernel):
    """The full circular convolution, by the Fourier transform."""
    axes = tuple(range(2, x.ndim))
    spectrum = torch.fft.fftn(kernel, s=x.shape[2:], dim=axes)
    return torch.fft.ifftn(torch.einsum("oi...,bi...->bo...", spectrum, torch.fft.fftn(x, dim=axes)), dim=axes).real


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (5, 5, 4), (6, 3, 1, 1), (3, 2, 3, 2, 3), (7, 7, 1, 5)])
@pytest.mark.parametrize("draw", [delta_orthogonal, orthogonal_kernel])
def test_orthogonal_convolutions_preserve_norms(shape, draw):
    x = torch.randn(3, shape[1], *[6] * (len(shape) - 2), generator=seeded(1))
    y = circular(x, draw(shape, generator=seeded()))
    torch.testing.assert_close(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


@pytest.mark.parametrize("draw", [delta_orthogonal, orthogonal_kernel])
def test_orthogonal_convolutions_to_fewer_channels_preserve_norms_backwards(draw):
    y = torch.randn(3, 4, 6, 6, generator=seeded(1))
    kernel = draw((4, 8, 3, 3), generator=seeded())
    x = circular(y, kernel.transpose(0, 1).flip(2, 3))
    torch.testing.assert_close(x.flatten(1).norm(dim=1), y.flatten(1).norm(dim=1))


def test_orthogonal_kernels_use_every_tap():
    kernel = orthogonal_kernel((8, 8, 3, 3), generator=seeded())
    assert (kernel.square().sum((0, 1)) > 0.05).all()


@pytest.mark.parametrize("rule", ["orthogonal", "orthogonal-full"])
def test_groups_are_orthogonal_each(rule):
    weight = drawn(nn.Conv2d(8, 12, 3, groups=4), rule, "linear")
    for block in weight.split(3):
        y = circular(torch.ones(1, 2, 5, 5), block)
        assert float(y.norm()) == pytest.approx(math.sqrt(2 * 25), rel=1e-4)


# Rescaling


def random_masks(layer, density, seed=0):
    kept = round(density * layer.total)
    # Not the seed that weights are drawn from: the mask would not be independent of them.
    scores = {layer.name: torch.rand(layer.shape, generator=seeded(1000 + seed))}
    return choose(scores, Densities((layer,), (kept,)), generator=seeded(seed))


@pytest.mark.parametrize("density", [0.5, 0.2, 0.05])
@pytest.mark.parametrize("shape", [(100, 200), (20, 12, 3, 3)])
def test_rescaling_restores_the_variance(shape, density):
    """Pre-activations of the masked layer have the dense layer's variance, and without rescaling they do not."""
    if len(shape) == 2:
        model, x = nn.Sequential(nn.Linear(*shape[::-1])), torch.randn(400, shape[1], generator=seeded(5000))
    else:
        model, x = (
            nn.Sequential(nn.Conv2d(shape[1], shape[0], 3)),
            torch.randn(60, shape[1], 8, 8, generator=seeded(5000)),
        )
    layer = Layer("0", shape)
    variances = {"dense": [], "masked": [], "rescaled": []}
    with torch.no_grad():
        for seed in range(8):
            masks = random_masks(layer, density, seed)
            for kind, variance in variances.items():
                initialize(model, rule="he", nonlinearity="relu", generator=seeded(seed))
                if kind == "rescaled":
                    rescale_by_fan_in(model, masks)
                elif kind == "masked":
                    masks.apply(model)
                variance.append(float(model(x).var()))
    dense, masked, rescaled = (np.mean(variances[kind]) for kind in ("dense", "masked", "rescaled"))
    assert dense == pytest.approx(2.0, rel=0.05)
    # Units that keep nothing carry no signal and cannot be rescued.
    assert rescaled == pytest.approx(dense * alive(layer, density), rel=0.1)
    assert masked == pytest.approx(density * dense, rel=0.15)


def alive(layer, density):
    return np.mean(
        [float(random_masks(layer, density, seed)["0"].flatten(1).any(1).float().mean()) for seed in range(8)]
    )


def test_rescaling_by_hand():
    model = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [1, 1, 1, 1]]))
    keep = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    rescale_by_fan_in(model, Masks([Layer("fc", (3, 4), parameter="weight")], {"fc": keep}))
    # sqrt(4 / 1) = 2; all kept: unchanged; none kept: zero
    assert model.weight.tolist() == [[2, 0, 0, 0], [5, 6, 7, 8], [0, 0, 0, 0]]


def test_rescaling_a_delta_orthogonal_kernel_counts_its_centre_only():
    """Where the whole centre is kept nothing is lost, and nothing must be scaled."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False))
    weight = drawn(model[0], "orthogonal").clone()
    centre = torch.zeros(4, 4, 3, 3, dtype=torch.bool)
    centre[:, :, 1, 1] = True
    rescale_by_fan_in(model, Masks([Layer("0", (4, 4, 3, 3))], {"0": centre}))
    assert torch.equal(model[0].weight, weight)


def test_rescaling_overshoots_where_the_mask_keeps_large_weights():
    """The known limit of the rule: it takes kept weights for a fair sample."""
    model, layer = nn.Sequential(nn.Linear(400, 100)), Layer("0", (100, 400))
    weight = drawn(model[0], "he")
    dense = float(weight.square().sum())
    masks = choose({"0": weight.abs()}, Densities((layer,), (4000,)), generator=seeded())
    rescale_by_fan_in(model, masks)
    assert float(model[0].weight.detach().square().sum()) > 3 * dense
