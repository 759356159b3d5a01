"""What suits the networks and the machine."""

from __future__ import annotations

import torch

from snas.evaluators.base import Evaluator, evaluators
from snas.evaluators.serial import SerialEvaluator
from snas.evaluators.stacked import StackedEvaluator
from snas.training.checkpoints import Checkpoints
from snas.training.task import Task

LARGEST = 1 << 19  # weights of a layer: beyond, its product keeps a core busy by itself


@evaluators.register("auto")
def choose_evaluator(task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> Evaluator:
    """Stacked where that is faster and possible, else serial: on a CPU for networks of linear layers that are small, on
    a GPU for all; see docs/performance.md."""
    if slots != 1 and suits_stack(task):
        return StackedEvaluator(task, checkpoints, slots=slots)
    return SerialEvaluator(task, checkpoints)


def suits_stack(task: Task) -> bool:
    """Whether networks of the space are trained faster side by side."""
    from snas.stacked import Stack, Unstackable

    layers = task.space.layers
    if task.device.type == "cpu" and any(len(layer.shape) != 2 or layer.total > LARGEST for layer in layers):
        return False
    model = task.space.build(generator=torch.Generator().manual_seed(0))
    try:
        Stack(model, task.space.input_shape)
    except Unstackable:
        return False
    return True
