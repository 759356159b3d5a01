"""ResNet-8 of the studies of batch size: residual blocks that activate first, without BatchNorm.

[Shallue2019] Shallue, Lee, Antognini, Sohl-Dickstein, Frostig and Dahl, Measuring the Effects of Data Parallelism on
Neural Network Training, appendix B: the network of [He2016] section 4.2 with n = 1, the block of [He2016b], and no
BatchNorm. [He2016] has 1x1 convolutions nowhere on small images: where a block changes the shape, every other pixel is
taken and missing channels are zero (its option A).

[He2016] He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition.
[He2016b] He, Zhang, Ren and Sun, Identity Mappings in Deep Residual Networks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_image, spaces
from snas.search_spaces.resnet import PaddedShortcut

WIDTHS = (16, 32, 64)


class PlainBlock(nn.Module):
    """ReLU and a 3x3 convolution, twice, and a shortcut around them that has no weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = PaddedShortcut(outputs - inputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        out: Tensor = self.conv2(F.relu(self.conv1(F.relu(x)))) + self.shortcut(x)
        return out


@spaces.register("resnet-8")
def resnet_8(input_shape: Sequence[int], classes: int) -> SearchSpace:
    """ResNet-8 of the studies of batch size, without BatchNorm; 74,800 weights on CIFAR-10.

    Seven 3x3 convolutions with biases, global average pooling, a linear classifier. Under representation "block" the
    two convolutions of a residual block share a density; stem and classifier have their own.

    Args:
        input_shape: (channels, height, width) of one image, of any size.
        classes: number of classes.

    Raises:
        InputError: for data that are not images.

    Example:
        >>> [layer.shape for layer in resnet_8((3, 32, 32), 10).layers][3:6]
        [(32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]
    """
    channels, _, _ = require_image(input_shape, "resnet-8")

    def build() -> nn.Sequential:
        parts: list[tuple[str, nn.Module]] = [("stem", nn.Conv2d(channels, WIDTHS[0], 3, padding=1))]
        for i, (inputs, outputs) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False), 1):
            parts.append((f"block{i}", PlainBlock(inputs, outputs, 1 if i == 1 else 2)))
        parts += [("relu", nn.ReLU()), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
        return nn.Sequential(OrderedDict([*parts, ("classifier", nn.Linear(WIDTHS[-1], classes))]))

    return SearchSpace.from_model(
        Alike(build),
        input_shape=input_shape,
        name="resnet-8",
        groups={f"block{i}.*": f"block{i}" for i in (1, 2, 3)},
        learning_rate=0.01,
    )
