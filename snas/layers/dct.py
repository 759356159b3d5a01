"""Layers that add a fixed discrete cosine transform to their sparse weights: W = scale * D + S ([Price2021]).

D carries signals and gradients through the layer however few of S's weights are kept, and is no parameter. S is what
`.weight` holds, so that masks, optimizers and everything else treat such a layer as any other. Training begins with
S = 0 and scale = 1, and trains both.

As in the authors' code, D has the first rows and columns of the orthonormal DCT-II of length max(inputs, outputs), and
a convolution's inputs are the pixels of its patch, row by row, all channels of a pixel together. The scale begins at 1
without a gain for the nonlinearity: what ReLU lets through has most of its energy in the first coefficient, which is
positive and passes the next ReLU whole.

[Price2021] I. Price, J. Tanner: Dense for the price of sparse: improved performance of sparsely initialized networks
via a subspace offset, ICML 2021. [Makhoul1980] J. Makhoul: A fast cosine transform in one and two dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from snas.densities import Layer
from snas.errors import InputError

# What reads the weights of its inner modules without calling them, always or in some modes: an offset would be lost.
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class DCTLinear(nn.Linear):
    """A linear layer with a cosine transform beside its weights: y = S x + scale * D x + b.

    D x is computed by a fast Fourier transform, in O(n log n) for each example and without storing D.

    Attributes:
        weight: S, shape (out_features, in_features), initially zero.
        scale: of the transform, shape (1,), initially 1 and trained.

    Source:
        [Price2021]; alpha and its initial value: github.com/IlanPrice/DCTpS.

    Example:
        >>> layer = DCTLinear(4, 1, bias=False)  # a row of 1 / sqrt(4)
        >>> layer(torch.ones(1, 4)).round(decimals=4).tolist(), sorted(layer.state_dict())
        ([[2.0]], ['scale', 'weight'])
    """

    scale: nn.Parameter

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take the arguments of `torch.nn.Linear`."""
        super().__init__(*arguments, **options)
        _begin(self)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        out = functional.linear(input, self.weight, self.bias)
        # Fourier transforms of half precision do not exist on the CPU, and round more than the rest of the network.
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        return out + (self.scale * cosine_transform(x, self.out_features)).to(out.dtype)


class DCTConv2d(nn.Conv2d):
    """A convolution with a cosine transform of each patch beside its weights: y = (S + scale * D) * x + b.

    The transform of all patches is a convolution with a fixed kernel, which is built once by fast Fourier transforms.
    It joins the weights before the only convolution, which costs nothing to speak of. To transform every unfolded patch
    would take kernel-size times the input's memory, and time beside the convolution.
    The kernel needs the weights' memory once more; it is rebuilt with the layer and not part of its state.

    With groups, a group has the rows of D that belong to its output channels; each row is as long as a group's patch.

    Attributes:
        weight: S, shape (out_channels, in_channels / groups, height, width), initially zero.
        scale: of the transform, shape (1,), initially 1 and trained.
        offset: D in the shape of the weight; fixed.

    Source:
        [Price2021]; alpha and its initial value: github.com/IlanPrice/DCTpS.

    Example:
        >>> layer = DCTConv2d(2, 4, 3, padding=1)
        >>> layer(torch.zeros(1, 2, 5, 5)).shape, sorted(layer.state_dict())
        (torch.Size([1, 4, 5, 5]), ['bias', 'scale', 'weight'])
    """

    scale: nn.Parameter
    offset: Tensor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take the arguments of `torch.nn.Conv2d`."""
        super().__init__(*arguments, **options)
        _begin(self)

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height', width')."""
        out: Tensor = self._conv_forward(input, self.weight + self.scale * self.offset, self.bias)
        return out


def add_offsets(model: nn.Module, layers: Sequence[Layer]) -> None:
    """Give each of the layers a cosine transform beside its weights, which become zero.

    The modules stay the same objects, with their names, parameters, hooks and device, and become of another class, as
    `torch.nn.utils.parametrize` does it. Biases stay as they are. Nothing is changed where a layer is refused.

    Args:
        model: changed in place.
        layers: each the weight of a `torch.nn.Linear` or `torch.nn.Conv2d`.

    Raises:
        InputError: if a layer is of another kind, shares its weight with another module, or is inside a module that
            reads its weights without calling it.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> add_offsets(model, [Layer("0", (2, 4))])
        >>> type(model[0]).__name__, int(torch.count_nonzero(model[0].weight))
        ('DCTLinear', 0)
    """
    for module in [_owner(model, layer) for layer in layers]:
        if not isinstance(module, (DCTLinear, DCTConv2d)):
            module.__class__ = DCTLinear if isinstance(module, nn.Linear) else DCTConv2d
        _begin(cast("DCTLinear | DCTConv2d", module))


def require_offsets(model: nn.Module, layers: Sequence[Layer]) -> None:
    """Raise InputError unless each of the layers can have an offset; see `add_offsets`."""
    for layer in layers:
        _owner(model, layer)


def cosine_transform(x: Tensor, size: int) -> Tensor:
    """The first coefficients of the orthonormal DCT-II of x, padded with zeros where they are more than its length.

    With n = max(inputs, size), y_k = sqrt((2 - [k = 0]) / n) sum_j x_j cos(pi k (2 j + 1) / 2 n), from one real Fourier
    transform of length n ([Makhoul1980]): of x's even entries and, backwards, its odd ones.

    Args:
        x: shape (..., inputs), float32 or float64.
        size: number of coefficients.

    Returns:
        Shape (..., size).

    Example:
        >>> cosine_transform(torch.tensor([3.0, 4.0]), 1)  # (3 + 4) / sqrt(2)
        tensor([4.9497])
    """
    if not x.numel():  # Fourier transforms of an empty batch are errors
        return x.new_zeros(*x.shape[:-1], size)
    n = max(x.shape[-1], size)
    x = functional.pad(x, (0, n - x.shape[-1]))
    spectrum = torch.fft.rfft(torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), -1))
    angle = torch.arange(spectrum.shape[-1], dtype=x.dtype, device=x.device) * (math.pi / (2 * n))
    cos, sin = angle.cos(), angle.sin()
    low = spectrum.real * cos + spectrum.imag * sin  # k = 0 to n / 2
    high = (spectrum.real * sin - spectrum.imag * cos)[..., 1 : (n + 1) // 2].flip(-1)  # that of k is coefficient n - k
    y = torch.cat((low, high), -1)[..., :size] * math.sqrt(2 / n)
    return torch.cat((y[..., :1] * math.sqrt(0.5), y[..., 1:]), -1)


def cosine_matrix(outputs: int, inputs: int) -> Tensor:
    """D: the matrix of `cosine_transform`, shape (outputs, inputs), in double precision on the CPU.

    Example:
        >>> matrix = cosine_matrix(2, 3)
        >>> (matrix @ matrix.T).round(decimals=6).abs().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    with torch.enable_grad():
        x = torch.zeros(outputs, inputs, dtype=torch.float64, requires_grad=True)
        coefficients = cosine_transform(x, outputs)
        # Row k is the gradient of coefficient k: fewer transforms than columns one by one, for outputs are fewer.
        (matrix,) = torch.autograd.grad(coefficients, x, torch.eye(outputs, dtype=torch.float64))
    return matrix


def _begin(module: DCTLinear | DCTConv2d) -> None:
    """Set the layer to its initial state; its bias stays."""
    weight = module.weight
    nn.init.zeros_(weight)
    module.scale = nn.Parameter(torch.ones(1, dtype=weight.dtype, device=weight.device))
    if isinstance(module, DCTConv2d):
        out, channels, height, width = weight.shape
        kernel = cosine_matrix(out, height * width * channels).to(weight)
        kernel = kernel.reshape(out, height, width, channels).permute(0, 3, 1, 2)
        module.register_buffer("offset", kernel, persistent=False)


def _owner(model: nn.Module, layer: Layer) -> nn.Module:
    """The module that the layer's weight belongs to; raises InputError where it cannot have an offset."""
    path, _, name = layer.parameter.rpartition(".")
    modules = dict(model.named_modules(remove_duplicate=False))
    owner: nn.Module | None = modules.get(path)
    weight = getattr(owner, name, None)
    if owner is None or not isinstance(weight, nn.Parameter):
        raise InputError(f"the network has no weight {layer.parameter!r}; its layers are of another one")
    what = f"layer {layer.name!r} cannot have a cosine offset: "
    if type(owner) not in (nn.Linear, nn.Conv2d, DCTLinear, DCTConv2d) or name != "weight":
        raise InputError(
            f"{what}its module is of type {type(owner).__name__}; expected Linear or Conv2d; use another method"
        )
    steps = path.split(".")
    for around in (modules[".".join(steps[:depth])] for depth in range(len(steps))):
        if isinstance(around, READERS):
            raise InputError(f"{what}{type(around).__name__} reads its weights without calling it; use another method")
    sharing = [
        where
        for where, module in model.named_modules()
        if any(parameter is weight for parameter in module.parameters(recurse=False))
    ]
    if len(sharing) > 1:
        raise InputError(f"{what}its weight is shared by modules {', '.join(map(repr, sharing))}; use another method")
    return owner
