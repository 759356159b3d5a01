"""Critical fixed points against scipy's integrals, a wide random layer, and the closed forms that there are."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special

from snas.errors import InputError
from snas.initialization.mean_field import NONLINEARITIES, fixed_point, moments
from snas.initialization.variance import GAINS, isometric_gain, semi_orthogonal

ALPHA, LAMBDA = 1.6732632423543772, 1.0507009873554805
# Nonlinearity and derivative, written out.
PAIRS = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    "relu": (lambda z: max(z, 0.0), lambda z: float(z > 0)),
    "srelu": (lambda z: max(z, 0.2 * z), lambda z: 1.0 if z > 0 else 0.2),
    "elu": (lambda z: z if z > 0 else math.expm1(z), lambda z: 1.0 if z > 0 else math.exp(z)),
    "selu": (
        lambda z: LAMBDA * (z if z > 0 else ALPHA * math.expm1(z)),
        lambda z: LAMBDA * (1.0 if z > 0 else ALPHA * math.exp(z)),
    ),
    "gelu": (
        lambda z: z * special.ndtr(z),
        lambda z: special.ndtr(z) + z * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi),
    ),
    "swish": (
        lambda z: z * special.expit(z),
        lambda z: special.expit(z) * (1 + z * special.expit(-z)),
    ),
}


def expectation(function, deviation):
    """E[f(deviation z)^2], adaptively, apart on either side of zero."""
    total = 0.0
    for low, high in ((-15, 0), (0, 15)):
        total += integrate.quad(
            lambda z: function(deviation * z) ** 2 * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi),
            low,
            high,
            epsabs=1e-13,
            epsrel=1e-12,
        )[0]
    return total


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("variance", [0.01, 1.0, 45.0])
def test_moments_against_adaptive_quadrature(name, variance):
    expected = [expectation(function, math.sqrt(variance)) for function in PAIRS[name]]
    assert moments(name, variance) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "tanh"])
def test_both_equations_of_the_fixed_point_hold(name):
    point = fixed_point(name)
    signal, slope = (expectation(function, math.sqrt(point.variance)) for function in PAIRS[name])
    assert point.weight_deviation**2 * slope == pytest.approx(1, rel=1e-8)
    assert point.weight_deviation**2 * signal + point.bias_variance == pytest.approx(point.variance, rel=1e-8)
    assert point.bias_variance >= 0


def test_closed_forms():
    assert fixed_point("linear").weight_deviation == pytest.approx(1)
    assert fixed_point("relu").weight_deviation == pytest.approx(math.sqrt(2))
    assert fixed_point("prelu").weight_deviation == pytest.approx(math.sqrt(2 / (1 + 0.25**2)))
    # E[exp(2z); z < 0] = e^2 P(z < -2)
    slope = LAMBDA**2 * (0.5 + ALPHA**2 * math.exp(2) * special.ndtr(-2.0))
    assert fixed_point("selu").weight_deviation == pytest.approx(slope**-0.5)
    assert fixed_point("selu").bias_variance == pytest.approx(1 - 1 / slope)  # E[f^2] = 1 is what SELU is made for


def test_tanh_is_the_limit_of_small_signals():
    """chi = 1 at ever smaller q needs a sigma_w ever nearer to 1, and no bias."""
    point = fixed_point("tanh")
    for variance in (1e-2, 1e-4, 1e-6):
        signal, slope = moments("tanh", variance)
        assert slope**-0.5 == pytest.approx(point.weight_deviation, abs=variance)
        assert abs(variance - signal / slope) < 5 * variance**2
    assert (point.variance, point.bias_variance) == (0, 0)


@pytest.mark.parametrize("name", ["relu", "selu", "gelu", "sigmoid"])
def test_a_wide_layer_at_the_fixed_point_stays_there(name):
    """Monte Carlo: orthogonal weights with this gain keep the pre-activations' variance, and the gradients' norm."""
    point, width = fixed_point(name), 400
    generator = torch.Generator().manual_seed(0)
    h = math.sqrt(point.variance) * torch.randn(300, width, generator=generator, dtype=torch.float64)
    h.requires_grad_()
    x = NONLINEARITIES[name](h)
    weight = point.weight_deviation * semi_orthogonal(width, width, generator=generator).double()
    after = x @ weight.T
    assert float((after.detach() ** 2).mean()) + point.bias_variance == pytest.approx(point.variance, rel=0.03)
    error = torch.randn(300, width, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((after * error).sum(), h)
    assert float((gradient**2).sum() / (error**2).sum()) == pytest.approx(1, rel=0.03)


def test_every_nonlinearity_with_a_gain_has_a_fixed_point():
    assert set(NONLINEARITIES) == set(GAINS)
    for name in GAINS:
        assert isometric_gain(name) == fixed_point(name).weight_deviation > 0


def test_unknown_nonlinearities():
    with pytest.raises(InputError, match="unknown nonlinearity 'step'; choices: linear,"):
        isometric_gain("step")
