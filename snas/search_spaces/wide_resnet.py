"""Wide residual networks ([Zagoruyko2016] table 1 and section 2.4): few blocks of many channels, activation first.

wrn-28-10 with 100 classes has 36,518,832 weights in 29 layers: the "Wideresnet50" of [Tessera2021] table B.2.

Weights of a network for CIFAR-10, what [Lee2020b] table 3.2 prints, and what it prints as 5 % of that:

    wrn-16-8    10,954,160   10.0m   548k
    wrn-16-10   17,107,632   17.1m   856k
    wrn-22-8    17,147,312   17.2m   858k

10.0m is a misprint of 11.0m: 5 % of it would be 500k. The other last digits are higher there because its convolutions
have biases, as [Zagoruyko2016]'s and ours have not, and biases are counted.

[Zagoruyko2016] Zagoruyko and Komodakis, Wide Residual Networks.
[Lee2020b] N. Lee, Toward Efficient Deep Learning with Sparse Neural Networks, DPhil thesis, Oxford 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from snas.errors import InputError
from snas.search_spaces.alike import Alike
from snas.search_spaces.base import SearchSpace, require_image, require_whole, spaces
from snas.search_spaces.resnet import MOST_BLOCKS, convolution

SIZES = ((16, 8), (16, 10), (22, 8), (28, 2), (28, 10))


class WideBlock(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice, with dropout between, and a shortcut around them.

    The shortcut is the identity, or where the number of channels changes a 1x1 convolution of the activated input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(outputs, outputs, 3)
        self.shortcut = None if inputs == outputs else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        activated = F.relu(self.norm1(x))
        out: Tensor = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(activated)))))
        return out + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """A 3x3 stem of 16 channels, three stages of wide blocks, global average pooling, a linear classifier."""

    def __init__(self, channels: int, classes: int, blocks: int, widening: int, dropout: float) -> None:
        super().__init__()
        sizes = [16, 16 * widening, 32 * widening, 64 * widening]
        self.stem = convolution(channels, sizes[0], 3)
        self.stage1, self.stage2, self.stage3 = (
            self._stage(sizes[i], sizes[i + 1], blocks, 1 if i == 0 else 2, dropout) for i in range(3)
        )
        self.norm = nn.BatchNorm2d(sizes[3])
        self.classifier = nn.Linear(sizes[3], classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int, dropout: float) -> nn.Sequential:
        rest = [WideBlock(outputs, outputs, 1, dropout) for _ in range(blocks - 1)]
        return nn.Sequential(WideBlock(inputs, outputs, stride, dropout), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        out: Tensor = self.classifier(F.relu(self.norm(x)).mean(dim=(2, 3)))
        return out


def wide_resnet(
    input_shape: Sequence[int], classes: int, *, name: str, blocks: int, widening: int, dropout: float
) -> SearchSpace:
    """Return the wide residual network of so many blocks and this widening as a space.

    Layers are ordered as they are defined: in a block the first convolution, the second, the shortcut. Under
    representation "block" the layers of a residual block share a density; stem and classifier have their own.

    Args:
        input_shape: (channels, height, width) of one image, of any size.
        classes: number of classes.
        name: how results are filed.
        blocks: per stage, 1 to 200; the network has 6 of them + 4 layers.
        widening: the stages have 16, 32 and 64 times as many channels.
        dropout: probability that a value between a block's convolutions is dropped, 0 <= dropout < 1.

    Raises:
        InputError: for data that are not images, or an argument outside its range.
    """
    channels, _, _ = require_image(input_shape, name)
    require_whole("blocks", blocks, name, most=MOST_BLOCKS)
    require_whole("widening", widening, name)
    if not 0 <= dropout < 1:
        raise InputError(f"argument 'dropout' of space {name!r} is {dropout}; expected 0 <= dropout < 1")
    stages = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in range(blocks)]
    return SearchSpace.from_model(
        Alike(lambda: WideResNet(channels, classes, blocks, widening, dropout)),
        input_shape=input_shape,
        name=name,
        groups={f"{block}.*": block for block in stages},
        arguments={"blocks": blocks, "widening": widening, "dropout": dropout},
        learning_rate=0.1,
    )


def _register(depth: int, factor: int) -> None:
    name = f"wrn-{depth}-{factor}"

    def space(
        input_shape: Sequence[int],
        classes: int,
        *,
        dropout: float = 0.0,
        blocks: int = (depth - 4) // 6,
        widening: int = factor,
    ) -> SearchSpace:
        return wide_resnet(input_shape, classes, name=name, blocks=blocks, widening=widening, dropout=dropout)

    space.__name__ = space.__qualname__ = name
    space.__doc__ = f"Wide residual network of {depth} layers, {factor} times as wide."
    spaces.register(name)(space)


for _depth, _factor in SIZES:
    _register(_depth, _factor)
