"""An epoch of a session whose network has a graph: its steps in place of autograd, its parameters in one row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from snas.graphs import Flat, Frame, Graph
from snas.training.rule import TrainingRule

MOST_OUTPUTS = 1 << 20  # numbers that wait for their losses to be computed at once


class WrittenOut:
    """Trains one network by its graph. Results are those of autograd to the order of floating-point operations."""

    def __init__(self, graph: Graph, model: nn.Module, rule: TrainingRule, flat: Flat, mask: Tensor | None) -> None:
        """Make ready for one epoch.

        Args:
            graph: of the network's architecture.
            model: the network, in training mode, with parameters in `flat`.
            rule: how it is trained.
            flat: its parameters.
            mask: factors of the gradients, as `flat` has them; None where nothing is masked.
        """
        self._graph, self._model, self._rule, self._flat, self._mask = graph, model, rule, flat, mask
        self._frames: dict[int, Frame] = {}

    @torch.no_grad()
    def train(self, x: Tensor, y: Tensor, batches: Sequence[Tensor], epoch: int) -> tuple[float, float]:
        """Train an epoch.

        Args:
            x: training examples.
            y: their labels.
            batches: indices of examples.
            epoch: epochs that it has.

        Returns:
            Mean loss over the examples, each before the step that it is in, and the fraction classified correctly.
        """
        rows, steps = x.flatten(1), len(batches)
        targets: Tensor | None = None
        tally = _Tally(self._rule.label_smoothing)
        for index, batch in enumerate(batches):
            size = len(batch)
            if size not in self._frames:
                self._frames[size] = self._graph.frame(self._model, size, rows.shape[1])
            frame = self._frames[size]
            torch.index_select(rows, 0, batch, out=frame.inputs)
            logits = frame.forward()
            if targets is None:
                targets = self._targets(y, logits)
            gradient = torch.softmax(logits, 1)
            gradient.sub_(targets.index_select(0, batch)).mul_(1 / size)
            frame.backward(gradient)
            if self._mask is not None:
                self._flat.gradient.mul_(self._mask)
            self._flat.step(self._rule.learning_rate_at(epoch * steps + index, steps))
            tally.add(logits, y, batch)
        self._flat.hand_back()
        loss, correct = tally.totals()
        return loss / len(y), correct / len(y)

    def _targets(self, y: Tensor, logits: Tensor) -> Tensor:
        """Of each example, the distribution that cross-entropy with label smoothing wants; like the logits."""
        classes, smoothing = logits.shape[1], self._rule.label_smoothing
        targets = logits.new_full((len(y), classes), smoothing / classes)
        return targets.scatter_(1, y.unsqueeze(1), 1 - smoothing + smoothing / classes)


class _Tally:
    """Sums of losses and hits, computed for many batches at once."""

    def __init__(self, label_smoothing: float) -> None:
        self._label_smoothing = label_smoothing
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._numbers = 0
        self._totals = torch.zeros(2, dtype=torch.float64)

    def add(self, logits: Tensor, y: Tensor, batch: Tensor) -> None:
        """Take the outputs for a batch of the examples that have labels `y`."""
        self._waiting.append((logits.clone(), y.index_select(0, batch)))
        self._numbers += logits.numel()
        if self._numbers > MOST_OUTPUTS:
            self._compute()

    def totals(self) -> tuple[float, float]:
        """Loss and hits, summed over all examples."""
        self._compute()
        loss, correct = self._totals.tolist()
        return loss, correct

    def _compute(self) -> None:
        logits, labels = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self._label_smoothing)
        self._totals += torch.stack((losses.double().sum(), (logits.argmax(1) == labels).sum()))
        self._waiting, self._numbers = [], 0
