"""Second-order scores: what the curvature of the loss says about each weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from snas.densities import Layer
from snas.pruning.passes import chunks, device_of, isolated, logits_of, losses, total_gradient
from snas.pruning.scores import Batch, scores
from snas.pruning.sensitivity import products

TEMPERATURE = 200.0  # [Wang2020] section 4.1, and the code published with it


@scores.register("grasp")
def grasp(model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """GraSP: by how much the gradient would shrink without the weight ([Wang2020] eq. 8).

    Taking weight w_j away is a step of -w_j along its axis, and changes the squared norm of the gradient g by
    -2 w_j (Hg)_j to first order, H being the Hessian. The score is w_j (Hg)_j: weights are kept whose removal lowers
    the norm most, those go whose removal raises it. [Wang2020] calls -w_j (Hg)_j the importance and removes the largest
    ones, which is the same; presentations that keep the largest -w_j (Hg)_j have the sign the other way round.

    g is that of the weights that are scored and not gone yet. Logits are divided by 200. Hg is the gradient of g v with
    v = g held constant; both are sums over all examples, in chunks. Otherwise as `snip`.

    Returns:
        Layer name -> scores, positive and negative, their absolute values adding up to 1; float32 (float64 for a
        network in that), on the CPU.

    Source:
        [Wang2020] C. Wang, G. Zhang, R. Grosse: Picking winning tickets before training by preserving gradient flow,
        ICLR 2020.
    """
    with isolated(model, layers, batch, generator=generator) as weights, _twice_differentiable(model):
        gradient = total_gradient(model, weights, batch, temperature=TEMPERATURE)
        largest = max(float(g.abs().max()) for g in gradient) or 1.0
        for layer, direction in zip(layers, gradient, strict=True):
            direction.div_(largest)  # the scale is free, and small numbers stay away from zero
            if batch.masks is not None:
                direction.masked_fill_(~batch.masks[layer.name].to(direction.device), 0.0)
        curvature = [torch.zeros_like(weight) for weight in weights]
        for loss in losses(model, batch, temperature=TEMPERATURE):
            if not loss.requires_grad:
                break
            slopes = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            along = torch.stack([(slope * v).sum() for slope, v in zip(slopes, gradient, strict=True)]).sum()
            if along.requires_grad:  # else the loss is linear in the weights
                for total, part in zip(
                    curvature, torch.autograd.grad(along, weights, materialize_grads=True), strict=True
                ):
                    total.add_(part)
    return products(curvature, model, layers, absolute=False)


@scores.register("obd")
def obd(model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Optimal brain damage: w^2 H_jj / 2, what the loss would rise by at a minimum ([LeCun1990] eq. 5).

    H is the generalized Gauss-Newton matrix of the cross-entropy, which is what is left of the Hessian without the
    networks' own curvature: the Levenberg-Marquardt approximation of [LeCun1990] section 2.3. Its diagonal is exact,
    with z the logits of an example, p their softmax, and the mean over the examples:

        H_jj = sum_c p_c (dz_c/dw_j - sum_k p_k dz_k/dw_j)^2

    and the same as the diagonal of the Hessian where the logits are piecewise linear in every single weight, as with
    ReLU and pooling. It does not depend on the labels. BatchNorm layers use the statistics of the whole batch as
    constants, dropout is off; weights that are gone are zero in the network, and scored as in `snip`.

    It takes one backward pass per example and class, and the memory of two gradients.

    Returns:
        Layer name -> scores divided by their sum; float32 (float64 for a network in that), on the CPU.

    Source:
        [LeCun1990] Y. LeCun, J. Denker, S. Solla: Optimal brain damage, NIPS 1989.
    """
    with isolated(model, layers, batch, generator=generator, fixed_statistics=True) as weights:
        diagonal = [torch.zeros_like(weight) for weight in weights]
        for gradients in _roots(model, weights, batch):
            for total, gradient in zip(diagonal, gradients, strict=True):
                total.addcmul_(gradient, gradient)
    # Half of w^2 H is the square of w sqrt(H), up to a factor that is the same for all.
    roots = products([total.sqrt_() for total in diagonal], model, layers, absolute=True)
    norm = sum(float(root.square().sum(dtype=torch.float64)) for root in roots.values()) or 1.0
    return {name: root.square_().div_(norm) for name, root in roots.items()}


def _roots(model: nn.Module, weights: Sequence[Tensor], batch: Batch) -> Iterator[Sequence[Tensor]]:
    """Gradients whose squares add up to the diagonal, one for each example and class c.

    With p the softmax, diag(p) - p p^T = sum_c v_c v_c^T where v_c = sqrt(p_c) (e_c - p). Plain loops: batching them
    (vmap) was two to ten times slower on a CPU, as it turns weight gradients into grouped convolutions.
    """
    for chunk, _ in chunks(batch, device_of(model)):
        for x in torch.split(chunk, 1):
            logits = logits_of(model, x)
            if not logits.requires_grad:
                return
            p = logits.detach().softmax(1)
            directions = p.sqrt().T * (torch.eye(p.shape[1], dtype=p.dtype, device=p.device) - p)
            for c, direction in enumerate(torch.split(directions, 1)):
                yield torch.autograd.grad(
                    logits, weights, direction, retain_graph=c + 1 < len(directions), materialize_grads=True
                )


@contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Kernels that can be differentiated twice: cuDNN's recurrent layers and fused attention cannot."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield
