"""Linear layers in compressed rows: kept weights alone are stored, multiplied, and given gradients, on the CPU.

A mask's places are numbered along its rows. The weight W of shape (out, in) is `values`, shape (kept,), in that order;
with the activations X as (in, batch), features first:

    W X                a bag of rows of X for each row of W, weighted by its values
    W' G               the same with W transposed: its bags, and the values put in its order
    (G X') at places   the product of dense matrices, sampled at the kept places only

Bags of float32 are the fastest of PyTorch's kernels for such products; in float64, where it has no fast bags, the
product of compressed rows is. Indices are int32 throughout, which halves what is read beside the values.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snas.errors import InputError, SnasError


@dataclass(frozen=True, slots=True)
class Pattern:
    """Where a matrix of shape (rows, columns) has its `kept` numbers, row by row and column by column; on the CPU.

    Attributes:
        shape: of the matrix.
        offsets: where each row begins among the places, and the end; int32, shape (rows + 1,).
        columns: of each place; int32, shape (kept,).
        back_offsets: as `offsets`, of the transposed matrix; int32, shape (columns + 1,).
        back_columns: as `columns`, of the transposed matrix: rows of this one; int32, shape (kept,).
        order: numbers of the places in the transposed matrix's order; int32, shape (kept,).

    Example:
        >>> pattern = Pattern.of(torch.tensor([[True, False, True], [True, False, False]]))
        >>> pattern.offsets.tolist(), pattern.columns.tolist(), pattern.order.tolist()
        ([0, 2, 3], [0, 2, 0], [0, 2, 1])
    """

    shape: tuple[int, int]
    offsets: Tensor
    columns: Tensor
    back_offsets: Tensor
    back_columns: Tensor
    order: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Pattern:
        """The places where `mask` (boolean, shape (rows, columns)) is true."""
        rows, columns = (index.int() for index in mask.nonzero(as_tuple=True))
        order = torch.sort(columns, stable=True).indices
        return cls(
            shape=(mask.shape[0], mask.shape[1]),
            offsets=_offsets(rows, mask.shape[0]),
            columns=columns,
            back_offsets=_offsets(columns, mask.shape[1]),
            back_columns=rows[order],
            order=order.int(),
        )

    @classmethod
    def beside(cls, patterns: Sequence[Pattern]) -> Pattern:
        """The pattern of the matrix that has these along its diagonal.

        Example:
            >>> one = Pattern.of(torch.tensor([[True, False], [True, True]]))
            >>> Pattern.beside([one, one]).columns.tolist()
            [0, 0, 1, 2, 2, 3]
        """
        rows, columns, kept = (
            [0, *accumulate(sizes)]
            for sizes in ([p.shape[0] for p in patterns], [p.shape[1] for p in patterns], [p.kept for p in patterns])
        )
        zero = torch.zeros(1, dtype=torch.int32)

        def joined(parts: Iterable[Tensor], shifts: Iterable[int]) -> Tensor:
            return torch.cat([part + shift for part, shift in zip(parts, shifts, strict=False)])

        return cls(
            shape=(rows[-1], columns[-1]),
            offsets=torch.cat((zero, joined((p.offsets[1:] for p in patterns), kept))),
            columns=joined((p.columns for p in patterns), columns),
            back_offsets=torch.cat((zero, joined((p.back_offsets[1:] for p in patterns), kept))),
            back_columns=joined((p.back_columns for p in patterns), rows),
            order=joined((p.order for p in patterns), kept),
        )

    @property
    def kept(self) -> int:
        """How many places there are."""
        return len(self.columns)

    def places(self) -> Tensor:
        """The places' numbers in the whole matrix, counted along the rows; int64, shape (kept,)."""
        rows = torch.repeat_interleave(torch.arange(self.shape[0]), self.offsets.diff().long())
        return rows * self.shape[1] + self.columns

    def gather(self, matrix: Tensor) -> Tensor:
        """The numbers of `matrix` at the places; shape (kept,)."""
        return matrix.reshape(-1)[self.places()]

    def scatter(self, values: Tensor) -> Tensor:
        """The matrix with `values` at the places and zeros elsewhere; values can have gradients."""
        empty = values.new_zeros(self.shape[0] * self.shape[1])
        return empty.index_put((self.places(),), values).reshape(self.shape)


class SparseLinear(nn.Module):
    """y = x W' + b, with W in compressed rows.

    Results are those of `torch.nn.Linear` with masked weights to floating-point reordering. Gradients are first
    derivatives only.

    Attributes:
        values: kept weights along the rows, shape (kept,); a parameter.
        bias: shape (out_features,), or None.
        pattern: where they are.
        features_first: whether results are laid out features first, as the transposed view of an (out, batch) tensor:
            element-wise operations keep that, and the next layer of this kind reads it as it is. Others may be slower
            with it, and dropout draws its numbers in the order of the memory.

    Example:
        >>> linear = nn.Linear(3, 2)
        >>> mask = torch.tensor([[True, False, True], [True, False, False]])
        >>> layer = SparseLinear.from_dense(linear, mask)
        >>> x = torch.ones(4, 3)
        >>> bool((layer(x) - x @ (linear.weight * mask).T - linear.bias).abs().max() < 1e-6), layer.values.shape
        (True, torch.Size([3]))
    """

    values: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self, pattern: Pattern, values: Tensor, bias: nn.Parameter | None, *, features_first: bool = False
    ) -> None:
        """Take kept weights and their places, from `from_dense` for instance."""
        super().__init__()
        self.features_first = features_first
        self.pattern = pattern
        self.out_features, self.in_features = pattern.shape
        self.values = nn.Parameter(values)
        self.register_parameter("bias", bias)

    @classmethod
    def from_dense(cls, linear: nn.Linear, mask: Tensor, *, features_first: bool = False) -> SparseLinear:
        """The layer with the weights of `linear` where `mask` (boolean, shape (out, in)) is true; it shares the bias.

        Raises:
            InputError: for a mask of another shape or type, or weights that are not float32 or float64 on the CPU.
        """
        weight = linear.weight.detach()
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            raise InputError(
                f"mask is {mask.dtype} of shape {tuple(mask.shape)}; expected torch.bool of {tuple(weight.shape)}"
            )
        if weight.dtype not in (torch.float32, torch.float64) or weight.device.type != "cpu":
            raise InputError(
                f"weights are {weight.dtype} on {weight.device.type}; sparse kernels are for float32 and float64 on cpu"
            )
        pattern = Pattern.of(mask.cpu())
        return cls(pattern, pattern.gather(weight), linear.bias, features_first=features_first)

    def to_dense(self) -> nn.Linear:
        """A `torch.nn.Linear` with the same weights, zero where there are none; it shares the bias."""
        linear: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, self.in_features, self.out_features, bias=False, dtype=self.values.dtype
        )
        linear.weight = nn.Parameter(self.weight.detach())
        linear.register_parameter("bias", self.bias)
        return linear.train(self.training)

    @property
    def weight(self) -> Tensor:
        """The whole matrix, shape (out_features, in_features), made anew: for code that does not call the layer."""
        return self.pattern.scatter(self.values)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        x = input.reshape(-1, self.in_features)
        y: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            x, self.values, self.bias, self.pattern, self.features_first
        )
        return y.reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes, as `torch.nn.Linear` shows them, and the number of weights."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, kept={self.pattern.kept}, bias={self.bias is not None}"

    def require(self, mask: Tensor, name: str) -> None:
        """Raise SnasError unless the layer, called `name`, has a weight exactly where `mask` has one."""
        kept = int(torch.count_nonzero(mask))
        if self.pattern.kept != kept or not bool(self.pattern.gather(mask).all()):
            raise SnasError(f"layer {name!r} has {self.pattern.kept} weights at places that are not the mask's {kept}")


class _Product(torch.autograd.Function):
    """x (batch, in), values, bias, pattern, features_first -> (batch, out)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern, features_first: bool
    ) -> Tensor:
        features = x.t().contiguous()
        out = multiply(pattern.offsets, pattern.columns, values, features)
        if bias is not None:
            out += bias.unsqueeze(1)
        ctx.save_for_backward(features, values)
        ctx.pattern, ctx.features_first = pattern, features_first
        return out.t() if features_first else out.t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, values = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        errors = gradient.t().contiguous()
        of_x = of_values = of_bias = None
        if ctx.needs_input_grad[0]:
            turned = values.index_select(0, pattern.order)
            of_x = multiply(pattern.back_offsets, pattern.back_columns, turned, errors).t()
            of_x = of_x if ctx.features_first else of_x.contiguous()
        if ctx.needs_input_grad[1]:
            of_values = sample(pattern, values, errors, features)
        if ctx.needs_input_grad[2]:
            of_bias = errors.sum(1)
        return of_x, of_values, of_bias, None, None


def multiply(offsets: Tensor, columns: Tensor, values: Tensor, features: Tensor) -> Tensor:
    """The matrix in compressed rows times `features`, shape (columns, batch): shape (rows, batch)."""
    if features.dtype == torch.float32:
        out: Tensor = torch.embedding_bag(
            features, columns, offsets, mode=0, per_sample_weights=values, include_last_offset=True
        )[0]
        return out
    return _compressed(offsets, columns, values, (len(offsets) - 1, len(features))) @ features


def sample(pattern: Pattern, values: Tensor, errors: Tensor, features: Tensor) -> Tensor:
    """(errors features') at the places; errors: (rows, batch), features: (columns, batch), values: any (kept,)."""
    if not len(values):
        return values.clone()
    at = _compressed(pattern.offsets, pattern.columns, values, pattern.shape)
    found: Tensor = torch.sparse.sampled_addmm(at, errors, features.t(), beta=0.0).values()
    return found


def _compressed(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    _silence()
    return torch.sparse_csr_tensor(offsets, columns, values, shape, check_invariants=False)


@cache
def _silence() -> None:
    """Have PyTorch say once, where nobody hears it, that compressed rows are in beta state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.zeros(1, 1).to_sparse_csr()


@cache
def available() -> bool:
    """Whether this build of PyTorch has the sampled product on the CPU (it comes with MKL)."""
    pattern = Pattern.of(torch.ones(1, 1, dtype=torch.bool))
    try:
        sample(pattern, torch.ones(1), torch.ones(1, 1), torch.ones(1, 1))
    except RuntimeError:
        return False
    return True


def _offsets(sorted_or_not: Tensor, size: int) -> Tensor:
    """How many numbers below `size` are smaller than 0, 1, ..., `size`; int32, shape (size + 1,)."""
    counts = torch.bincount(sorted_or_not, minlength=size)
    return torch.cat((counts.new_zeros(1), counts.cumsum(0))).int()
