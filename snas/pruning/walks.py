"""Ways through perceptrons: what masks connect, along the network's graph.

Copies of networks tell the same of any network (`snas.pruning.paths`, `snas.diagnostics.active_paths`). Perceptrons of
PyTorch's layers and ours need none: their graph says what is multiplied and what is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snas.graphs import Graph
from snas.masks import Masks, zero_masked

# Modules that pass positive signals on as they are, or as copies of networks have them passed on.
_PASSING = (nn.BatchNorm1d, nn.ReLU, nn.PReLU, nn.ELU, nn.SiLU, nn.Sigmoid, nn.Tanh)

Units = NDArray[np.bool_]


class Walks:
    """The ways that a masked perceptron has from its inputs to its outputs.

    Whether there is one is told of each unit by a truth value; how many, and how much flows, by a float64.
    """

    def __init__(self, graph: Graph, modules: Mapping[str, nn.Module], masks: Masks, inputs: int) -> None:
        """Use `Walks.of`."""
        self._graph, self._masks, self._inputs = graph, masks, inputs
        self._modules = {node.path: modules[node.path] for node in graph.nodes if node.path}
        self._names = {layer.parameter.removesuffix(".weight"): layer.name for layer in masks.layers}
        self._kept = {
            path: masks[self._names[path]].numpy()
            if path in self._names
            else np.ones(module.weight.shape, dtype=np.bool_)
            for path, module in self._modules.items()
            if isinstance(module, nn.Linear)
        }

    @classmethod
    def of(
        cls, model: nn.Module, masks: Masks, input_shape: Sequence[int], *, graph: Graph | None = None
    ) -> Walks | None:
        """The ways of a network that has some and nothing else: of linear layers, BatchNorm, sums and what passes
        positive signals on, all of it PyTorch's code or ours; None for others, and for masks of another network.

        Args:
            model: the network.
            masks: which weights it keeps.
            input_shape: of one example.
            graph: of the network, known; looked for where it is not given.
        """
        graph = graph or Graph.of(model, input_shape, known=True)
        if graph is None:
            return None
        shapes: dict[str, tuple[int, ...]] = {}
        modules = dict(model.named_modules())
        for node in graph.nodes:
            module = modules[node.path] if node.path else None
            if type(module) is nn.Linear:
                shapes[f"{node.path}.weight"] = tuple(module.weight.shape)
            elif len(node.reads) == 1 and node.function is not torch.relu and type(module) not in _PASSING:
                return None
        if any(shapes.get(layer.parameter) != layer.shape for layer in masks.layers):
            return None
        return cls(graph, modules, masks, math.prod(input_shape))

    def lead(self) -> bool:
        """Whether a way leads from an input to an output."""
        return bool(self._reached[self._graph.result].any())

    def flow(self) -> float:
        """The sum of the outputs for inputs of ones with absolute weights, in evaluation mode and without biases."""
        return self._sum_of_outputs(1.0, self._flowing)

    def count(self, scale: float) -> float:
        """The number of ways, times `scale`, by which numbers are multiplied before they grow."""
        return self._sum_of_outputs(scale, self._counting)

    def used(self) -> tuple[list[float], list[int]]:
        """Of each masked layer, the share of output units, and the number of kept weights, that a way leads through."""
        reached, leading = self._reached, self._leading
        shares, weights = {}, {}
        for number, node in enumerate(self._graph.nodes):
            if (name := self._names.get(node.path)) is not None:
                leads = leading.get(number, np.zeros_like(reached[number]))
                shares[name] = int(np.count_nonzero(reached[number] & leads)) / len(leads)
                weights[name] = int(np.count_nonzero(_between(self._kept[node.path], reached[node.reads[0]], leads)))
        return [shares[name] for name in self._masks], [weights[name] for name in self._masks]

    @cached_property
    def _reached(self) -> dict[int, Units]:
        """Of each node, -1 being the input, the units that a way from an input leads to."""
        values: dict[int, Units] = {-1: np.ones(self._inputs, dtype=np.bool_)}
        for number, node in enumerate(self._graph.nodes):
            first, *rest = (values[read] for read in node.reads)
            if rest:
                first = first | rest[0]
            elif (kept := self._kept.get(node.path)) is not None:
                first = np.logical_or.reduce(_between(kept, first), axis=1)
            values[number] = first
        return values

    @cached_property
    def _leading(self) -> dict[int, Units]:
        """Of each node that an output reads, the units that a way leads from to an output."""
        values: dict[int, Units] = {self._graph.result: np.ones_like(self._reached[self._graph.result])}
        for number in reversed(range(len(self._graph.nodes))):
            if number not in values:
                continue
            node, own = self._graph.nodes[number], values[number]
            if (kept := self._kept.get(node.path)) is not None:
                own = np.logical_or.reduce(_between(kept, None, own), axis=0)
            for read in node.reads:
                values[read] = values[read] | own if read in values else own
        return values

    @torch.no_grad()
    def _sum_of_outputs(self, start: float, passed: Callable[[str, Tensor], Tensor]) -> float:
        """What arrives at the outputs in all if inputs are `start` and modules pass it on in a way of their own."""
        values = {-1: torch.full((self._inputs,), start, dtype=torch.float64)}
        for number, node in enumerate(self._graph.nodes):
            first, *rest = (values[read] for read in node.reads)
            values[number] = first + rest[0] if rest else passed(node.path, first)
        return float(values[self._graph.result].sum())

    def _counting(self, path: str, x: Tensor) -> Tensor:
        kept = self._kept.get(path)
        return x if kept is None else torch.from_numpy(kept).view(torch.uint8).double() @ x

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


def _between(kept: NDArray[np.bool_], inputs: Units | None, outputs: Units | None = None) -> NDArray[np.bool_]:
    """The kept weights, shape (out, in), that lead from one of these inputs to one of these outputs; None: all."""
    if inputs is not None and not inputs.all():
        kept = kept & inputs
    if outputs is not None and not outputs.all():
        kept = kept & outputs[:, None]
    return kept
