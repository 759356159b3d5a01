"""How much each weight matters, before training.

All scores have one signature: network, layers and a batch in; layer name -> score of each weight out, of the weight's
shape, higher is kept. They leave no trace in the network. To add one, write such a function and decorate it:

    @scores.register("mine")
    def mine(model, layers, batch, *, generator):
        \"\"\"One line that says what it is.\"\"\"
        return {layer.name: ... for layer in layers}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from snas.densities import Layer
from snas.masks import Masks, weights_of
from snas.plugins import Family

Target = Literal["labels", "uniform", "raw", "softmax"]
CHUNK = 512  # examples that go through the network at once


@dataclass(frozen=True)
class Batch:
    """What a score is computed from.

    Attributes:
        x: inputs, shape (examples, *input_shape).
        y: classes, shape (examples,).
        target: what the loss compares the output with: the "labels"; the "uniform" distribution; or the network's own
            prediction averaged over the examples, "raw" outputs or their "softmax" ([Lee2020] section 4.5.2).
        masks: weights that are gone already, where pruning goes in rounds: scores are those of the masked network,
            whose weights the model still has; None keeps all.
    """

    x: Tensor
    y: Tensor
    target: Target = "labels"
    masks: Masks | None = None

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and classes, at most `size` examples at a time."""
        return zip(torch.split(self.x, size), torch.split(self.y, size), strict=True)


class Score(Protocol):
    """How much each weight matters."""

    def __call__(
        self, model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Score every weight of `layers`.

        Args:
            model: the dense network at its initial weights; unchanged on return.
            layers: the layers to score.
            batch: training examples, and what the score may know beside them.
            generator: the only source of randomness; a CPU generator.

        Returns:
            Layer name -> scores of the weight's shape, higher is kept.
        """
        ...


scores: Family[Score] = Family(
    "score",
    group="snas.scores",
    modules=("snas.pruning.sensitivity", "snas.pruning.curvature", "snas.pruning.synflow"),
)


@scores.register("random")
def random(model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Every weight alike: scores are uniform random numbers."""
    return {layer.name: torch.rand(layer.shape, generator=generator) for layer in layers}


@scores.register("magnitude")
def magnitude(
    model: nn.Module, layers: Sequence[Layer], batch: Batch, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """Absolute value of the weight ([Lee2019] eq. 3.2)."""
    return {layer.name: weight.detach().abs() for layer, weight in zip(layers, weights_of(model, layers), strict=True)}
