"""AlexNet for small images ([Lee2020b] table 3.5): strides of 2 in place of pooling, BatchNorm in place of dropout.

Weights of a network for CIFAR-10, and what [Lee2020b] table 3.2 prints:

    alexnet-s   5,066,784   5.1m   hidden linear layers of 1024 units
    alexnet-b   8,484,896   8.5m   of 2048 units

The source's text gives the linear layers 512 and 1024 units, its table 1024 k for k = 1 and 2. Only the table's give
the printed totals (512 and 1024 would be 4.1m and 5.1m), and its code has them too.

[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_image, require_whole, spaces
from snas.search_spaces.plain import divided, plain_network, unit

WIDTHS = (96, 256, 384, 384, 256)
KERNELS = (11, 5, 3, 3, 3)


def alexnet(input_shape: Sequence[int], classes: int, *, name: str, units: int, stride: int = 2) -> SearchSpace:
    """Return AlexNet as a space.

    Convolutions are padded by half their kernel, so that each halves the image, rounded up: 32x32 ends at one pixel,
    which the table's Linear [256, ...] demands. Under representation "block" the convolutions share a density; each
    linear layer has its own.

    Args:
        input_shape: (channels, height, width) of one image, of any size.
        classes: number of classes.
        name: how results are filed.
        units: of the two hidden linear layers.
        stride: of the first convolution; [Lee2020b] takes 4 for images of 64x64.

    Raises:
        InputError: for data that are not images, or a stride below 1.

    Example:
        >>> space = alexnet((3, 32, 32), 10, name="alexnet-s", units=1024)
        >>> [layer.shape for layer in space.layers][:2], [layer.shape for layer in space.layers][5:]
        ([(96, 3, 11, 11), (256, 96, 5, 5)], [(1024, 256), (1024, 1024), (10, 1024)])
    """
    channels, height, width = require_image(input_shape, name)
    require_whole("stride", stride, name)
    steps = (stride, *[2] * (len(WIDTHS) - 1))
    features = WIDTHS[-1] * divided(height, *steps) * divided(width, *steps)

    def build() -> nn.Sequential:
        sizes = zip((channels, *WIDTHS), WIDTHS, KERNELS, steps, strict=False)
        layers = [nn.Conv2d(i, o, kernel, step, padding=kernel // 2) for i, o, kernel, step in sizes]
        stage = nn.Sequential(*[unit(layer, batch_norm=True) for layer in layers])
        return plain_network([stage], features=features, hidden=[units] * 2, classes=classes, batch_norm=True)

    return SearchSpace.from_model(
        Alike(build),
        input_shape=input_shape,
        name=name,
        groups={"stage1.*": "stage1"},
        arguments={"stride": stride},
        learning_rate=0.1,
    )


@spaces.register("alexnet-s")
def alexnet_s(input_shape: Sequence[int], classes: int, *, stride: int = 2) -> SearchSpace:
    """AlexNet for small images, linear layers of 1024 units."""
    return alexnet(input_shape, classes, name="alexnet-s", units=1024, stride=stride)


@spaces.register("alexnet-b")
def alexnet_b(input_shape: Sequence[int], classes: int, *, stride: int = 2) -> SearchSpace:
    """AlexNet for small images, linear layers of 2048 units."""
    return alexnet(input_shape, classes, name="alexnet-b", units=2048, stride=stride)
