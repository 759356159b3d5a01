import pytest
import torch

from snas import InputError
from snas.search_spaces.activations import SReLU, make_activation


def test_srelu_by_hand():
    unit = SReLU(2)
    with torch.no_grad():
        unit.lower.copy_(torch.tensor([-1.0, 0.0]))
        unit.lower_slope.copy_(torch.tensor([0.5, 0.1]))
        unit.upper.copy_(torch.tensor([2.0, 1.0]))
        unit.upper_slope.copy_(torch.tensor([3.0, 0.0]))
    x = torch.tensor([[-3.0, -3.0], [0.5, 0.5], [4.0, 4.0]])
    # -1 + 0.5 (-3 + 1) = -2; 0 + 0.1 (-3) = -0.3; between: x; 2 + 3 (4 - 2) = 8; 1 + 0 = 1
    torch.testing.assert_close(unit(x), torch.tensor([[-2.0, -0.3], [0.5, 0.5], [8.0, 1.0]]))


def test_srelu_slopes_and_thresholds_learn():
    unit = SReLU(1)
    with torch.no_grad():
        unit.upper_slope.fill_(0.5)
    unit(torch.tensor([[-2.0], [3.0]])).sum().backward()
    # lower slope: x - lower = -2; lower: 1 - 0.2; upper slope: x - upper = 2; upper: 1 - 0.5
    gradients = [getattr(unit, name).grad.item() for name in ("lower_slope", "lower", "upper_slope", "upper")]
    assert gradients == pytest.approx([-2.0, 0.8, 2.0, 0.5])


@pytest.mark.parametrize(
    ("name", "parameters", "at_minus_one"),
    [
        ("prelu", 1, -0.25),
        ("relu", 0, 0.0),
        ("swish", 0, -0.268941),
        ("elu", 0, -0.632121),
        ("srelu", 4 * 5, -0.2),
        ("sigmoid", 0, 0.268941),
        ("tanh", 0, -0.761594),
    ],
)
def test_activations_by_name(name, parameters, at_minus_one):
    activation = make_activation(name, 5)
    assert sum(parameter.numel() for parameter in activation.parameters()) == parameters
    torch.testing.assert_close(activation(-torch.ones(2, 5)), torch.full((2, 5), at_minus_one))


def test_unknown_activation():
    with pytest.raises(InputError, match="activation is 'gelu'; choices: prelu, relu, swish"):
        make_activation("gelu", 3)
