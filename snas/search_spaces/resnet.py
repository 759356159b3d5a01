"""Residual networks for small images ([He2016] section 4.2), with 1x1 convolution shortcuts.

The widths are 16, 32 and 64; the names that end in "-x2" double them (resnet32-x2 with 100 classes is the 1.9M weight
"Resnet32" of [Tessera2021] table B.2).

With shortcut "padding", the source's own, resnet20 has 268,336 weights on CIFAR-10 and 269,034 with a bias for each
unit: the 269k of [Lee2020b] table 4.6, whose other networks are resnet20 with other `blocks` and `widening`. Pruned to
268,336 weights they have the sparsity that the table prints, within 0.1 points.

[He2016] He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition.
[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from snas.errors import InputError
from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_image, require_whole, spaces

DEPTHS = (14, 20, 32, 44, 56, 110)
MOST_BLOCKS = 200

Shortcut = Literal["convolution", "padding"]


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the image's size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class PaddedShortcut(nn.Module):
    """Every stride-th pixel, and channels of zeros after those that are there ([He2016] section 3.3, option A)."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more = more
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, channels + more, height / stride, width / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))

    def extra_repr(self) -> str:
        """What the network's fingerprint knows it by."""
        return f"more={self.more}, stride={self.stride}"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them: the identity where the shape stays.

    Where it changes, the shortcut is a 1x1 convolution or, on request, padded.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut = "convolution") -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if shortcut == "padding":
            self.shortcut.append(PaddedShortcut(outputs - inputs, stride))
        elif stride != 1 or inputs != outputs:
            parts = {"conv": convolution(inputs, outputs, 1, stride), "norm": nn.BatchNorm2d(outputs)}
            self.shortcut = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem, three stages of basic blocks of width w, 2w and 4w, global average pooling, a linear classifier."""

    def __init__(
        self,
        channels: int,
        classes: int,
        blocks: int,
        width: int,
        stem: int,
        shortcut: Shortcut = "convolution",
    ) -> None:
        super().__init__()
        self.stem = convolution(channels, stem, 3)
        self.stem_norm = nn.BatchNorm2d(stem)
        self.stage1 = self._stage(stem, width, blocks, 1, shortcut)
        self.stage2 = self._stage(width, 2 * width, blocks, 2, shortcut)
        self.stage3 = self._stage(2 * width, 4 * width, blocks, 2, shortcut)
        self.classifier = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
        rest = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        x = F.relu(self.stem_norm(self.stem(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        out: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return out


def resnet(
    input_shape: Sequence[int],
    classes: int,
    *,
    name: str,
    depth: int,
    width: int,
    stem: int | None = None,
    shortcut: Shortcut = "convolution",
    blocks: int | None = None,
    widening: int = 1,
) -> SearchSpace:
    """Return the residual network of `depth` layers, or with so many `blocks`, as a space.

    Layers are ordered as they are defined: in a block the first convolution, the second, the shortcut. Under
    representation "block" the layers of a residual block share a density; stem and classifier have their own.

    Args:
        input_shape: (channels, height, width) of one image, of any size.
        classes: number of classes.
        name: how results are filed.
        depth: 6 n + 2, with n blocks per stage.
        width: channels of the first stage.
        stem: channels of the first convolution; `width` where not given, and with shortcut "padding" no more than the
            first stage has.
        shortcut: around a block that changes the shape, a 1x1 "convolution", or zeros for the missing channels
            ("padding"), which has no weights.
        blocks: per stage, 1 to 200; those of `depth` where not given.
        widening: times as many channels in the stages, not in the stem ([Lee2020b] table 4.6).

    Raises:
        InputError: for data that are not images, a number out of range, or an unknown shortcut.
    """
    channels, _, _ = require_image(input_shape, name)
    require_whole("width", width, name)
    require_whole("widening", widening, name)
    number = (depth - 2) // 6 if blocks is None else blocks
    require_whole("blocks", number, name, most=MOST_BLOCKS)
    if shortcut not in get_args(Shortcut):
        raise InputError(f"argument 'shortcut' of space {name!r} is {shortcut!r}; choices: convolution, padding")
    if stem is not None:
        require_whole("stem", stem, name, most=width * widening if shortcut == "padding" else None)
    stages = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in range(number)]
    return SearchSpace.from_model(
        Alike(lambda: ResNet(channels, classes, number, width * widening, stem or width, shortcut)),
        input_shape=input_shape,
        name=name,
        groups={f"{block}.*": block for block in stages},
        arguments={"width": width, "stem": stem, "shortcut": shortcut, "blocks": number, "widening": widening},
        learning_rate=0.1,
    )


def _register(name: str, depth: int, standard: int) -> None:
    def factory(
        input_shape: Sequence[int],
        classes: int,
        *,
        width: int = standard,
        stem: int | None = None,
        shortcut: Shortcut = "convolution",
        blocks: int = (depth - 2) // 6,
        widening: int = 1,
    ) -> SearchSpace:
        return resnet(
            input_shape,
            classes,
            name=name,
            depth=depth,
            width=width,
            stem=stem,
            shortcut=shortcut,
            blocks=blocks,
            widening=widening,
        )

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = f"Residual network of {depth} layers for small images, widths {standard} to {4 * standard}."
    spaces.register(name)(factory)


for _depth in DEPTHS:
    _register(f"resnet{_depth}", _depth, 16)
    _register(f"resnet{_depth}-x2", _depth, 32)
