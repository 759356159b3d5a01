"""Epochs of a session whose network has a graph: its steps in place of autograd, its parameters in one row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from snas.graphs import Flat, Frame, Graph
from snas.training.evaluation import measuring
from snas.training.rule import TrainingRule

MOST_OUTPUTS = 1 << 20  # numbers that wait for their losses to be computed at once


class WrittenOut:
    """Trains one network by its graph. Results are those of autograd to the order of floating-point operations."""

    def __init__(self, graph: Graph, model: nn.Module, rule: TrainingRule, flat: Flat, mask: Tensor | None) -> None:
        """Make ready.

        Args:
            graph: of the network's architecture.
            model: the network, in training mode, with parameters in `flat`.
            rule: how it is trained.
            flat: its parameters.
            mask: factors of the gradients, as `flat` has them; None where nothing is masked.
        """
        self._graph, self._model, self._rule, self._flat, self._mask = graph, model, rule, flat, mask
        self._frames: dict[int, Frame] = {}

    def holds(self) -> bool:
        """Whether all is where it was left, so that training can go on."""
        return self._flat.are(self._model.parameters()) and self._flat.holds()

    def end(self) -> None:
        """Give back what the network has no use for while it is not trained; another is to be made then."""
        self._flat.give_back()

    @property
    def measures(self) -> bool:
        """Whether it can measure statistics."""
        return self._graph.measures

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
        self._frames.clear()  # modules may have been changed since
        rows, steps, smoothing = x.flatten(1), len(batches), self._rule.label_smoothing
        tally = _Tally(smoothing)
        for index, batch in enumerate(batches):
            size, labels = len(batch), y.index_select(0, batch)
            frame = self._with_examples(rows, batch)
            logits = frame.forward()
            gradient = torch.softmax(logits, 1)  # minus what cross-entropy with label smoothing wants
            if smoothing:
                gradient.sub_(smoothing / logits.shape[1])
            places = labels.unsqueeze(1)
            gradient.scatter_add_(1, places, gradient.new_full((size, 1), smoothing - 1)).mul_(1 / size)
            frame.backward(gradient)
            if self._mask is not None:
                self._flat.gradient.mul_(self._mask)
            self._flat.step(self._rule.learning_rate_at(epoch * steps + index, steps))
            tally.add(logits, labels)
        self._flat.hand_back()
        loss, correct = tally.totals()
        return loss / len(y), correct / len(y)

    @torch.no_grad()
    def measure_statistics(self, x: Tensor, batches: Sequence[Tensor]) -> None:
        """Measure BatchNorm's statistics anew after `train`, as `snas.training.evaluation.measure_statistics`.

        Args:
            x: training examples.
            batches: indices of examples.
        """
        rows = x.flatten(1)
        with measuring(self._model) as norms:
            if norms:
                for batch in batches:
                    self._with_examples(rows, batch).measure()

    def _with_examples(self, rows: Tensor, batch: Tensor) -> Frame:
        """The steps for as many examples, with these as inputs."""
        size = len(batch)
        if size not in self._frames:
            self._frames[size] = self._graph.frame(self._model, size, rows.shape[1])
        frame = self._frames[size]
        torch.index_select(rows, 0, batch, out=frame.inputs)
        return frame


class _Tally:
    """Sums of losses and hits, computed for many batches at once."""

    def __init__(self, label_smoothing: float) -> None:
        self._label_smoothing = label_smoothing
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._numbers = 0
        self._totals = torch.zeros(2, dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take the outputs for a batch."""
        self._waiting.append((logits.clone(), labels))
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
