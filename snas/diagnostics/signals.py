"""Signals at initialization: numbers of a masked network that cost less than training it and may tell how good it is.

None is trusted: every candidate of a search is measured, and `snas analyze signals` says which of them went along with
the final score.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from snas.diagnostics.active_paths import path_signals
from snas.errors import SnasError, one_line
from snas.graphs import Graph
from snas.masks import Masks, weights_of, zero_masked
from snas.pruning.passes import isolated, total_gradient
from snas.pruning.scores import Batch
from snas.pruning.written_gradients import written_gradient

log = logging.getLogger("snas")

EXAMPLES = 128  # of the batch that gradients are measured on

SIGNALS: dict[str, str] = {
    "synflow": "log10 of the synaptic flow, the sum of the outputs with absolute weights",
    "gf1": "gradient flow: sum of the absolute gradients of kept weights",
    "gf2": "gradient flow: Euclidean norm of the gradient of kept weights",
    "egf1": "effective gradient flow: gf1 of each layer, averaged over layers",
    "egf2": "effective gradient flow: gf2 of each layer, averaged over layers",
    "paths": "log10 of the number of paths of kept weights from input to output",
    "width": "share of a layer's units that lie on such a path, averaged over layers",
    "effective": "share of the kept weights that lie on such a path",
}


def measure(model: nn.Module, masks: Masks, batch: Batch, *, generator: torch.Generator) -> dict[str, float]:
    """All signals of a masked network before training; see `SIGNALS`, `gradient_signals` and `path_signals`.

    Nothing is left behind: weights, gradients, buffers, modes and the global random state are as before.

    Args:
        model: the network, masked weights zero.
        masks: which weights it keeps.
        batch: training examples that the gradient is taken on.
        generator: for layers that draw random numbers; a CPU generator.

    Returns:
        Name -> finite number. A signal that this network does not have, or that is beyond double precision, is left
        out.

    Example:
        >>> from snas.densities import Layer
        >>> model, masks = nn.Linear(3, 2), Masks.dense([Layer("weight", (2, 3), parameter="weight")])
        >>> batch = Batch(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> list(measure(model, masks, batch, generator=torch.Generator())) == list(SIGNALS)
        True
    """
    found: dict[str, float] = {}
    graph = Graph.of(model, batch.x.shape[1:], known=True)
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "gradients": partial(gradient_signals, model, masks, batch, generator=generator, graph=graph),
        "paths": partial(path_signals, model, masks, batch.x, graph=graph),
    }
    for what, signals in parts.items():
        try:
            found |= signals()
        except SnasError:
            raise
        except Exception as error:
            # The network's code may be anybody's, and what is measured is not quite what is trained: a candidate is not
            # to fail by it. If the fault shows in training too, it is reported there.
            log.info("%s are not measured: the network cannot be probed (%s)", what, one_line(error))
    return {name: found[name] for name in SIGNALS if name in found and math.isfinite(found[name])}


def gradient_signals(
    model: nn.Module, masks: Masks, batch: Batch, *, generator: torch.Generator, graph: Graph | None = None
) -> dict[str, float]:
    """Norms of the gradient of the mean loss with respect to the kept weights.

    Args:
        model: the network, masked weights zero; unchanged.
        masks: which weights it keeps.
        batch: training examples; normalizations use its statistics, dropout is off.
        generator: for layers that draw random numbers; a CPU generator.
        graph: of the network, known (`snas.graphs`); looked for where it is not given.

    Returns:
        gf1, gf2: ||g||_p of all layers' masked gradients as one vector ([Tessera2021] eq. 3.5 with eq. 3.6's g).
        egf1, egf2: (1/L) sum_l ||g_l||_p, in which every layer counts alike ([Tessera2021] eq. 3.7).

    Source:
        [Tessera2021] K. Tessera: On sparsity in deep learning, MSc report, 2021, section 3.2.2.
    """
    gradients = written_gradient(model, weights_of(model, masks.layers), batch, graph=graph)
    if gradients is None:
        with isolated(model, masks.layers, batch, generator=generator) as weights:
            gradients = total_gradient(model, weights, batch)
    for mask, gradient in zip(masks.values(), gradients, strict=True):
        zero_masked(gradient, mask)
    return flow_norms(gradients)


def flow_norms(gradients: Sequence[Tensor]) -> dict[str, float]:
    """Gradient flow and effective gradient flow of the layers' gradients, zero where a weight is masked.

    Example:
        >>> flow_norms([torch.tensor([3.0, -4.0]), torch.tensor([12.0])])
        {'gf1': 19.0, 'gf2': 13.0, 'egf1': 9.5, 'egf2': 8.5}
    """
    exact = [gradient.to("cpu", torch.float64, copy=True) for gradient in gradients]
    ones = [float(gradient.abs_().sum()) for gradient in exact]
    twos = [float(gradient.square_().sum().sqrt()) for gradient in exact]
    return {
        "gf1": sum(ones),
        "gf2": math.hypot(*twos),
        "egf1": sum(ones) / len(ones),
        "egf2": sum(twos) / len(twos),
    }
