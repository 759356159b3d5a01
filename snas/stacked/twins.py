"""Layers that compute several networks' layers at once.

The networks' activations stand side by side: (batch, slots * features) or (batch, slots * channels, height, width), the
first network's features first. Whatever works on each entry, or on each channel, does not notice: the code of a network
that adds, activates, pools and flattens is used as it is. Only layers with weights, and the few that look across
channels, have a twin here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from snas.kernels.sparse_linear import Pattern, multiply, sample
from snas.search_spaces.activations import SReLU
from snas.search_spaces.resnet import PaddedShortcut


@dataclass(frozen=True, slots=True)
class Blocks:
    """Kept weights of one layer of several networks.

    Attributes:
        pattern: of the matrix that has the networks' weights along its diagonal.
        places: of the kept weights among all, (slots, out, in) in a row; int64, shape (kept,).
        gradient: of all weights, shape (slots, out, in): zero except at the places, where backward passes add.
            It does not go through autograd, which would copy it.
    """

    pattern: Pattern
    places: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, patterns: Sequence[Pattern], like: Tensor) -> Blocks:
        """Those of networks with these patterns, for weights of the type of `like`."""
        rows, columns = patterns[0].shape
        places = [pattern.places() + slot * rows * columns for slot, pattern in enumerate(patterns)]
        return cls(Pattern.beside(patterns), torch.cat(places), like.new_zeros(len(patterns), rows, columns))


class Twin(nn.Module):
    """Takes the place of a layer in a stack of networks.

    Attributes:
        like: the layer of one network, which tells the options.
        own: parameter or buffer -> the networks' values together, shape (slots, *shape); set by the stack.
        slots: networks that stand side by side; set by the stack.
    """

    like: Any

    def __init__(self, like: nn.Module) -> None:
        """Take the options of a layer, which loses its values."""
        super().__init__()
        object.__setattr__(self, "like", like.to("meta"))  # not a submodule: its parameters are not the stack's
        self.own: dict[str, Tensor] = {}
        self.slots = 0

    def flat(self, name: str) -> Tensor | None:
        """The networks' values one after another, shape (slots * channels, ...); None where the layer has none."""
        value = self.own.get(name)
        return None if value is None else value.flatten(0, 1)


class LinearTwin(Twin):
    """`torch.nn.Linear`: a batch of matrix products, or one product with all kept weights where there are few.

    Attributes:
        blocks: where the networks' kept weights are, along a diagonal; None to multiply with all.
        called: whether the layer had a part in the forward pass.
    """

    blocks: Blocks | None = None
    called: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, slots * in) to (batch, slots * out)."""
        weight, out = self.own["weight"], x
        self.called = True
        if torch.compiler.is_compiling():  # which arranges results by itself, and cannot follow those below
            slots, _, inputs = weight.shape
            rows = x.view(len(x), slots, inputs).transpose(0, 1)
            out = torch.bmm(rows, weight.transpose(1, 2)).transpose(0, 1).flatten(1)
        elif self.blocks is None:
            out = _BatchedLinear.apply(x, weight)  # type: ignore[no-untyped-call]
        else:
            out = _DiagonalLinear.apply(x, weight, self.blocks)  # type: ignore[no-untyped-call]
        bias = self.flat("bias")
        return out if bias is None else out + bias


class ConvolutionTwin(Twin):
    """`torch.nn.Conv1d` or `Conv2d`: a grouped convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, slots * in, *size) to (batch, slots * out, *size)."""
        convolution = functional.conv2d if isinstance(self.like, nn.Conv2d) else functional.conv1d
        out: Tensor = convolution(
            x,
            self.own["weight"].flatten(0, 1),
            self.flat("bias"),
            self.like.stride,
            self.like.padding,
            self.like.dilation,
            self.like.groups * self.slots,
        )
        return out


class BatchNormTwin(Twin):
    """Batch normalization, which treats every channel by itself.

    Attributes:
        batches: how many it has averaged over since `measure_anew`; None where it averages as in training.
    """

    batches: int | None = None

    @torch.no_grad()
    def measure_anew(self) -> None:
        """Forget the statistics, and let the next batches have equal shares in new ones, until `train` is called."""
        if "running_mean" not in self.own:
            return
        self.own["running_mean"].zero_()
        self.own["running_var"].fill_(1.0)
        self.own["num_batches_tracked"].zero_()
        super().train(True)
        self.batches = 0

    def train(self, mode: bool = True) -> BatchNormTwin:
        """Choose training or evaluation mode."""
        self.batches = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (batch, slots * channels, ...)."""
        momentum = self.like.momentum
        if self.batches is not None:
            self.batches += 1
            momentum = 1 / self.batches
        if self.training and "num_batches_tracked" in self.own:
            self.own["num_batches_tracked"].add_(1)
        running_mean, running_var = self.own.get("running_mean"), self.own.get("running_var")
        turned = x.ndim == 2 and not x.is_contiguous() and x.t().is_contiguous()  # after a product of few weights
        out = functional.batch_norm(
            x.t().unsqueeze(0) if turned else x,
            None if running_mean is None else running_mean.view(-1),
            None if running_var is None else running_var.view(-1),
            self.flat("weight"),
            self.flat("bias"),
            self.training or running_mean is None,
            momentum,
            self.like.eps,
        )
        return out.squeeze(0).t() if turned else out


class GroupNormTwin(Twin):
    """`torch.nn.GroupNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (batch, slots * channels, ...)."""
        groups = self.like.num_groups * self.slots
        return functional.group_norm(x, groups, self.flat("weight"), self.flat("bias"), self.like.eps)


class PReLUTwin(Twin):
    """`torch.nn.PReLU`, with one slope or one per channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Activate (batch, slots * channels, ...)."""
        slope = self.own["weight"]
        channels = x.shape[1] // len(slope)
        slope = slope.expand(-1, channels).reshape(1, -1, *[1] * (x.ndim - 2))
        if torch.compiler.is_compiling():
            return torch.where(x > 0, x, slope.to(x.dtype) * x)
        out: Tensor = _LeakyLine.apply(x, slope)  # type: ignore[no-untyped-call]
        return out


class SReLUTwin(Twin):
    """`snas.search_spaces.activations.SReLU`."""

    def forward(self, x: Tensor) -> Tensor:
        """Activate (batch, slots * units)."""
        lower, lower_slope, upper, upper_slope = (
            self.own[name].flatten() for name in ("lower", "lower_slope", "upper", "upper_slope")
        )
        above, below = upper + upper_slope * (x - upper), lower + lower_slope * (x - lower)
        return torch.where(x >= upper, above, torch.where(x <= lower, below, x))


class PaddingTwin(Twin):
    """`snas.search_spaces.resnet.PaddedShortcut`, whose zeros stand behind each network's channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad (batch, slots * channels, height, width)."""
        batch, channels, *size = x.shape
        padded: Tensor = self.like(x.reshape(batch * self.slots, channels // self.slots, *size))
        return padded.reshape(batch, -1, *padded.shape[2:])


TWINS: Mapping[type[nn.Module], Callable[[nn.Module], Twin]] = {
    nn.Linear: LinearTwin,
    nn.Conv1d: ConvolutionTwin,
    nn.Conv2d: ConvolutionTwin,
    nn.BatchNorm1d: BatchNormTwin,
    nn.BatchNorm2d: BatchNormTwin,
    nn.GroupNorm: GroupNormTwin,
    nn.PReLU: PReLUTwin,
    SReLU: SReLUTwin,
    PaddedShortcut: PaddingTwin,
}


class _BatchedLinear(torch.autograd.Function):
    """Products of each network's inputs with its weights, written where the next layer expects them.

    `torch.bmm` alone would leave (slots, batch, out), and copy to turn it round.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        slots, outputs, inputs = weight.shape
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x, cast = x.to(dtype), weight.to(dtype)
        out = x.new_empty(len(x), slots, outputs)
        torch.bmm(x.view(-1, slots, inputs).transpose(0, 1), cast.transpose(1, 2), out=out.transpose(0, 1))
        ctx.save_for_backward(x, cast)
        return out.view(len(x), slots * outputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        slots, outputs, inputs = weight.shape
        gradient = gradient.to(weight.dtype).reshape(-1, slots, outputs).transpose(0, 1)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = x.new_empty(len(x), slots, inputs)
            torch.bmm(gradient, weight, out=of_x.transpose(0, 1))
            of_x = of_x.view(len(x), slots * inputs)
        of_weight = torch.bmm(gradient.transpose(1, 2), x.view(-1, slots, inputs).transpose(0, 1))
        return of_x, of_weight


class _DiagonalLinear(torch.autograd.Function):
    """Products of each network's inputs with its kept weights: those of all as one matrix in compressed rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
        features = x.t().contiguous()
        values = weight.view(-1).index_select(0, blocks.places)
        ctx.save_for_backward(features, values)
        ctx.blocks = blocks
        return multiply(blocks.pattern.offsets, blocks.pattern.columns, values, features).t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        features, values = ctx.saved_tensors
        blocks: Blocks = ctx.blocks
        pattern, errors = blocks.pattern, gradient.t().contiguous()
        of_x = None
        if ctx.needs_input_grad[0]:
            turned = values.index_select(0, pattern.order)
            of_x = multiply(pattern.back_offsets, pattern.back_columns, turned, errors).t()
        blocks.gradient.view(-1).index_add_(0, blocks.places, sample(pattern, values, errors, features))
        return of_x, None, None


class _LeakyLine(torch.autograd.Function):
    """x where x > 0, else slope * x, in vectorized steps; PyTorch's own backward pass of PReLU is several times slower
    on a CPU."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return x.clamp(min=0).add_(x.clamp(max=0).mul_(slope.to(x.dtype)))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(gradient, x, 0.0)
        below = gradient - above
        others = [dimension for dimension in range(x.ndim) if dimension != 1]
        of_slope = (below * x).sum(others, keepdim=True, dtype=slope.dtype)
        return above.add_(below.mul_(slope.to(x.dtype))), of_slope
