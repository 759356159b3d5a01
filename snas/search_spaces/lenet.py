"""The two small networks on which pruning methods are compared ([Lee2019] section 5.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_image, spaces

SMALLEST_IMAGE = 13  # the second 5x5 convolution needs 5 pixels: 13 - 4 = 9, halved and rounded up: 5


class LeNet300(nn.Module):
    """Three linear layers, with 300 and 100 hidden units."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, *any shape) to (batch, classes)."""
        x = F.relu(self.fc1(x.flatten(1)))
        out: Tensor = self.fc3(F.relu(self.fc2(x)))
        return out


class LeNet5(nn.Module):
    """Two 5x5 convolutions, each followed by 2x2 max-pooling, and two linear layers."""

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)  # as Caffe rounds
        self.fc1 = nn.Linear(50 * _pooled(_pooled(height)) * _pooled(_pooled(width)), 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        out: Tensor = self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))
        return out


def _pooled(side: int) -> int:
    """Pixels that a 5x5 convolution and 2x2 pooling leave of `side`."""
    return (side - 4 + 1) // 2


@spaces.register("lenet-300-100")
def lenet_300_100(input_shape: Sequence[int], classes: int) -> SearchSpace:
    """LeNet-300-100: three linear layers with ReLU; 266,200 weights on MNIST.

    Args:
        input_shape: shape of one example; flattened.
        classes: number of classes.

    Example:
        >>> [layer.total for layer in lenet_300_100((1, 28, 28), 10).layers]
        [235200, 30000, 1000]
    """
    inputs = math.prod(input_shape)
    return SearchSpace.from_model(
        Alike(lambda: LeNet300(inputs, classes)), input_shape=input_shape, name="lenet-300-100", learning_rate=0.1
    )


@spaces.register("lenet-5-caffe")
def lenet_5_caffe(input_shape: Sequence[int], classes: int) -> SearchSpace:
    """LeNet-5 as in Caffe's example: 20 and 50 5x5 filters, 500 hidden units; 430,500 weights on MNIST.

    Every hidden layer is followed by ReLU, where Caffe's example has one after the hidden linear layer only. The
    default learning rate is 0.02: at 0.1, as in [Lee2019], the dense network stays at chance on MNIST from He weights.

    Args:
        input_shape: (channels, height, width) of one image, at least 13 x 13 pixels.
        classes: number of classes.

    Raises:
        InputError: for data that are not images, or too small.

    Example:
        >>> [layer.total for layer in lenet_5_caffe((1, 28, 28), 10).layers]
        [500, 25000, 400000, 5000]
    """
    channels, height, width = require_image(input_shape, "lenet-5-caffe", smallest=SMALLEST_IMAGE)
    return SearchSpace.from_model(
        Alike(lambda: LeNet5(channels, height, width, classes)),
        input_shape=input_shape,
        name="lenet-5-caffe",
        learning_rate=0.02,
    )
