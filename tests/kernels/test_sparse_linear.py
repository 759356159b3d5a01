from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from snas.errors import InputError, SnasError
from snas.kernels.sparse_linear import Pattern, SparseLinear, available

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
pytestmark = pytest.mark.skipif(not available(), reason="this build of PyTorch has no sampled product")


def close(one: torch.Tensor, two: torch.Tensor) -> None:
    """Relative to the largest number, as rounding of sums is."""
    assert one.shape == two.shape
    assert one.dtype == two.dtype
    assert (one - two).abs().max() <= TOLERANCE[one.dtype] * two.abs().max()


def random_mask(rows: int, columns: int, kept: int) -> torch.Tensor:
    mask = torch.zeros(rows * columns, dtype=torch.bool)
    mask[torch.randperm(rows * columns, generator=torch.Generator().manual_seed(kept))[:kept]] = True
    return mask.view(rows, columns)


@pytest.mark.parametrize("features_first", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(1,), (33,), (3, 5)])
@pytest.mark.parametrize("kept", [1, 19, 399, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_and_gradients_are_those_of_masked_dense(dtype, kept, lead, bias, features_first):
    torch.manual_seed(0)
    linear = nn.Linear(20, 20, bias=bias, dtype=dtype)
    mask = random_mask(20, 20, kept)
    weight = (linear.weight.detach() * mask).requires_grad_()
    dense_bias = linear.bias.detach().clone().requires_grad_() if bias else None
    sparse = SparseLinear.from_dense(linear, mask, features_first=features_first)
    x, y = (torch.randn(*lead, 20, dtype=dtype, requires_grad=True) for _ in range(2))
    y.data.copy_(x)
    errors = torch.randn(*lead, 20, dtype=dtype)
    functional.linear(x, weight, dense_bias).backward(errors)
    out = sparse(y)
    out.backward(errors)
    close(out.detach(), functional.linear(x, weight, dense_bias).detach())
    close(y.grad, x.grad)
    close(sparse.values.grad, weight.grad[mask])
    if bias:
        close(sparse.bias.grad, dense_bias.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_a_wide_network(dtype):
    """The acceptance figure, on layers wide enough to run in blocks and threads."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(300, 600), nn.ReLU(), nn.Linear(600, 500), nn.ReLU(), nn.Linear(500, 10))
    network = network.to(dtype)
    masks = {i: torch.rand_like(network[i].weight) < 0.05 for i in (0, 2, 4)}
    with torch.no_grad():
        for i, mask in masks.items():
            network[i].weight.mul_(mask)
    other = copy.deepcopy(network)
    for i, mask in masks.items():
        other[i] = SparseLinear.from_dense(other[i], mask, features_first=True)
    x, y = torch.randn(128, 300, dtype=dtype), torch.randint(10, (128,))
    for one in (network, other):
        functional.cross_entropy(one(x), y).backward()
    for i, mask in masks.items():
        close(other[i].values.grad, network[i].weight.grad[mask])
        close(other[i].bias.grad, network[i].bias.grad)


def test_an_empty_row_a_full_row_and_an_empty_column():
    mask = torch.tensor([[False] * 4, [True] * 4, [False, True, False, False]])
    linear = nn.Linear(4, 3)
    sparse = SparseLinear.from_dense(linear, mask)
    x = torch.randn(5, 4, requires_grad=True)
    sparse(x).sum().backward()
    close(x.grad, (linear.weight.detach() * mask).sum(0).expand(5, 4))
    close(sparse(x).detach(), functional.linear(x, linear.weight * mask, linear.bias).detach())


def test_a_layer_without_weights_gives_its_bias():
    sparse = SparseLinear.from_dense(nn.Linear(4, 3), torch.zeros(3, 4, dtype=torch.bool))
    x = torch.randn(2, 4, requires_grad=True)
    out = sparse(x)
    out.sum().backward()
    assert torch.equal(out, sparse.bias.expand(2, 3))
    assert sparse.values.grad.shape == (0,)
    assert not x.grad.any()


@pytest.mark.parametrize("features_first", [False, True])
def test_results_are_laid_out_as_asked(features_first):
    sparse = SparseLinear.from_dense(nn.Linear(6, 4), random_mask(4, 6, 9), features_first=features_first)
    x = torch.randn(3, 6, requires_grad=True)
    out = sparse(x)
    assert out.t().is_contiguous() == features_first
    assert out.is_contiguous() != features_first


def test_no_gradient_is_computed_that_nobody_asked_for(monkeypatch):
    products = []
    import snas.kernels.sparse_linear as room

    real = room.multiply
    monkeypatch.setattr(room, "multiply", lambda *arguments: (products.append(1), real(*arguments))[1])
    sparse = SparseLinear.from_dense(nn.Linear(6, 4), random_mask(4, 6, 9))
    sparse(torch.randn(3, 6)).sum().backward()
    assert len(products) == 1
    sparse(torch.randn(3, 6, requires_grad=True)).sum().backward()
    assert len(products) == 3


def test_there_and_back():
    linear = nn.Linear(7, 5)
    mask = random_mask(5, 7, 12)
    sparse = SparseLinear.from_dense(linear, mask).eval()
    dense = sparse.to_dense()
    assert torch.equal(dense.weight, linear.weight * mask)
    assert dense.bias is linear.bias
    assert not dense.training
    assert torch.equal(sparse.values, linear.weight[mask])
    assert sorted(sparse.state_dict()) == ["bias", "values"]
    assert "kept=12" in repr(sparse)


def test_the_pattern_says_the_same_in_both_directions():
    """Second way: torch's own conversion of the matrix and of its transpose."""
    mask = random_mask(9, 6, 20)
    pattern = Pattern.of(mask)
    numbers = torch.zeros(9, 6)
    numbers[mask] = torch.arange(1.0, 21)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows, columns = numbers.to_sparse_csr(), numbers.t().contiguous().to_sparse_csr()
    assert pattern.offsets.tolist() == rows.crow_indices().tolist()
    assert pattern.columns.tolist() == rows.col_indices().tolist()
    assert pattern.back_offsets.tolist() == columns.crow_indices().tolist()
    assert pattern.back_columns.tolist() == columns.col_indices().tolist()
    assert torch.equal(rows.values()[pattern.order.long()], columns.values())
    assert {tensor.dtype for tensor in (pattern.offsets, pattern.columns, pattern.order)} == {torch.int32}
    assert torch.equal(pattern.scatter(rows.values()), numbers)


def test_the_whole_matrix_can_be_read_and_has_gradients():
    linear, mask = nn.Linear(4, 3, bias=False), random_mask(3, 4, 5)
    sparse = SparseLinear.from_dense(linear, mask)
    x = torch.randn(2, 4)
    functional.linear(x, sparse.weight).sum().backward()
    by_hand = sparse.values.grad.clone()
    sparse.values.grad = None
    sparse(x).sum().backward()
    close(by_hand, sparse.values.grad)


def test_a_mask_of_another_place_is_noticed():
    sparse = SparseLinear.from_dense(nn.Linear(4, 3), random_mask(3, 4, 5))
    sparse.require(random_mask(3, 4, 5), "fc")
    with pytest.raises(SnasError, match="layer 'fc' has 5 weights at places that are not the mask's 6"):
        sparse.require(random_mask(3, 4, 6), "fc")
    with pytest.raises(SnasError, match="not the mask's 5"):
        sparse.require(random_mask(3, 4, 5).flip(0), "fc")


def test_what_cannot_be_compressed_is_refused():
    with pytest.raises(InputError, match=r"mask is torch.bool of shape \(4, 3\)"):
        SparseLinear.from_dense(nn.Linear(4, 3), torch.ones(4, 3, dtype=torch.bool))
    with pytest.raises(InputError, match="bfloat16 on cpu"):
        SparseLinear.from_dense(nn.Linear(4, 3, dtype=torch.bfloat16), torch.ones(3, 4, dtype=torch.bool))
