"""A network's code as a list of operations, found by following values that have no numbers through it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snas.graphs.looks import NotStraight

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RESHAPES = ("flatten", "view", "reshape", torch.flatten, torch.reshape)
_RECTIFIERS = (functional.relu, torch.relu, "relu")


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: what it is, whose parameters it has, and which earlier ones it reads (-1: the input).

    Attributes:
        reads: one number, or two that are added.
        path: of the module, where it is one.
        function: of one value, where it is one.
    """

    reads: tuple[int, ...]
    path: str = ""
    function: Callable[[Tensor], Tensor] | None = None


def trace(model: nn.Module, input_shape: Sequence[int]) -> tuple[list[Node], int, Hashable]:
    """Write the network's operations down.

    Args:
        model: a copy in training mode, for its code is run, and may leave something in it.
        input_shape: of one example.

    Returns:
        The operations, which of them is the result, and the code that was traced, to be compared with that of others.

    Raises:
        NotStraight: where the code is no straight line of operations on (batch, features), or uses a layer twice.
        Exception: whatever it raises.
    """
    tracer = _Tracer()
    try:
        code = tracer.trace(model)
    finally:
        vars(tracer).clear()  # it is in a cycle, and would keep the network
    shapes = _Shapes(model, graph=code)
    shapes.run(torch.ones(2, *input_shape, dtype=next(model.parameters()).dtype))
    numbers: dict[fx.Node, int] = {}
    nodes: list[Node] = []
    used: list[str] = []
    result = None
    for node in code.nodes:
        if node.op == "placeholder":
            if numbers:
                raise NotStraight("its code takes more than one input")
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
            raise NotStraight("not all that it computes is (batch, features)")
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
        raise NotStraight("a layer is used twice, or its parameters are used elsewhere, or it computes nothing")
    written = tuple(
        (node.op, str(node.target) if node.op == "call_module" else node.target, repr((node.args, node.kwargs)))
        for node in code.nodes
    )
    return nodes, result, written


def _operation(node: fx.Node, reads: list[int]) -> Node:
    """One operation of a traced network."""
    target = node.target
    if target in _ADDITIONS and len(node.args) == 2 and len(reads) == 2 and not node.kwargs:
        return Node(tuple(reads))
    if target in _ADDITIONS and len(reads) == 1 and node.args[0] is node.args[1]:
        return Node((reads[0], reads[0]))
    if len(reads) != 1 or len(node.all_input_nodes) != 1 or not node.args or not isinstance(node.args[0], fx.Node):
        raise NotStraight(f"it has the operation {target}")
    if node.op == "call_module":
        return Node(tuple(reads), path=str(target))
    if target in _RECTIFIERS:
        return Node(tuple(reads), function=torch.relu)
    if node.op == "call_function" and callable(target):
        return Node(tuple(reads), function=partial(_call, target, node.args[1:], dict(node.kwargs)))
    if node.op == "call_method":
        method = getattr(Tensor, str(target))
        return Node(tuple(reads), function=partial(_call, method, node.args[1:], dict(node.kwargs)))
    raise NotStraight(f"it has the operation {target}")


def _call(function: Callable[..., Any], rest: tuple[Any, ...], named: dict[str, Any], x: Tensor) -> Tensor:
    found: Tensor = function(x, *rest, **named)
    return found


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

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.found: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute one operation."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = value.shape
        return value
