"""What layers of perceptrons compute, and the gradients that they hand back, written out, without autograd.

All values are (batch, features). A step reads what others have computed and writes its own memory, the same every time;
gradients of parameters are written to where the parameters' `grad` is. Formulas are those of PyTorch's layers in
training mode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default
_leaky_backward = torch.ops.aten.leaky_relu_backward.grad_input
_threshold_backward = torch.ops.aten.threshold_backward.grad_input


class Value:
    """What a step has computed, and what is known so far of the loss's gradient by it; both (batch, features)."""

    __slots__ = ("gradient", "out", "wanted")

    def __init__(self, out: Tensor, *, wanted: bool = True) -> None:
        """Have `out` as its memory; `wanted` says whether anybody wants the gradient."""
        self.out = out
        self.gradient: Tensor | None = None
        self.wanted = wanted

    def add(self, gradient: Tensor) -> None:
        """Add what one of those that read the value hands back."""
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


class Step(ABC):
    """One operation, for batches of one size.

    Attributes:
        source: what it reads.
        value: what it computes.
    """

    def __init__(self, source: Value, features: int | None = None) -> None:
        """Read `source`, and compute so many features; as many as are read where not given."""
        out = source.out
        self.source = source
        self.value = Value(torch.empty_like(out) if features is None else out.new_empty(len(out), features))

    @abstractmethod
    def forward(self) -> None:
        """Compute the value."""

    def measure(self) -> None:
        """Compute the value, and take the batch into the average statistics, where there are any."""
        self.forward()

    @abstractmethod
    def backward(self, gradient: Tensor) -> None:
        """From the gradient by the value, leave those by the parameters in their `grad`, and hand back that by what
        was read."""


class Product(Step):
    """`torch.nn.Linear`."""

    def __init__(self, module: nn.Linear, source: Value) -> None:
        super().__init__(source, module.out_features)
        bias: nn.Parameter | None = module.bias
        self._weight = module.weight.detach()
        self._turned = self._weight.t()
        self._of_weight = gradient_of(module.weight)
        self._bias = None if bias is None else bias.detach()
        self._of_bias = None if bias is None else gradient_of(bias)
        self._of_source = torch.empty_like(source.out) if source.wanted else None

    def forward(self) -> None:
        """x W' + b."""
        if self._bias is None:
            torch.mm(self.source.out, self._turned, out=self.value.out)
        else:
            torch.addmm(self._bias, self.source.out, self._turned, out=self.value.out)

    def backward(self, gradient: Tensor) -> None:
        """G' x, the sum of G over the batch, and G W."""
        torch.mm(gradient.t(), self.source.out, out=self._of_weight)
        if self._of_bias is not None:
            torch.sum(gradient, 0, out=self._of_bias)
        if self._of_source is not None:
            torch.mm(gradient, self._weight, out=self._of_source)
            self.source.add(self._of_source)


class Normalization(Step):
    """`torch.nn.BatchNorm1d`, by the statistics of the batch. Its running averages change by `measure` alone."""

    def __init__(self, module: nn.BatchNorm1d, source: Value) -> None:
        if len(source.out) < 2:
            raise ValueError("BatchNorm cannot normalize a batch of one example; choose another batch-size")
        super().__init__(source)
        self._module = module
        self._eps = module.eps
        parameters = list(module.parameters())  # weight and bias, or none
        self._weight = parameters[0].detach() if parameters else None
        self._bias = parameters[1].detach() if parameters else None
        self._gradients = [gradient_of(each) for each in parameters]
        self._mean, self._inverse = (source.out.new_empty(source.out.shape[1]) for _ in range(2))
        self._wanted = [True, module.affine, module.affine]

    def forward(self) -> None:
        """(x - mean) / sqrt(variance + eps), scaled and shifted."""
        self._normalize(None, None, 0.0)

    def measure(self) -> None:
        """The same; the running averages become plain ones over this batch and those before it."""
        counted = self._module.num_batches_tracked
        if counted is None:
            self.forward()
            return
        counted.add_(1)
        self._normalize(self._module.running_mean, self._module.running_var, 1 / counted.item())

    def backward(self, gradient: Tensor) -> None:
        """PyTorch's own kernel."""
        statistics = self._mean, self._inverse
        of_source, *found = _batch_norm_backward(
            gradient, self.source.out, self._weight, None, None, *statistics, True, self._eps, self._wanted
        )
        for own, of_parameter in zip(self._gradients, found, strict=False):
            own.copy_(of_parameter)
        self.source.add(of_source)

    def _normalize(self, mean: Tensor | None, variance: Tensor | None, share: float) -> None:
        """PyTorch's own kernel, which gives the batch that share of the averages."""
        out = self.value.out, self._mean, self._inverse
        torch.native_batch_norm(
            self.source.out, self._weight, self._bias, mean, variance, True, share, self._eps, out=out
        )


class LeakyLine(Step):
    """`torch.nn.PReLU` with one slope."""

    def __init__(self, module: nn.PReLU, source: Value) -> None:
        super().__init__(source)
        self._slope = module.weight.detach()
        self._number = 0.0
        self._of_slope = gradient_of(module.weight).view(())
        self._of_source = torch.empty_like(source.out)

    def forward(self) -> None:
        """x where x > 0, else slope * x."""
        self._number = self._slope.item()
        torch._C._nn.leaky_relu(self.source.out, self._number, out=self.value.out)

    def backward(self, gradient: Tensor) -> None:
        """G where x > 0, else slope * G; and the sum of G * x where x <= 0."""
        below = torch.clamp(self.source.out, max=0.0, out=self._of_source)  # whose memory is of use twice
        torch.dot(gradient.reshape(-1), below.view(-1), out=self._of_slope)
        _leaky_backward(gradient, self.source.out, self._number, False, grad_input=self._of_source)
        self.source.add(self._of_source)


class Rectifier(Step):
    """`torch.nn.ReLU`."""

    def __init__(self, source: Value) -> None:
        super().__init__(source)
        self._of_source = torch.empty_like(source.out)

    def forward(self) -> None:
        """x where x > 0, else 0."""
        torch.clamp(self.source.out, min=0.0, out=self.value.out)

    def backward(self, gradient: Tensor) -> None:
        """G where x > 0, else 0."""
        _threshold_backward(gradient, self.value.out, 0.0, grad_input=self._of_source)
        self.source.add(self._of_source)


class Sum(Step):
    """Two values added."""

    def __init__(self, source: Value, other: Value) -> None:
        super().__init__(source)
        self._other = other

    def forward(self) -> None:
        """x + y."""
        torch.add(self.source.out, self._other.out, out=self.value.out)

    def backward(self, gradient: Tensor) -> None:
        """G for both."""
        self.source.add(gradient)
        self._other.add(gradient)


class ByAutograd(Step):
    """Anything else that maps (batch, features) to the same or other features, by PyTorch's own differentiation."""

    def __init__(self, function: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], source: Value) -> None:
        with torch.no_grad():
            super().__init__(source, function(torch.zeros_like(source.out)).shape[1])
        self._function = function
        self._parameters = parameters
        self._gradients = [gradient_of(parameter) for parameter in parameters]
        self._input = self._output = self.value.out

    def forward(self) -> None:
        """The function."""
        with torch.enable_grad():
            self._input = self.source.out.detach().requires_grad_()
            self._output = self._function(self._input)
        self.value.out.copy_(self._output.detach())

    def backward(self, gradient: Tensor) -> None:
        """What autograd finds."""
        of_source, *found = torch.autograd.grad(self._output, [self._input, *self._parameters], gradient)
        for own, of_parameter in zip(self._gradients, found, strict=True):
            own.copy_(of_parameter)
        self.source.add(of_source)


def gradient_of(parameter: Tensor) -> Tensor:
    """Where the gradient of a parameter goes."""
    if parameter.grad is None:
        raise ValueError("a parameter has no room for its gradient; give it a `grad`")
    return parameter.grad
