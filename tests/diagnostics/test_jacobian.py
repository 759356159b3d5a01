"""Singular values of the Jacobian: of linear networks, against autograd and finite differences, and at the extremes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from snas.diagnostics.jacobian import SingularValues, jacobian_statistics, singular_values
from snas.errors import InputError
from snas.initialization.variance import initialize


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perceptron(rule="glorot"):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    initialize(model, rule=rule, nonlinearity="tanh", generator=seeded())
    return model


def test_a_linear_network_has_its_products_values():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5))
    product = (model[1].weight @ model[0].weight).detach().double()
    values = singular_values(model, torch.randn(3, 6, generator=seeded()))
    assert values.dtype == torch.float64
    for row in values:
        torch.testing.assert_close(row[:4], torch.linalg.svdvals(product)[:4], rtol=1e-5, atol=0)
        assert row[4] < 1e-14


def test_against_finite_differences():
    model, x = perceptron().double(), torch.randn(4, 6, generator=seeded(), dtype=torch.float64)
    values, step = singular_values(model, x).numpy(), 1e-5
    for example, found in zip(x, values, strict=True):
        jacobian = np.zeros((3, 6))
        for feature in range(6):
            shift = torch.zeros(6, dtype=torch.float64)
            shift[feature] = step
            with torch.no_grad():
                difference = model((example + shift)[None]) - model((example - shift)[None])
            jacobian[:, feature] = difference[0].numpy() / (2 * step)
        assert found == pytest.approx(np.linalg.svd(jacobian, compute_uv=False), rel=1e-6)


def test_against_autograds_jacobian_with_images_and_batch_normalization():
    """Evaluation mode: an example's values do not depend on the others in its batch."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].running_mean.copy_(torch.tensor([0.1, -0.2]))
    assert model.training
    x = torch.randn(5, 1, 4, 4, generator=seeded())
    values = singular_values(model, x, batch=2)
    assert model.training
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in model.parameters())
    model.eval().double()
    for example, found in zip(x.double(), values, strict=True):
        jacobian = torch.func.jacrev(lambda image: model(image[None])[0])(example).reshape(3, 16)
        torch.testing.assert_close(found, torch.linalg.svdvals(jacobian))


def test_more_outputs_than_inputs():
    model = nn.Linear(2, 5)
    values = singular_values(model, torch.zeros(3, 2))
    assert values.shape == (3, 2)
    torch.testing.assert_close(values[0], torch.linalg.svdvals(model.weight.detach().double()))


def test_orthogonal_weights_are_dynamically_isometric_where_tanh_is_linear():
    small = jacobian_statistics(perceptron("orthogonal"), 1e-4 * torch.randn(8, 6, generator=seeded()))
    assert small.mean == pytest.approx(1, abs=1e-6)
    assert small.condition == pytest.approx(1, abs=1e-5)
    large = jacobian_statistics(perceptron("orthogonal"), 10 * torch.randn(8, 6, generator=seeded()))
    assert large.mean < 0.6
    assert large.condition > 10


def test_statistics_by_hand():
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    found = jacobian_statistics(model, torch.zeros(4, 2))
    assert found == SingularValues(mean=2.0, std=1.0, largest=3.0, smallest=1.0, examples=4)
    assert found.condition == 3.0


def test_extremes_are_taken_over_all_examples():
    """y = x^2 / 2: the Jacobian is diag(x)."""

    class Square(nn.Module):
        def forward(self, x):
            return x**2 / 2

    found = jacobian_statistics(Square(), torch.tensor([[1.0, 2.0], [4.0, 8.0]]))
    assert (found.smallest, found.largest, found.condition) == (1.0, 8.0, 8.0)
    assert found.mean == 3.75


def test_disconnected_networks():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].weight.zero_()
    found = jacobian_statistics(model, torch.zeros(2, 3))
    assert found.mean == 0
    assert math.isnan(found.condition)
    with torch.no_grad():
        model[1].weight[0, 0] = 1
    assert jacobian_statistics(model, torch.zeros(2, 3)).condition == math.inf


def test_outputs_that_ignore_the_input():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 2, dtype=x.dtype)

    assert torch.count_nonzero(singular_values(Constant(), torch.zeros(2, 3))) == 0


def test_recurrent_networks():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1])

    model, x = Rows(), torch.randn(3, 5, 3, generator=seeded())
    values = singular_values(model, x, batch=2)
    model.double()
    for example, found in zip(x.double(), values, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda rows: model(rows[None])[0], example).reshape(2, 15)
        torch.testing.assert_close(found, torch.linalg.svdvals(jacobian))


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Linear(2, 2), torch.zeros(0, 2), "0 examples"),
        (
            nn.Conv1d(1, 1, 1),
            torch.zeros(2, 1, 3),
            r"returns \(2, 1, 3\) for 2 examples; expected shape \(batch, outputs\)",
        ),
        (nn.LSTM(2, 2), torch.zeros(2, 2), "returns tuple"),
    ],
)
def test_what_cannot_be_measured(model, x, message):
    with pytest.raises(InputError, match=message):
        singular_values(model, x)


def test_derivatives_that_are_not_finite():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    with pytest.raises(InputError, match="not finite"):
        singular_values(Root(), torch.zeros(1, 2))
