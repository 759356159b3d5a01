"""Networks without skip connections: convolutions in stages, then linear layers, each perhaps with BatchNorm."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import nn


def unit(layer: nn.Conv2d | nn.Linear, *, batch_norm: bool) -> nn.Sequential:
    """A weight layer, called "conv" or "linear", BatchNorm where wanted, and ReLU."""
    name = "conv" if isinstance(layer, nn.Conv2d) else "linear"
    norm: nn.Module = nn.Identity()
    if batch_norm:
        norm = nn.BatchNorm2d(len(layer.weight)) if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d(len(layer.weight))
    return nn.Sequential(OrderedDict([(name, layer), ("norm", norm), ("relu", nn.ReLU())]))


def plain_network(
    stages: Sequence[nn.Sequential], *, features: int, hidden: Sequence[int], classes: int, batch_norm: bool
) -> nn.Sequential:
    """Stages one after the other, and linear layers on their flattened output.

    Args:
        stages: called "stage1", "stage2" ...; they map images to maps of `features` values in all.
        features: inputs of the first linear layer.
        hidden: units of the linear layers "fc1", "fc2" ... before the classifier.
        classes: outputs of the linear layer "classifier".
        batch_norm: whether the hidden linear layers are normalized.
    """
    parts: list[tuple[str, nn.Module]] = [(f"stage{i}", stage) for i, stage in enumerate(stages, 1)]
    parts.append(("flatten", nn.Flatten()))
    for i, (inputs, units) in enumerate(zip((features, *hidden), hidden, strict=False), 1):
        parts.append((f"fc{i}", unit(nn.Linear(inputs, units), batch_norm=batch_norm)))
    parts.append(("classifier", nn.Linear((features, *hidden)[-1], classes)))
    return nn.Sequential(OrderedDict(parts))


def conv_stage(
    channels: int, widths: Sequence[int], kernels: Sequence[int], *, stride: int = 1, batch_norm: bool
) -> nn.Sequential:
    """Convolutions that keep the image's size, the first one divided by `stride`, and 2x2 max-pooling, rounded up.

    Rounding up (as "SAME" padding does) makes no difference while sides are even, and lets any small image through.
    """
    sizes = (channels, *widths)
    layers = [
        nn.Conv2d(sizes[i], sizes[i + 1], kernels[i], stride if i == 0 else 1, padding=kernels[i] // 2)
        for i in range(len(widths))
    ]
    return nn.Sequential(*[unit(layer, batch_norm=batch_norm) for layer in layers], nn.MaxPool2d(2, ceil_mode=True))


def divided(side: int, *strides: int) -> int:
    """Pixels that are left of `side` after steps of these strides, each rounded up.

    Example:
        >>> divided(28, 2, 2, 2, 2, 2), divided(32, 2, 2, 2, 2, 2)
        (1, 1)
    """
    for stride in strides:
        side = -(-side // stride)
    return side


def by_stage(stages: int) -> Mapping[str, str]:
    """Blocks for `SearchSpace.from_model`: the layers of a stage share a density."""
    return {f"stage{i}.*": f"stage{i}" for i in range(1, stages + 1)}
