import pytest
import torch

from snas import InputError
from snas.search_spaces import open_space
from snas.search_spaces.lenet import LeNet5, LeNet300

MNIST = (1, 28, 28)


def test_lenet_300_100():
    space = open_space("lenet-300-100", input_shape=MNIST, classes=10)
    assert space.total_weights == 266_200
    assert [layer.shape for layer in space.layers] == [(300, 784), (100, 300), (10, 100)]
    assert space.densities([1, 1, 1]).flops == 2 * 266_200
    assert (space.learning_rate, space.nonlinearity) == (0.1, "relu")
    assert open_space("lenet-300-100", input_shape=(5,), classes=2).layers[0].shape == (300, 5)


def test_lenet_5_caffe_and_its_flops_by_hand():
    space = open_space("lenet-5-caffe", input_shape=MNIST, classes=10)
    assert [layer.total for layer in space.layers] == [500, 25_000, 400_000, 5_000]
    assert space.total_weights == 430_500
    # 28 - 4 = 24, pooled 12, 12 - 4 = 8
    assert space.densities([1, 1, 1, 1]).flops == 2 * (500 * 24 * 24 + 25_000 * 8 * 8 + 400_000 + 5_000)
    assert space.learning_rate == 0.02


@pytest.mark.parametrize("size", [(13, 13), (13, 20), (14, 17), (32, 32)])
def test_lenet_5_of_other_sizes(size):
    space = open_space("lenet-5-caffe", input_shape=(3, *size), classes=4)
    model = space.build(generator=torch.Generator().manual_seed(0))
    assert model(torch.zeros(2, 3, *size)).shape == (2, 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 8), "space 'lenet-5-caffe' takes images of at least 13x13 pixels; the data has 8x8"),
        ((1, 12, 28), "at least 13x13 pixels; the data has 12x28"),
        ((784,), "space 'lenet-5-caffe' takes images"),
    ],
)
def test_lenet_5_of_wrong_data(shape, message):
    with pytest.raises(InputError, match=message):
        open_space("lenet-5-caffe", input_shape=shape, classes=10)


@pytest.mark.parametrize(
    ("make", "shape"), [(lambda: LeNet300(30, 4), (5, 6)), (lambda: LeNet5(2, 14, 14, 4), (2, 14, 14))]
)
def test_gradients_reach_every_parameter(make, shape):
    torch.manual_seed(0)
    model = make()
    out = model(torch.randn(8, *shape))
    assert out.shape == (8, 4)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_lenet_300_100_by_hand():
    torch.manual_seed(0)
    model, x = LeNet300(6, 3), torch.randn(4, 6)
    with torch.no_grad():
        hidden = (x @ model.fc1.weight.T + model.fc1.bias).clamp(min=0)
        hidden = (hidden @ model.fc2.weight.T + model.fc2.bias).clamp(min=0)
        torch.testing.assert_close(model(x), hidden @ model.fc3.weight.T + model.fc3.bias)
