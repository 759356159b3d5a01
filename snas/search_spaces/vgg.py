"""Networks of 3x3 convolutions and 2x2 pooling ([Simonyan2015]), adapted to small images.

Weights, that is without biases and BatchNorm, of a network for CIFAR-10, and what [Lee2020b] prints:

    vgg-c      10,521,280    10.5m    configuration C: the third convolution of a stage is 1x1; two hidden linear layers
    vgg-d      15,239,872    15.2m    configuration D, all 3x3; two hidden linear layers
    vgg-like   14,977,728    15.0m    configuration D with one hidden linear layer ([Zagoruyko2015])
    vgg16      14,715,584             configuration D with the classifier alone

The hidden linear layers have 512 units, and every layer but the last one has BatchNorm. vgg16 and vgg16-bn are the
network that the field calls VGG-16 on CIFAR: thirteen convolutions and one linear layer, without and with BatchNorm.
The "VGG16" of [Lee2020b] table 4.2 is another one: the code published with it has configuration C and three linear
layers, which is vgg-c here. Its table 3.4, for 200 classes, repeats the counts of 10 classes.

[Simonyan2015] Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, table 1.
[Zagoruyko2015] Zagoruyko, 92.45% on CIFAR-10 in Torch.
[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020,
tables 3.2 and 3.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_image, require_whole, spaces
from snas.search_spaces.plain import by_stage, conv_stage, divided, plain_network

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@dataclass(frozen=True)
class Variant:
    """What one of the networks has.

    Attributes:
        third: side of the third kernel of a stage.
        hidden: linear layers of 512 units before the classifier.
        batch_norm: whether every layer but the last one is normalized.
        learning_rate: default for training.
        help: one line for the user.
    """

    third: int
    hidden: int
    batch_norm: bool
    learning_rate: float
    help: str


VARIANTS = {
    "vgg-c": Variant(
        1, 2, True, 0.1, "VGG-C for small images: thirteen convolutions, three of them 1x1, three linear."
    ),
    "vgg-d": Variant(3, 2, True, 0.1, "VGG-D for small images: thirteen 3x3 convolutions, three linear layers."),
    "vgg-like": Variant(3, 1, True, 0.1, "VGG-like for small images: thirteen 3x3 convolutions, two linear layers."),
    "vgg16": Variant(3, 0, False, 0.01, "VGG-16 for small images: thirteen 3x3 convolutions, one linear layer."),
    "vgg16-bn": Variant(3, 0, True, 0.1, "VGG-16 for small images with BatchNorm."),
}


def vgg(input_shape: Sequence[int], classes: int, *, name: str, stride: int = 1) -> SearchSpace:
    """Return the VGG network called `name` as a space.

    Under representation "block" the convolutions of a stage share a density; each linear layer has its own.

    Args:
        input_shape: (channels, height, width) of one image, of any size: pooling rounds up, so that 28x28 and 8x8 end
            at one pixel as 32x32 does.
        classes: number of classes.
        name: a key of `VARIANTS`.
        stride: of the first convolution; [Lee2020b] takes 2 for images of 64x64.

    Raises:
        InputError: for data that are not images, or a stride below 1.

    Example:
        >>> space = vgg((3, 32, 32), 10, name="vgg-like")
        >>> [layer.shape for layer in space.layers][6:8], [layer.shape for layer in space.layers][-2:]
        ([(256, 256, 3, 3), (512, 256, 3, 3)], [(512, 512), (10, 512)])
    """
    variant = VARIANTS[name]
    channels, height, width = require_image(input_shape, name)
    require_whole("stride", stride, name)
    steps = (stride, *[2] * len(WIDTHS))
    features = WIDTHS[-1][-1] * divided(height, *steps) * divided(width, *steps)

    def build() -> nn.Sequential:
        stages = []
        inputs = channels
        for i, widths in enumerate(WIDTHS):
            kernels = (3, 3, variant.third)
            first = stride if i == 0 else 1
            stages.append(conv_stage(inputs, widths, kernels, stride=first, batch_norm=variant.batch_norm))
            inputs = widths[-1]
        hidden = [512] * variant.hidden
        return plain_network(stages, features=features, hidden=hidden, classes=classes, batch_norm=variant.batch_norm)

    return SearchSpace.from_model(
        Alike(build),
        input_shape=input_shape,
        name=name,
        groups=by_stage(len(WIDTHS)),
        arguments={"stride": stride},
        learning_rate=variant.learning_rate,
    )


def _register(name: str, variant: Variant) -> None:
    def factory(input_shape: Sequence[int], classes: int, *, stride: int = 1) -> SearchSpace:
        return vgg(input_shape, classes, name=name, stride=stride)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = variant.help
    spaces.register(name)(factory)


for _name, _variant in VARIANTS.items():
    _register(_name, _variant)
