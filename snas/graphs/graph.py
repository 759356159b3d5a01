"""A perceptron's forward and backward passes as a list of steps: found by tracing its code, and compared with autograd.

Small networks spend most of a step on what surrounds the arithmetic: recording operations for autograd, walking back
through the record, memory for every result, an optimizer that looks at each parameter. A network whose code is a
straight line of operations (skip connections included) needs none of it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from snas.copies import double_copy
from snas.errors import one_line
from snas.graphs.looks import DrawsNumbers, Look, NotStraight, look, memory_of, no_random_numbers
from snas.graphs.proofs import agree, batch_of, disturb
from snas.graphs.steps import ByAutograd, LeakyLine, Normalization, Product, Rectifier, Step, Sum, Value, gradient_of
from snas.graphs.tracing import Node, trace

log = logging.getLogger("snas")

_REMEMBERED = 64  # architectures


class Graph:
    """The operations of networks of one architecture.

    Attributes:
        nodes: one after the other.
        result: which of them has the outputs.
        measures: whether they are what the network computes in evaluation mode too, but for BatchNorm, so that they can
            measure its statistics. Of other people's code nobody knows: it was traced in training.
    """

    def __init__(self, nodes: Sequence[Node], result: int, seen: Look) -> None:
        """Use `Graph.of`."""
        self.nodes = tuple(nodes)
        self.result = result
        self.measures = seen.known
        self._seen = seen.all

    @classmethod
    def of(cls, model: nn.Module, input_shape: Sequence[int], *, known: bool = False) -> Graph | None:
        """The graph of a network on the CPU, which is left as it is; None where there is none.

        There is one where its code, in training, is a straight line of operations on (batch, features) without random
        numbers, of linear layers up to `LARGEST` weights and layers without memory of their own, each used once; and
        where on random numbers, in double precision, the steps give the outputs and gradients that autograd gives.

        Every network is traced, and each code proved once. Where all code is PyTorch's and ours, which depends on
        nothing but what can be seen of the network, those that look alike have the same graph.

        Args:
            model: the network, in training mode.
            input_shape: of one example.
            known: whether networks with other people's code are left alone, and have none.
        """
        try:
            seen = look(model, input_shape)
            return None if seen is None or (known and not seen.known) else _find(model, input_shape, seen)
        except Exception as error:  # whatever the network's code raises when it is traced: it is trained as it is
            log.debug("the network is trained by autograd: %s (%s)", one_line(error), type(error).__name__)
            return None

    def is_of(self, model: nn.Module, input_shape: Sequence[int]) -> bool:
        """Whether a network, whose graph this was, looks as it did, in training mode: no module, attribute or hook is
        another one now. What has changed may be part of what is computed: constants, branches, modules left out."""
        try:
            seen = look(model, input_shape)
        except Exception:  # as for `of`, which says why
            return False
        return seen is not None and seen.all == self._seen

    def frame(self, model: nn.Module, batch: int, features: int) -> Frame:
        """The steps for batches of one size, on the parameters of `model` as they lie now, which must have `grad`s.

        Args:
            model: of the architecture.
            batch: examples.
            features: numbers of an example.
        """
        like = next(model.parameters()).detach()
        return Frame(self.nodes, self.result, model, like.new_zeros(batch, features))


class Frame:
    """The steps of one network for batches of one size.

    Attributes:
        inputs: shape (batch, features); written by whoever calls `forward`.
        classes: features of the outputs.
    """

    def __init__(self, nodes: Sequence[Node], result: int, model: nn.Module, inputs: Tensor) -> None:
        """Use `Graph.frame`."""
        self.inputs = inputs
        self._read = Value(inputs, wanted=False)
        values = {-1: self._read}
        self._steps: list[Step] = []
        for number, node in enumerate(nodes):
            step = _step(node, model, [values[read] for read in node.reads])
            values[number] = step.value
            self._steps.append(step)
        self._result = values[result]
        self.classes = self._result.out.shape[1]

    def forward(self) -> Tensor:
        """The network's outputs for `inputs`, shape (batch, classes); overwritten the next time."""
        for step in self._steps:
            step.forward()
        return self._result.out

    def measure(self) -> Tensor:
        """The outputs; and BatchNorm's running statistics become averages over this batch and those since the reset."""
        for step in self._steps:
            step.measure()
        return self._result.out

    def backward(self, gradient: Tensor) -> None:
        """Write the parameters' `grad` from the loss's gradient by what `forward` gave, of the same shape."""
        for value in (self._read, *(step.value for step in self._steps)):
            value.gradient = None
        self._result.gradient = gradient
        for step in reversed(self._steps):
            if step.value.gradient is not None:
                step.backward(step.value.gradient)


_known: OrderedDict[Hashable, Graph | None] = OrderedDict()  # by how networks look, the latest last
_proved: OrderedDict[Hashable, None] = OrderedDict()  # looks and traced code, the latest last
_LOCK = Lock()  # tracing changes classes of PyTorch's for a moment


def _find(model: nn.Module, input_shape: Sequence[int], seen: Look) -> Graph | None:
    """The graph of a network. Raises NotStraight, or what its code raises, where it has none; of known code, None where
    that was found out before."""
    with _LOCK:
        if seen.known and seen.all in _known:
            _known.move_to_end(seen.all)
            return _known[seen.all]
        try:
            found = _traced(model, input_shape, seen)
        except DrawsNumbers:  # perhaps it was somebody else
            raise
        except NotStraight:
            if seen.known:
                _remember(_known, seen.all, None)
            raise
        if seen.known:
            _remember(_known, seen.all, found)
        return found


def _traced(model: nn.Module, input_shape: Sequence[int], seen: Look) -> Graph:
    """The graph of a network. Raises NotStraight, or what its code raises."""
    with no_random_numbers():
        copy = double_copy(model)
        try:
            nodes, result, code = trace(copy, input_shape)
            graph = Graph(nodes, result, seen)
            if (seen.all, code) not in _proved:
                disturb((*copy.parameters(), *copy.buffers()))
                _prove(graph, copy, input_shape, memory=seen.memory)
            _remember(_proved, (seen.all, code), None)
        finally:  # the tracer's code has it in a cycle: what it is made of goes now
            copy._modules.clear()
            copy._parameters.clear()
    return graph


def _remember(known: OrderedDict[Hashable, Any], key: Hashable, value: Graph | None) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)


def _prove(graph: Graph, copy: nn.Module, input_shape: Sequence[int], *, memory: Hashable) -> None:
    """Raise NotStraight unless the steps compute what the network's code and autograd compute, for random batches.

    Args:
        graph: the steps.
        copy: of the network, in double precision; its parameters have gradients afterwards.
        input_shape: of one example.
        memory: what the network remembers; not to be changed by its code.
    """
    parameters = list(copy.parameters())
    for place, size in enumerate((3, 4)):
        x = batch_of((size, *input_shape), place).to(parameters[0])
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, torch.nan)
        # The steps first: what the network's code does to its parameters is not in them.
        with torch.no_grad():
            frame = graph.frame(copy, size, x[0].numel())
            frame.inputs.copy_(x.flatten(1))
            found = frame.forward().clone()
            wish = batch_of(found.shape, place + 2).to(found)
            frame.backward(wish)
            gradients = [gradient_of(parameter) for parameter in parameters]
        out: Tensor = copy(x)
        if not agree([found], [out.detach()]):
            raise NotStraight("it computes something else")
        expected = torch.autograd.grad(out, parameters, wish, allow_unused=True)
        if not agree(gradients, expected):
            raise NotStraight("it has other gradients, or none")
    if memory_of(copy) != memory:
        raise NotStraight("it remembers something from one batch to the next")
    if graph.measures:
        _prove_measuring(graph, copy, [batch_of((size, *input_shape), size).to(parameters[0]) for size in (4, 3)])


@torch.no_grad()
def _prove_measuring(graph: Graph, copy: nn.Module, batches: Sequence[Tensor]) -> None:
    """Raise NotStraight unless the steps measure the statistics that the code does, all else in evaluation mode."""
    found: list[list[Tensor]] = []
    copy.eval()
    norms = [module for module in copy.modules() if isinstance(module, nn.BatchNorm1d)]
    for written in (True, False):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        before = memory_of(copy)
        outputs = []
        for x in batches:
            frame = graph.frame(copy, len(x), x[0].numel())
            frame.inputs.copy_(x.flatten(1))
            outputs.append((frame.measure() if written else copy(x)).clone())
        found.append([*outputs, *(buffer.to(outputs[0], copy=True) for norm in norms for buffer in norm.buffers())])
        if memory_of(copy) != before:
            raise NotStraight("it remembers something from one batch to the next")
    if not agree(*found):
        raise NotStraight("it computes something else in evaluation mode")


def _step(node: Node, model: nn.Module, reads: Sequence[Value]) -> Step:
    source = reads[0]
    if len(node.reads) == 2:
        return Sum(source, reads[1])
    if node.function is not None:
        return Rectifier(source) if node.function is torch.relu else ByAutograd(node.function, (), source)
    module = model.get_submodule(node.path)
    if type(module) is nn.Linear:
        return Product(module, source)
    if type(module) is nn.BatchNorm1d:
        return Normalization(module, source)
    if type(module) is nn.PReLU and module.num_parameters == 1:
        return LeakyLine(module, source)
    if type(module) is nn.ReLU:
        return Rectifier(source)
    return ByAutograd(module, tuple(module.parameters()), source)
