"""Residual networks for small images ([He2016] section 4.2), with 1x1 convolution shortcuts.

The widths are 16, 32 and 64; the names that end in "-x2" double them (resnet32-x2 with 100 classes is the 1.9M weight
"Resnet32" of [Tessera2021] table B.2).

[He2016] He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from snas.errors import InputError
from snas.search_spaces.base import SearchSpace, require_image, spaces

DEPTHS = (20, 32, 44, 56, 110)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the image's size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them: the identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            parts = {"conv": convolution(inputs, outputs, 1, stride), "norm": nn.BatchNorm2d(outputs)}
            self.shortcut = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem, three stages of basic blocks of width w, 2w and 4w, global average pooling, a linear classifier."""

    def __init__(self, channels: int, classes: int, blocks: int, width: int) -> None:
        super().__init__()
        self.stem = convolution(channels, width, 3)
        self.stem_norm = nn.BatchNorm2d(width)
        self.stage1 = self._stage(width, width, blocks, 1)
        self.stage2 = self._stage(width, 2 * width, blocks, 2)
        self.stage3 = self._stage(2 * width, 4 * width, blocks, 2)
        self.classifier = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        x = F.relu(self.stem_norm(self.stem(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        out: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return out


def resnet(input_shape: Sequence[int], classes: int, *, name: str, depth: int, width: int) -> SearchSpace:
    """Return the residual network of `depth` layers as a space.

    Layers are ordered as they are defined: in a block the first convolution, the second, the shortcut. Under
    representation "block" the layers of a residual block share a density; stem and classifier have their own.

    Args:
        input_shape: (channels, height, width) of one image, of any size.
        classes: number of classes.
        name: how results are filed.
        depth: 6 n + 2, with n blocks per stage.
        width: channels of the first stage.

    Raises:
        InputError: for data that are not images, or a width below 1.
    """
    channels, _, _ = require_image(input_shape, name)
    require_width(width, name)
    blocks = (depth - 2) // 6
    stages = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in range(blocks)]
    return SearchSpace.from_model(
        lambda: ResNet(channels, classes, blocks, width),
        input_shape=input_shape,
        name=name,
        groups={f"{block}.*": block for block in stages},
        arguments={"width": width},
        learning_rate=0.1,
    )


def require_width(width: int, name: str) -> None:
    """Raise InputError unless `width` is a positive integer."""
    if not isinstance(width, int) or width < 1:
        raise InputError(f"argument 'width' of space {name!r} is {width}; expected an integer, at least 1")


def _register(name: str, depth: int, standard: int) -> None:
    def factory(input_shape: Sequence[int], classes: int, *, width: int = standard) -> SearchSpace:
        return resnet(input_shape, classes, name=name, depth=depth, width=width)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = f"Residual network of {depth} layers for small images, widths {standard} to {4 * standard}."
    spaces.register(name)(factory)


for _depth in DEPTHS:
    _register(f"resnet{_depth}", _depth, 16)
    _register(f"resnet{_depth}-x2", _depth, 32)
