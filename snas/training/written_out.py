"""Epochs of a session whose network has a graph: its steps in place of autograd, its parameters in one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from snas.graphs import Flat, Frame, Graph, the_same, watched_everywhere
from snas.training.evaluation import measuring
from snas.training.rule import TrainingRule

MOST_OUTPUTS = 1 << 20  # numbers of which the losses are computed at once


class Writer:
    """Looks for a network's graph, and keeps what trains by it as long as the network stays as it is."""

    def __init__(self) -> None:
        """Look when the first epoch begins."""
        self._graph: Graph | None = None
        self._looked = False
        self._kept: WrittenOut | None = None

    def open(
        self,
        model: nn.Module,
        x: Tensor,
        rule: TrainingRule,
        optimizer: Optimizer,
        factor_of: Callable[[nn.Parameter], Tensor | None],
    ) -> WrittenOut | None:
        """What trains a network, the same each time, for an epoch; None where that is for autograd.

        Args:
            model: the network, in training mode, on the CPU.
            x: training examples.
            rule: how it is trained, by steps only in float32 or more.
            optimizer: of the network's parameters.
            factor_of: what a parameter's gradient is multiplied with; None where it has no mask.
        """
        before, self._kept = self._kept, None
        if watched_everywhere() or rule.precision != "fp32" or not x.is_contiguous():
            return None
        shape = x.shape[1:]
        if not self._looked or (self._graph is not None and not self._graph.is_of(model, shape)):
            self._graph, self._looked, before = Graph.of(model, shape), True, None
        if self._graph is None or x.dtype != next(model.parameters()).dtype:
            return None
        if before is None or not before.holds():
            flat = Flat(model.parameters(), optimizer, rule.make_optimizer)
            before = WrittenOut(self._graph, model, rule, flat, flat.laid_out(factor_of))
        self._kept = before
        return before

    def rest(self) -> None:
        """Give back memory that is of use in training alone."""
        if self._kept is not None:
            self._kept.end()
            self._kept = None


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
        self._modules = list(model.modules())
        self._frames: dict[int, Frame] = {}

    def holds(self) -> bool:
        """Whether all is where it was left, so that training can go on."""
        same = the_same(self._model.modules(), self._modules)
        return same and self._flat.are(self._model.parameters()) and self._flat.holds()

    def end(self) -> None:
        """Give back what the network has no use for while it is not trained; another is to be made then."""
        self._flat.give_back()

    @property
    def measures(self) -> bool:
        """Whether it can measure statistics."""
        return self._graph.measures

    @property
    def row(self) -> Tensor:
        """The network's parameters, one behind the other."""
        return self._flat.row

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
        rows, steps, index = x.flatten(1), len(batches), epoch * len(batches)
        totals = torch.zeros(2, dtype=torch.float64)
        classes = self._frame(len(batches[0]), rows.shape[1]).classes
        for group in _grouped(batches, max(1, MOST_OUTPUTS // classes)):
            outputs = _Outputs(y.index_select(0, torch.cat(group)), classes, rows.dtype, self._rule.label_smoothing)
            for batch in group:
                frame = self._with_examples(rows, batch)
                frame.backward(outputs.take(frame.forward()))
                if self._mask is not None:
                    self._flat.gradient.mul_(self._mask)
                self._flat.step(self._rule.learning_rate_at(index, steps))
                index += 1
            totals += outputs.totals()
        self._flat.hand_back()
        loss, correct = (totals / len(y)).tolist()
        return loss, correct

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
        frame = self._frame(len(batch), rows.shape[1])
        torch.index_select(rows, 0, batch, out=frame.inputs)
        return frame

    def _frame(self, size: int, features: int) -> Frame:
        """The steps for batches of that size."""
        if size not in self._frames:
            self._frames[size] = self._graph.frame(self._model, size, features)
        return self._frames[size]


class _Outputs:
    """What a network says of the examples of several batches, one after the other, and what it should say."""

    def __init__(self, labels: Tensor, classes: int, dtype: torch.dtype, label_smoothing: float) -> None:
        """Expect outputs of that type for examples with these labels."""
        self._labels = labels
        self._label_smoothing = label_smoothing
        self._logits = torch.empty(len(labels), classes, dtype=dtype)
        self._wanted = torch.full_like(self._logits, label_smoothing / classes)  # probabilities
        self._wanted.scatter_add_(1, labels.unsqueeze(1), self._wanted.new_full((len(labels), 1), 1 - label_smoothing))
        self._taken = 0

    def take(self, logits: Tensor) -> Tensor:
        """Note the outputs for the next batch; returns the gradient of their mean cross-entropy by them."""
        start, size = self._taken, len(logits)
        self._taken += size
        self._logits.narrow(0, start, size).copy_(logits)
        return torch.softmax(logits, 1).sub_(self._wanted.narrow(0, start, size)).mul_(1 / size)

    def totals(self) -> Tensor:
        """Loss and hits, summed over all examples; shape (2,), in double precision."""
        losses = functional.cross_entropy(
            self._logits, self._labels, reduction="none", label_smoothing=self._label_smoothing
        )
        return torch.stack((losses.double().sum(), (self._logits.argmax(1) == self._labels).sum()))


def _grouped(batches: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Split batches into groups of about `most` examples, each of one batch or more."""
    group: list[Tensor] = []
    examples = 0
    for batch in batches:
        group.append(batch)
        examples += len(batch)
        if examples >= most:
            yield group
            group, examples = [], 0
    if group:
        yield group
