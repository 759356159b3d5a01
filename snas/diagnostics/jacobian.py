"""Singular values of a network's input-output Jacobian: by how much it stretches small changes of an example."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snas.errors import InputError


@dataclass(frozen=True)
class SingularValues:
    """Statistics of the Jacobian's singular values over many examples.

    Attributes:
        mean: of all singular values of all examples.
        std: standard deviation of the same numbers.
        largest: of them.
        smallest: of them.
        examples: how many examples were looked at.
    """

    mean: float
    std: float
    largest: float
    smallest: float
    examples: int

    @property
    def condition(self) -> float:
        """Largest divided by smallest; inf where the smallest is 0, NaN where all are."""
        if self.smallest == 0:
            return math.inf if self.largest > 0 else math.nan
        return self.largest / self.smallest


def jacobian_statistics(model: nn.Module, x: Tensor, *, batch: int = 500) -> SingularValues:
    """Mean, spread, extremes and condition number of `singular_values` ([Lee2020] table 4.1).

    The condition number is that of the extremes over all examples together, as in the source's code.

    Args:
        model: maps (batch, *input_shape) to (batch, outputs); unchanged.
        x: examples, shape (n, *input_shape), on the network's device.
        batch: examples at a time.

    Raises:
        InputError: as `singular_values`.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> _ = nn.init.eye_(model.weight)
        >>> jacobian_statistics(model, torch.zeros(5, 3))
        SingularValues(mean=1.0, std=0.0, largest=1.0, smallest=1.0, examples=5)
    """
    values = singular_values(model, x, batch=batch)
    return SingularValues(
        mean=float(values.mean()),
        std=float(values.std(correction=0)),
        largest=float(values.max()),
        smallest=float(values.min()),
        examples=len(values),
    )


def singular_values(model: nn.Module, x: Tensor, *, batch: int = 500) -> Tensor:
    """The singular values of dy/dx at every example, y being the network's output ([Lee2020] eq. 4.4).

    Eq. 4.4 ends with a nonlinearity; the source's code, and this, with the outputs themselves (logits). The network is
    copied to double precision: condition numbers beyond 1e7 are lost in single. It is in evaluation mode, in which no
    example changes another's output, so that one backward pass per output serves a whole batch.

    Args:
        model: maps (batch, *input_shape) to (batch, outputs); unchanged.
        x: examples, shape (n, *input_shape), on the network's device, which must know double precision.
        batch: examples at a time.

    Returns:
        Shape (n, min(outputs, inputs)), double, falling within each example. A singular value below 1e-16 of the
        largest, or so, is rounding.

    Raises:
        InputError: if there is no example, the output is not of shape (batch, outputs), or a derivative is not finite.

    Source:
        [Lee2020] N. Lee, T. Ajanthan, S. Gould, P. Torr: A signal propagation perspective for pruning neural networks
        at initialization, ICLR 2020, section 4 and table 1 (table 4.1 of N. Lee's thesis).
    """
    if not len(x) or batch < 1:
        raise InputError(f"{len(x)} examples, {batch} at a time; expected at least 1 of each")
    probe = copy.deepcopy(model).double().eval()
    for parameter in probe.parameters():
        parameter.requires_grad_(False)
    return torch.cat([_of_batch(probe, part) for part in torch.split(x.detach().double(), batch)])


def _of_batch(probe: nn.Module, x: Tensor) -> Tensor:
    """Singular values for a few examples."""
    with torch.enable_grad():
        inputs = x.clone().requires_grad_()
        y = probe(inputs)
        if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != len(x):
            found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"the network returns {found} for {len(x)} examples; expected shape (batch, outputs)")
        rows = [_gradient(y[:, output].sum(), inputs) for output in range(y.shape[1])]
    jacobian = torch.stack(rows, 1).flatten(2)  # (batch, outputs, inputs)
    if not bool(torch.isfinite(jacobian).all()):
        raise InputError("a derivative of the network's output is not finite; check its weights and its input")
    # The small triangular factor has the same singular values, and many times fewer columns.
    tall = jacobian.mT if jacobian.shape[1] < jacobian.shape[2] else jacobian
    values: Tensor = torch.linalg.svdvals(torch.linalg.qr(tall, mode="r").R)
    return values


def _gradient(total: Tensor, inputs: Tensor) -> Tensor:
    """d total / d inputs; zero where the output does not depend on them."""
    if not total.requires_grad:
        return torch.zeros_like(inputs)
    (gradient,) = torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True)
    return gradient.detach()
