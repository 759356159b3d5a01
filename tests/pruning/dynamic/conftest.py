from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

from snas.densities import Layer
from snas.masks import Masks
from snas.pruning.dynamic.base import Clock
from snas.pruning.dynamic.support import Support
from snas.pruning.goal import Goal
from snas.pruning.scores import Batch


def _support(weights: Mapping[str, list], kept: Mapping[str, list] | None = None) -> Support:
    """A network of linear layers with these weights; those that are not zero are kept, unless `kept` says otherwise."""
    model = nn.Module()
    layers, masks = [], {}
    for name, values in weights.items():
        weight = torch.tensor(values, dtype=torch.float32)
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        with torch.no_grad():
            linear.weight.copy_(weight)
        model.add_module(name, linear)
        layers.append(Layer(name, tuple(weight.shape)))
        masks[name] = (torch.tensor(kept[name]) if kept else weight) != 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    return Support(model, Masks(layers, masks), optimizer, Batch(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)))


@pytest.fixture
def make_support() -> Callable[..., Support]:
    return _support


@pytest.fixture
def at() -> Callable[..., Clock]:
    """A clock of a training of 10 epochs of 10 steps in one cycle."""

    def clock(step: int, **changes) -> Clock:
        values = {"cycle": 0, "place": step, "steps_per_epoch": 10, "epochs": 10, "learning_rate": 0.5, "seed": 7}
        return Clock(step=step, **{**values, **changes})

    return clock


@pytest.fixture
def goal_of() -> Callable[..., Goal]:
    """The goal to end with `kept` weights, by default as many as there are now."""

    def goal(support: Support, kept: int | None = None, **options) -> Goal:
        return Goal(support.layers, sum(support.kept().values()) if kept is None else kept, **options)

    return goal
