"""A perceptron's forward and backward passes as a list of steps: found by tracing its code, and compared with autograd.

Small networks spend most of a step on what surrounds the arithmetic: recording operations for autograd, walking back
through the record, memory for every result, an optimizer that looks at each parameter. A network whose code is a
straight line of operations (skip connections included) needs none of it.
"""

from __future__ import annotations

import copy
import logging
import operator
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock, get_ident
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules import module as module_base

from snas.errors import one_line
from snas.graphs.proofs import close, disturbed, own_attributes
from snas.graphs.steps import ByAutograd, LeakyLine, Normalization, Product, Rectifier, Step, Sum, Value

log = logging.getLogger("snas")

LARGEST = 1 << 19  # weights of a layer: beyond, its product takes nearly all of a step
_REMEMBERED = 64  # architectures
_PLAIN = (int, float, bool, str, bytes, NoneType, torch.dtype, torch.device)  # attributes that count by their value
_CODE = (type, FunctionType, BuiltinFunctionType)  # attributes that count by identity
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RESHAPES = ("flatten", "view", "reshape", torch.flatten, torch.reshape)
_RECTIFIERS = (functional.relu, torch.relu, "relu")


class _Straight(Exception):
    """The network's code is not a straight line of operations that can be written out; the message says why."""


@dataclass(frozen=True, slots=True)
class _Node:
    """One operation: what it is, whose parameters it has, and which earlier ones it reads (-1: the input).

    Attributes:
        reads: one number, or two that are added.
        path: of the module, where it is one.
        function: of one value, where it is one.
    """

    reads: tuple[int, ...]
    path: str = ""
    function: Callable[[Tensor], Tensor] | None = None


class Graph:
    """The operations of networks of one architecture."""

    def __init__(self, nodes: Sequence[_Node], result: int) -> None:
        """Use `Graph.of`."""
        self._nodes = tuple(nodes)
        self._result = result

    @classmethod
    def of(cls, model: nn.Module, input_shape: Sequence[int]) -> Graph | None:
        """The graph of a network on the CPU, which is left as it is; None where there is none.

        There is one where its code, in training, is a straight line of operations on (batch, features) without random
        numbers, of linear layers up to `LARGEST` weights and layers without memory of their own, each used once; and
        where on random numbers, in double precision, the steps give the outputs and gradients that autograd gives.
        """
        if not _may_have(model):
            return None
        try:
            with _LOCK, _no_random_numbers():
                found, key = _trace(model, tuple(input_shape))
                if key not in _proved:
                    _prove(found, model, tuple(input_shape))
                    _proved[key] = None
                    if len(_proved) > _REMEMBERED:
                        _proved.popitem(last=False)
        except Exception as error:  # whatever the network's code raises when it is traced: it is trained as it is
            log.debug("the network is trained by autograd: %s (%s)", one_line(error), type(error).__name__)
            return None
        return found

    def frame(self, model: nn.Module, batch: int, features: int) -> Frame:
        """The steps for batches of one size, on the parameters of `model` as they lie now, which must have `grad`s.

        Args:
            model: of the architecture.
            batch: examples.
            features: numbers of an example.
        """
        like = next(model.parameters()).detach()
        return Frame(self._nodes, self._result, model, like.new_zeros(batch, features))


class Frame:
    """The steps of one network for batches of one size.

    Attributes:
        inputs: shape (batch, features); written by whoever calls `forward`.
    """

    def __init__(self, nodes: Sequence[_Node], result: int, model: nn.Module, inputs: Tensor) -> None:
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


_proved: OrderedDict[Hashable, None] = OrderedDict()  # what was traced, the latest last
_LOCK = Lock()  # tracing changes classes of PyTorch's for a moment


def _step(node: _Node, model: nn.Module, reads: Sequence[Value]) -> Step:
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


def watched_everywhere() -> bool:
    """Whether somebody has hooks on all modules of the process."""
    return any(
        value for name, value in vars(module_base).items() if name.startswith("_global_") and name.endswith("_hooks")
    )


def _may_have(model: nn.Module) -> bool:
    """Whether a network may have a graph, seen from its modules."""
    linears = 0
    for module in model.modules():
        hooks = any(value for name, value in vars(module).items() if name.endswith("_hooks"))
        if hooks or "forward" in vars(module) or module.training is not True:
            return False
        if type(module) is not nn.BatchNorm1d and any(True for _ in module.buffers(recurse=False)):
            return False
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return False
        linears += type(module) is nn.Linear
    parameters = list(model.parameters())
    return (
        linears > 0
        and len(list(model.named_parameters(remove_duplicate=False))) == len(parameters)
        and len({parameter.dtype for parameter in parameters}) == 1
        and all(_is_usual(parameter) for parameter in parameters)
    )


def _is_usual(parameter: nn.Parameter) -> bool:
    return (
        type(parameter) is nn.Parameter
        and parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.float64)
        and 1 <= parameter.ndim <= 2
        and parameter.numel() <= LARGEST
        and parameter.requires_grad
        and not parameter._backward_hooks
        and not parameter._post_accumulate_grad_hooks
    )


def _memory_of(model: nn.Module) -> Hashable:
    """Values of what modules keep in attributes of their own. Raises _Straight for values that cannot be told."""
    return tuple((path, _value_of(own_attributes(module), where=path)) for path, module in model.named_modules())


@contextmanager
def _no_random_numbers() -> Iterator[None]:
    """Raise _Straight if random numbers are drawn from global generators herein, which are put back."""
    before = torch.random.get_rng_state()
    numpys: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    pythons = random.getstate()
    try:
        yield
        after: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
        same = after["state"]["pos"] == numpys["state"]["pos"] and after["gauss"] == numpys["gauss"]
        same = same and np.array_equal(after["state"]["key"], numpys["state"]["key"])
        if not same or random.getstate() != pythons or not torch.equal(torch.random.get_rng_state(), before):
            raise _Straight("it draws random numbers")
    finally:
        torch.random.set_rng_state(before)
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


def _value_of(value: object, *, where: str) -> Hashable:
    """An attribute as something that equal attributes have in common, and others not."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, _CODE):
        return value
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_value_of(each, where=where) for each in value)
    if isinstance(value, dict):
        return dict, tuple((_value_of(key, where=where), _value_of(each, where=where)) for key, each in value.items())
    raise _Straight(f"module {where!r} has an attribute of type {type(value).__name__}")


class _Tracer(fx.Tracer):
    """Looks into modules that are made of others, and no further; other threads' networks are none of its business."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one operation."""
        return not any(True for _ in m.children())

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Note a module, or look into it. All modules of the process come here while one is traced."""
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


class _Shapes(fx.Interpreter):
    """Computes what was traced, and notes the shapes of the tensors."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute one operation."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = value.shape
        return value


def _trace(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[Graph, Hashable]:
    """Write the network's operations down; and what two networks have in common where the proof for one is that for
    the other. Raises _Straight, or what its code raises."""
    before = _memory_of(model)
    model = copy.deepcopy(model).train()
    traced = fx.GraphModule(model, _Tracer().trace(model))
    like = next(model.parameters())
    shapes = _Shapes(traced)
    shapes.run(torch.ones(2, *input_shape, dtype=like.dtype))
    numbers: dict[fx.Node, int] = {}
    nodes: list[_Node] = []
    used: list[str] = []
    result = None
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            if numbers:
                raise _Straight("its code takes more than one input")
            numbers[node] = -1
            continue
        if node.op == "output":
            (value,) = node.args
            result = numbers[value]
            continue
        shape = shapes.found.get(node)
        if shape is None:  # a size, or part of one
            continue
        tensors = [argument for argument in node.all_input_nodes if argument in numbers]
        if len(shape) != 2 or shape[0] != 2:
            raise _Straight("not all that it computes is (batch, features)")
        if node.target in _RESHAPES:
            numbers[node] = numbers[tensors[0]]
            continue
        if node.op == "call_module":
            used.append(str(node.target))
            module = model.get_submodule(used[-1])
            if isinstance(module, (nn.Identity, nn.Flatten, nn.modules.dropout._DropoutNd)):
                numbers[node] = numbers[tensors[0]]
                continue
        nodes.append(_operation(node, [numbers[tensor] for tensor in tensors]))
        numbers[node] = len(nodes) - 1
    owners = {path for path, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))}
    if result is None or result < 0 or len(set(used)) != len(used) or not owners <= set(used):
        raise _Straight("a layer is used twice, or its parameters are used elsewhere, or it computes nothing")
    if _memory_of(model) != before:
        raise _Straight("it remembers something from one batch to the next")
    code = tuple(
        (node.op, str(node.target) if node.op == "call_module" else node.target, repr((node.args, node.kwargs)))
        for node in traced.graph.nodes
    )
    modules = tuple(type(module) for module in model.modules())
    parameters = tuple((name, tuple(value.shape), value.dtype) for name, value in model.named_parameters())
    return Graph(nodes, result), (input_shape, code, before, modules, parameters, repr(model))


def _operation(node: fx.Node, reads: list[int]) -> _Node:
    """One operation of a traced network."""
    target = node.target
    if target in _ADDITIONS and len(node.args) == 2 and len(reads) == 2 and not node.kwargs:
        return _Node(tuple(reads))
    if target in _ADDITIONS and len(reads) == 1 and node.args[0] is node.args[1]:
        return _Node((reads[0], reads[0]))
    if len(reads) != 1 or len(node.all_input_nodes) != 1 or not node.args or not isinstance(node.args[0], fx.Node):
        raise _Straight(f"it has the operation {target}")
    if node.op == "call_module":
        return _Node(tuple(reads), path=str(target))
    if target in _RECTIFIERS:
        return _Node(tuple(reads), function=torch.relu)
    if node.op == "call_function" and callable(target):
        return _Node(tuple(reads), function=partial(_call, target, node.args[1:], dict(node.kwargs)))
    if node.op == "call_method":
        method = getattr(Tensor, str(target))
        return _Node(tuple(reads), function=partial(_call, method, node.args[1:], dict(node.kwargs)))
    raise _Straight(f"it has the operation {target}")


def _call(function: Callable[..., Any], rest: tuple[Any, ...], named: dict[str, Any], x: Tensor) -> Tensor:
    found: Tensor = function(x, *rest, **named)
    return found


def _prove(graph: Graph, model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Raise _Straight unless the steps compute what the network's code and autograd compute, for two batches."""
    generator = torch.Generator().manual_seed(0)
    written = disturbed(copy.deepcopy(model).train(), generator)
    usual = copy.deepcopy(written)
    before = _memory_of(usual)
    for parameter in written.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for size in (3, 4):
        x = torch.randn(size, *input_shape, dtype=torch.float64, generator=generator)
        out = usual(x)
        wish = torch.randn(out.shape, dtype=torch.float64, generator=generator)
        usual.zero_grad()
        out.backward(wish)
        with torch.no_grad():
            frame = graph.frame(written, size, x[0].numel())
            frame.inputs.copy_(x.flatten(1))
            found = frame.forward().clone()
            frame.backward(wish)
        if not close(found, out):
            raise _Straight("it computes something else")
        for own, other in zip(written.parameters(), usual.parameters(), strict=True):
            if other.grad is None or own.grad is None or not close(own.grad, other.grad):
                raise _Straight("it has other gradients")
    if _memory_of(usual) != before or _memory_of(written) != before:
        raise _Straight("it remembers something from one batch to the next")
    _prove_measuring(graph, written, usual, x)


@torch.no_grad()
def _prove_measuring(graph: Graph, written: nn.Module, usual: nn.Module, x: Tensor) -> None:
    """Raise _Straight unless the steps measure the statistics that the code does, all else being in evaluation mode."""
    for model in (written, usual):
        model.eval()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d):
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
    before = _memory_of(usual)
    frame = graph.frame(written, len(x), x[0].numel())
    for batch in (x, 2 * x + 1):
        frame.inputs.copy_(batch.flatten(1))
        if not close(frame.measure(), usual(batch)):
            raise _Straight("it computes something else in evaluation mode")
    if not all(close(own, other) for own, other in zip(written.buffers(), usual.buffers(), strict=True)):
        raise _Straight("it measures other statistics")
    if _memory_of(usual) != before:
        raise _Straight("it remembers something from one batch to the next")
