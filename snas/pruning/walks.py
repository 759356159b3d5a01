"""Ways through perceptrons: what masks connect, by products of matrices along the network's graph.

Copies of networks tell the same of any network (`snas.pruning.paths`, `snas.diagnostics.active_paths`). Perceptrons of
PyTorch's layers and ours need none: their graph says what is multiplied and what is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from snas.graphs import Graph
from snas.masks import Masks, zero_masked

# Modules that pass positive signals on as they are, or as copies of networks have them passed on.
_PASSING = (nn.BatchNorm1d, nn.ReLU, nn.PReLU, nn.ELU, nn.SiLU, nn.Sigmoid, nn.Tanh)


class Walks:
    """The ways that a masked perceptron has from its inputs to its outputs. Vectors are float64, one number a unit."""

    def __init__(self, graph: Graph, model: nn.Module, masks: Masks, inputs: int) -> None:
        """Use `Walks.of`."""
        self._graph, self._masks, self._inputs = graph, masks, inputs
        self._modules = {node.path: model.get_submodule(node.path) for node in graph.nodes if node.path}
        self._names = {layer.parameter.removesuffix(".weight"): layer.name for layer in masks.layers}
        self._matrices = {
            path: masks[self._names[path]].view(torch.uint8).double()
            if path in self._names
            else torch.ones(module.weight.shape, dtype=torch.float64)
            for path, module in self._modules.items()
            if isinstance(module, nn.Linear)
        }

    @classmethod
    def of(cls, model: nn.Module, masks: Masks, input_shape: Sequence[int]) -> Walks | None:
        """The ways of a network that has some and nothing else: of linear layers, BatchNorm, sums and what passes
        positive signals on, all of it PyTorch's code or ours; None for others, and for masks of another network.
        """
        if (graph := Graph.of(model, input_shape, known=True)) is None:
            return None
        shapes: dict[str, tuple[int, ...]] = {}
        for node in graph.nodes:
            module = model.get_submodule(node.path) if node.path else None
            if type(module) is nn.Linear:
                shapes[f"{node.path}.weight"] = tuple(module.weight.shape)
            elif len(node.reads) == 1 and node.function is not torch.relu and type(module) not in _PASSING:
                return None
        if any(shapes.get(layer.parameter) != layer.shape for layer in masks.layers):
            return None
        return cls(graph, model, masks, math.prod(input_shape))

    def lead(self) -> bool:
        """Whether a way leads from an input to an output."""
        return bool(self._reached[self._graph.result].any())

    def flow(self) -> float:
        """The sum of the outputs for inputs of ones with absolute weights, in evaluation mode and without biases."""
        return float(self._forward(self._flowing)[self._graph.result].sum())

    def count(self, scale: float) -> float:
        """The number of ways, times `scale`, by which numbers are multiplied before they grow."""
        return float(self._backward(scale)[-1].sum())

    def used(self) -> tuple[list[float], list[int]]:
        """Of each masked layer, the share of output units, and the number of kept weights, that a way leads through."""
        reached, leading = self._reached, self._backward(1.0, most=1.0)
        shares, weights = {}, {}
        for number, node in enumerate(self._graph.nodes):
            if (name := self._names.get(node.path)) is not None:
                leads = leading.get(number, torch.zeros_like(reached[number]))
                shares[name] = int(torch.count_nonzero(reached[number] * leads)) / len(leads)
                weights[name] = round(float((self._matrices[node.path] @ reached[node.reads[0]]) @ leads))
        return [shares[name] for name in self._masks], [weights[name] for name in self._masks]

    @cached_property
    def _reached(self) -> dict[int, Tensor]:
        """1 for units that a way from an input leads to, 0 for others; of each node, -1 being the input."""
        return self._forward(lambda path, x: self._matrices[path] @ x if path in self._matrices else x, most=1.0)

    def _flowing(self, path: str, x: Tensor) -> Tensor:
        module = self._modules.get(path)
        if isinstance(module, nn.Linear):
            weight = module.weight.detach().abs()
            if (name := self._names.get(path)) is not None:
                zero_masked(weight, self._masks[name])
            return weight.double() @ x
        if isinstance(module, nn.BatchNorm1d):
            if module.running_var is not None:
                x = x * (module.running_var.double() + module.eps).rsqrt()
            return x if module.weight is None else x * module.weight.detach().double().abs()
        return x

    @torch.no_grad()
    def _forward(self, passed: Callable[[str, Tensor], Tensor], *, most: float = torch.inf) -> dict[int, Tensor]:
        """What arrives at each node, and at most that, if inputs are 1."""
        values = {-1: torch.ones(self._inputs, dtype=torch.float64)}
        for number, node in enumerate(self._graph.nodes):
            first, *rest = (values[read] for read in node.reads)
            values[number] = (first + rest[0] if rest else passed(node.path, first)).clamp(max=most)
        return values

    @torch.no_grad()
    def _backward(self, start: float, *, most: float = torch.inf) -> dict[int, Tensor]:
        """What arrives at each node from behind, and at most that, if outputs are `start`; nothing for nodes that no
        output reads."""
        values = {self._graph.result: torch.full_like(self._reached[self._graph.result], start)}
        for number in reversed(range(len(self._graph.nodes))):
            if number not in values:
                continue
            node = self._graph.nodes[number]
            own = values[number] @ self._matrices[node.path] if node.path in self._matrices else values[number]
            for read in node.reads:
                values[read] = (values[read] + own if read in values else own).clamp(max=most)
        return values
