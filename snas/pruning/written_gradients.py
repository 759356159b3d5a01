"""Gradients of networks whose operations are known, without autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snas.graphs import Graph, watched_everywhere
from snas.pruning.scores import CHUNK, Batch

_log_softmax_backward: Callable[..., Tensor] = torch.ops.aten._log_softmax_backward_data.default


def written_gradient(
    model: nn.Module, weights: Sequence[nn.Parameter], batch: Batch, *, graph: Graph | None = None
) -> list[Tensor] | None:
    """Gradient of the mean loss over all examples, by the network's graph (`snas.graphs`).

    The same as `snas.pruning.passes.total_gradient` gives inside `isolated`, by the same operations of PyTorch's. A
    graph is of code that draws no random numbers and that changes nothing: there is nothing to put back.

    Args:
        model: the network; its gradients and all else are left as they are.
        weights: of the network.
        batch: examples with labels, without masks.
        graph: of the network, known; looked for where it is not given.

    Returns:
        A tensor of each weight's shape, of the caller's own; None where the network has no graph whose code is known,
        or the examples are too many for one pass.
    """
    plain = batch.target == "labels" and batch.masks is None and len(batch.y) <= CHUNK
    if not plain or watched_everywhere() or torch.is_autocast_enabled("cpu"):
        return None
    graph = graph or Graph.of(model, batch.x.shape[1:], known=True)
    if graph is None:
        return None
    like = weights[0]
    if batch.x.device != like.device or batch.x.dtype != like.dtype:
        return None
    rows = batch.x.flatten(1)
    with torch.no_grad(), _own_gradients(model):
        frame = graph.frame(model, *rows.shape)
        frame.inputs.copy_(rows)
        frame.backward(_of_loss(frame.forward(), batch.y))
        return [weight.grad for weight in weights if weight.grad is not None]


def _of_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy by the logits, as PyTorch computes it."""
    of_logarithms = torch.zeros_like(logits).scatter_(1, y.unsqueeze(1), -1 / len(y))
    return _log_softmax_backward(of_logarithms, logits.log_softmax(1), 1, logits.dtype)


@contextmanager
def _own_gradients(model: nn.Module) -> Iterator[None]:
    """Every parameter has room for a gradient; at the end, the one that it had."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.grad = torch.empty_like(parameter)
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient
