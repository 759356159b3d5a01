"""The Gaussian process of bayes-hd: its posterior density and gradient against gpytorch's, and the fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from snas.strategies.dimension_scaled import LONGEST, fit, kernel, negative_log_posterior


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    points = rng.random((15, 4))
    values = np.sin(3 * points[:, 0]) + points[:, 1] + 0.1 * rng.normal(size=15)
    return points, (values - values.mean()) / values.std()


def test_the_kernel_is_that_of_loops():
    points, others = np.array([[0.1, 0.9], [0.4, 0.2]]), np.array([[0.3, 0.3]])
    lengths = np.array([0.5, 2.0])
    expected = [[np.exp(-sum((x - y) ** 2 / (2 * s**2) for x, y, s in zip(p, others[0], lengths, strict=True)))]
                for p in points]  # fmt: skip
    assert kernel(points, others, lengths) == pytest.approx(np.array(expected))


def test_the_posterior_density_and_its_gradient_are_those_of_botorch(data):
    """BoTorch's model has the same priors; its mean is set to the best one, at which the gradient by it vanishes."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of what its dependents still use
        from botorch.models import SingleTaskGP
        from botorch.settings import validate_input_scaling
        from gpytorch.mlls import ExactMarginalLogLikelihood

    points, values = data
    settings = np.log([0.3, 0.8, 1.5, 2.5, 0.05])
    covariance = kernel(points, points, np.exp(settings[:-1])) + 0.05 * np.eye(15)
    weights = np.linalg.solve(covariance, np.ones(15))
    with validate_input_scaling(False):
        model = SingleTaskGP(torch.tensor(points), torch.tensor(values)[:, None], outcome_transform=None)
    model.covar_module.lengthscale = torch.tensor(np.exp(settings[:-1]))
    model.likelihood.noise = torch.tensor([0.05], dtype=torch.float64)
    model.mean_module.constant = torch.tensor(weights @ values / weights.sum())
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()
    theirs = -likelihood(model(*model.train_inputs), model.train_targets)
    theirs.backward()

    def normalizer(mean: float, deviation: float) -> float:
        return np.log(deviation * np.sqrt(2 * np.pi))

    constants = 4 * normalizer(0, np.sqrt(3)) + normalizer(0, 1)  # which the priors have, and no gradient sees
    value, gradient = negative_log_posterior(settings, points, values)
    assert value + constants / 15 == pytest.approx(theirs.item())
    lengths = model.covar_module.raw_lengthscale.grad[0].numpy() * np.exp(settings[:-1])
    noise = float(model.likelihood.noise_covar.raw_noise.grad[0]) * 0.05
    assert gradient == pytest.approx([*lengths, noise], rel=1e-6)


def test_the_gradient_is_that_of_finite_differences(data):
    settings = np.log([0.3, 0.8, 1.5, 2.5, 0.05])
    numeric = [
        (negative_log_posterior(settings + h, *data)[0] - negative_log_posterior(settings - h, *data)[0]) / 2e-6
        for h in 1e-6 * np.eye(5)
    ]
    assert negative_log_posterior(settings, *data)[1] == pytest.approx(numeric, abs=1e-7)


def test_no_settings_nearby_are_more_probable_than_the_fitted_ones(data):
    fitted = fit(*data, steps=200)
    best = np.log([*fitted.lengths, fitted.noise])
    lowest = negative_log_posterior(best, *data)[0]
    rng = np.random.default_rng(1)
    assert all(negative_log_posterior(best + 0.05 * rng.normal(size=5), *data)[0] > lowest for _ in range(30))


def test_the_coordinates_that_matter_have_the_shorter_lengths(data):
    lengths = fit(*data).lengths
    assert max(lengths[:2]) < min(lengths[2:])


def test_the_noise_is_inferred():
    """Standard deviation 0.5 of the noise beside 1 of a line: of the standardized variance a fifth is noise."""
    rng = np.random.default_rng(3)
    x = rng.random((80, 2))
    values = (x[:, 0] - 0.5) * np.sqrt(12) + 0.5 * rng.normal(size=80)
    fitted = fit(x, (values - values.mean()) / values.std())
    assert fitted.noise == pytest.approx(0.2, rel=0.35)


def test_equal_points_and_equal_values_can_be_fitted():
    same = fit(np.full((6, 3), 0.5), np.array([1.0, -1.0, 1.0, -1.0, 0.5, -0.5]))
    flat = fit(np.random.default_rng(0).random((6, 3)), np.zeros(6))
    assert np.isfinite([*same.lengths, same.noise, same.mean, *flat.lengths, flat.noise, flat.mean]).all()
    assert max(flat.lengths) <= LONGEST
    assert flat.mean == 0.0
