"""A Gaussian process for many dimensions: its settings are fitted with exact gradients.

The model is that of [Hvarfner2024]: k(x, x') = exp(-sum_i (x_i - x'_i)^2 / (2 l_i^2)), a constant mean and inferred
noise, of values with mean 0 and standard deviation 1. The prior of a length scale grows with the root of the number of
dimensions, so that distant points of a large cube still say something of each other. BoTorch has the same model; it is
fitted here because that takes a fraction of the time: the gradient needs one inverse and no graph.

Source:
    [Hvarfner2024] C. Hvarfner, E. O. Hellsten, L. Nardi: Vanilla Bayesian optimization performs great in high
    dimensions, ICML 2024, section 4: log l ~ Normal(sqrt 2 + log(d) / 2, 3), log noise ~ Normal(-4, 1), the second
    number being a variance and a standard deviation, as BoTorch has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SHORTEST, LONGEST = 0.025, 1e3  # length scales, in sides of the cube
QUIETEST, LOUDEST = 1e-4, 4.0  # variances of the noise, in variances of the values


@dataclass(frozen=True)
class Fitted:
    """Settings of a Gaussian process.

    Attributes:
        lengths: length scale of each dimension, shape (dimensions,).
        noise: variance of the noise.
        mean: value far from all points.
    """

    lengths: Array
    noise: float
    mean: float


def fit(points: Array, values: Array, *, steps: int = 50) -> Fitted:
    """The most probable settings, found by L-BFGS-B from the prior's mode.

    Args:
        points: shape (n, dimensions), in the unit cube.
        values: shape (n,), with mean 0 and standard deviation about 1.
        steps: of the optimizer, at most.

    Example:
        >>> points = np.random.default_rng(0).random((30, 2))
        >>> fitted = fit(points, np.sin(6 * points[:, 0]))
        >>> bool(fitted.noise < 0.01 and fitted.lengths[0] < fitted.lengths[1])
        True
    """
    from scipy.optimize import minimize

    dimensions = points.shape[1]
    start = np.append(np.full(dimensions, _center(dimensions) - 3.0), -5.0)
    low = np.append(np.full(dimensions, math.log(SHORTEST)), math.log(QUIETEST))
    high = np.append(np.full(dimensions, math.log(LONGEST)), math.log(LOUDEST))
    found = minimize(
        negative_log_posterior,
        np.clip(start, low, high),
        args=(points, values),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        options={"maxiter": steps},
    )
    settings = np.clip(np.asarray(found.x), low, high)
    lengths, noise = np.exp(settings[:-1]), math.exp(settings[-1])
    _, inverse = _factors(kernel(points, points, lengths), noise)
    return Fitted(lengths, noise, _mean(inverse, values))


def negative_log_posterior(settings: Array, points: Array, values: Array) -> tuple[float, Array]:
    """Minus the logarithm of the posterior density of settings, over the number of points, and its gradient.

    With K the kernel matrix with noise, a = K^-1 (y - mean) and W = K^-1 - a a^T, the derivative of the likelihood's
    part by a setting t is tr(W dK/dt) / 2 ([Rasmussen2006] eq. 5.9). The mean is the best one for the settings
    (generalized least squares), and adds nothing to the gradient because it is.

    Args:
        settings: logarithms of the length scales and of the noise's variance, shape (dimensions + 1,).
        points: shape (n, dimensions).
        values: shape (n,).
    """
    lengths, noise = np.exp(settings[:-1]), math.exp(settings[-1])
    clean = kernel(points, points, lengths)
    log_determinant, inverse = _factors(clean, noise)
    left = values - _mean(inverse, values)
    weights = inverse @ left
    value = 0.5 * (float(left @ weights) + log_determinant + len(values) * math.log(2 * math.pi))
    slope = inverse - np.outer(weights, weights)
    scaled, shares = points / lengths, slope * clean
    gradient = np.empty_like(settings)
    # sum over pairs of shares * (difference)^2 / 2, without a tensor of all differences
    gradient[:-1] = shares.sum(axis=1) @ scaled**2 - (scaled * (shares @ scaled)).sum(axis=0)
    gradient[-1] = 0.5 * noise * np.trace(slope)
    of_lengths = settings[:-1] - _center(len(lengths))
    of_noise = settings[-1] + 4.0
    # Both priors are densities of the settings themselves: the logarithm's derivative is the last term of each.
    value += float((of_lengths**2).sum() / 6 + settings[:-1].sum() + of_noise**2 / 2 + settings[-1])
    gradient[:-1] += of_lengths / 3 + 1
    gradient[-1] += of_noise + 1
    return value / len(values), gradient / len(values)


def kernel(points: Array, others: Array, lengths: Array) -> Array:
    """Covariances of points, shape (n, dimensions), with others, shape (m, dimensions): shape (n, m)."""
    a, b = points / lengths, others / lengths
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.exp(-0.5 * np.maximum(squares, 0.0)))


def _center(dimensions: int) -> float:
    return math.sqrt(2) + 0.5 * math.log(dimensions)


def _factors(clean: Array, noise: float) -> tuple[float, Array]:
    """Logarithm of the determinant, and the inverse, of the kernel matrix with noise."""
    from scipy.linalg.lapack import dpotrf, dpotri

    factor, _ = dpotrf(clean + noise * np.eye(len(clean)), lower=1)
    half, _ = dpotri(factor, lower=1)
    lower = np.tril(half)
    return 2 * float(np.log(np.diag(factor)).sum()), lower + np.tril(lower, -1).T


def _mean(inverse: Array, values: Array) -> float:
    weights = inverse.sum(axis=0)
    return float(weights @ values / weights.sum())
