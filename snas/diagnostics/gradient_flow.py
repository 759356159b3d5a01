"""Gradient flow along a training: norms of the gradient, over the network as one vector and averaged over layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from snas.masks import weights_of
from snas.training.session import Session
from snas.training.watcher import Watcher

POINTS = 11  # epochs at which it is measured, as in the source
WHOLE = "-all"  # ends the names of norms that masked weights count in

FLOWS: dict[str, str] = {
    "gf1": "sum of the absolute gradients of kept weights",
    "gf2": "Euclidean norm of the gradient of kept weights",
    "egf1": "effective gradient flow: gf1 of each layer, averaged over layers",
    "egf2": "effective gradient flow: gf2 of each layer, averaged over layers",
    **{
        f"{name}{WHOLE}": f"{what}, masked weights included"
        for name, what in (("gf1", "the same as gf1"), ("gf2", "as gf2"), ("egf1", "as egf1"), ("egf2", "as egf2"))
    },
}


def measured_epochs(epochs: int) -> list[int]:
    """The epochs (1, 2 ...) at whose end gradient flow is measured: 11 from the first to the last, all where fewer.

    Example:
        >>> measured_epochs(1000), measured_epochs(3)
        ([1, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000], [1, 2, 3])
    """
    return sorted({1 + (epochs - 1) * part // (POINTS - 1) for part in range(POINTS)})


def gradient_flow(gradients: Sequence[Tensor], masks: Sequence[Tensor] | None) -> dict[str, float]:
    """Norms of the layers' gradients.

    Args:
        gradients: of the loss with respect to each layer's weights; masked weights have theirs too, unless there are no
            masks.
        masks: of each layer, true where a weight is kept; None where `gradients` are of kept weights alone, whatever
            their shape.

    Returns:
        gf_p = ||g||_p of all layers as one vector ([Tessera2021] eq. 3.5), EGF_p = (1/L) sum_l ||g_l||_p (eq. 3.7),
        p = 1 and 2, of the gradients of kept weights (eq. 3.6); with masks also of all gradients, under names that end
        in "-all".

    Source:
        [Tessera2021] K. Tessera: On sparsity in deep learning, MSc report, 2021, section 3.2.2.

    Example:
        >>> found = gradient_flow([torch.tensor([3.0, 4.0])], [torch.tensor([True, False])])
        >>> found["egf2"], found["egf2-all"]
        (3.0, 5.0)
    """
    everything = _norms(gradients)
    if masks is None:
        return _flows(everything)
    # A layer that keeps everything has the same norms either way.
    lacking = [place for place, mask in enumerate(masks) if not bool(mask.all())]
    kept = dict(zip(lacking, _norms([_masked(gradients[place], masks[place]) for place in lacking]), strict=True))
    of_kept = [kept.get(place, norms) for place, norms in enumerate(everything)]
    return _flows(of_kept) | {f"{name}{WHOLE}": value for name, value in _flows(everything).items()}


def _masked(gradient: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.to(gradient.device), gradient, 0.0)


def _norms(gradients: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Sum of absolute values, and Euclidean norm, of each."""
    if not gradients:
        return []
    parts = list(gradients)
    both = torch.stack([*torch._foreach_norm(parts, 1), *torch._foreach_norm(parts, 2)]).tolist()
    return list(zip(both[: len(parts)], both[len(parts) :], strict=True))


def _flows(norms: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Gradient flow, and effective gradient flow, of the layers' norms."""
    ones, twos = zip(*norms, strict=True)
    return {
        "gf1": sum(ones),
        "gf2": math.hypot(*twos),
        "egf1": sum(ones) / len(ones),
        "egf2": sum(twos) / len(twos),
    }


class FlowWatcher(Watcher):
    """Measures gradient flow at the end of 11 epochs evenly spread over the training ([Tessera2021] section 3.3.1).

    The gradient is that of the training itself, of the epoch's last whole batch, at the weights before that step: no
    pass is made for it, so that it costs a few norms. Where only kept weights are stored, or multiplied, there is no
    gradient of masked ones, and the norms of all gradients are left out.

    Attributes:
        found: epoch -> name -> value.
    """

    def __init__(self) -> None:
        self.found: dict[int, dict[str, float]] = {}

    def on_gradients(self, session: Session, index: int, steps: int) -> None:
        """Measure, where it is time."""
        number = session.epoch + 1
        whole = max(1, len(session.data.train.y) // session.rule.batch_size)
        if index == min(whole, steps) - 1 and number in measured_epochs(session.epochs):
            self.found[number] = session_flow(session)

    def on_epoch(self, session: Session, number: int) -> Mapping[str, float]:
        """What was measured in this epoch."""
        return self.found.get(number, {})


@torch.no_grad()
def session_flow(session: Session) -> dict[str, float]:
    """Gradient flow of the gradients that a session has now; norms that are not finite are left out."""
    gradients = []
    for layer in session.masks.layers:
        if layer.name in session.compressed:
            weight: Tensor = session.compressed[layer.name].values
        else:
            (weight,) = weights_of(session.model, [layer])
        gradients.append(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    masks = [session.masks[layer.name] for layer in session.masks.layers]
    if session.whole_gradients:
        found = gradient_flow(gradients, masks)
    else:
        stored = [
            gradient if gradient.shape != mask.shape else _masked(gradient, mask)
            for gradient, mask in zip(gradients, masks, strict=True)
        ]
        found = gradient_flow(stored, None)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def average_flow(found: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The mean over the epochs of each norm that all of them have.

    Example:
        >>> average_flow({1: {"egf2": 2.0}, 5: {"egf2": 4.0}})
        {'egf2': 3.0}
    """
    names = [name for name in FLOWS if found and all(name in values for values in found.values())]
    return {name: fmean(values[name] for values in found.values()) for name in names}
