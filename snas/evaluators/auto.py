"""What suits the networks and the machine."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

import torch

from snas.errors import SnasError
from snas.evaluators.base import Evaluator, evaluators
from snas.evaluators.forks import safe
from snas.evaluators.processes import ProcessesEvaluator, cores
from snas.evaluators.serial import SerialEvaluator
from snas.evaluators.stacked import StackedEvaluator
from snas.training.checkpoints import Checkpoints
from snas.training.devices import free_memory
from snas.training.task import Task

log = logging.getLogger("snas")

LARGEST = 1 << 19  # weights of a layer: beyond, its product keeps a core busy by itself
MOST_WORK = 20_000_000  # multiply-adds for an example: beyond, a second thread is almost as good as a second process
LEAST_WORK = 2_000_000_000  # multiply-adds for an epoch: below, a search is over when processes that import have begun
MOST_PROCESSES = 8  # more candidates at a time are proposed before any of them has told anything
ROOM = 1 << 30  # bytes that a process is to have


@evaluators.register("auto")
def choose_evaluator(task: Task, checkpoints: Checkpoints, *, slots: int | None = None) -> Evaluator:
    """Processes for small networks on a CPU of several cores; stacked on a GPU, and on a CPU for small networks of
    linear layers where processes cannot be or would be more than cores; else serial. See docs/performance.md."""
    if slots != 1:
        processes = suits_processes(task)
        first = not task.compile and (slots or 0) <= cores() and safe(1)  # they begin at once, each has a core
        if processes and first and (found := _processes(task, checkpoints, slots)) is not None:
            return found
        if task.compile or suits_stack(task):
            return StackedEvaluator(task, checkpoints, slots=slots)
        if processes and not first and (found := _processes(task, checkpoints, slots)) is not None:
            return found
    if slots is not None and slots > 1:
        log.warning(
            "networks of %s are trained one at a time: neither stacked nor processes suits them", task.space.name
        )
    return SerialEvaluator(task, checkpoints)


def _processes(task: Task, checkpoints: Checkpoints, slots: int | None) -> Evaluator | None:
    """Processes; None where they cannot be: code that cannot be sent, no room for the examples."""
    with suppress(SnasError):
        return ProcessesEvaluator(task, checkpoints, slots=slots or min(cores(), MOST_PROCESSES))
    return None


def suits_processes(task: Task) -> bool:
    """Whether networks of the space are trained faster by several processes of few threads, where nobody has said how
    many threads there are to be."""
    if task.device.type != "cpu" or sys.platform == "win32" or task.threads is not None:
        return False
    free = free_memory(task.device)
    if min(cores(), torch.get_num_threads()) == 1 or (free is not None and free < ROOM * min(cores(), MOST_PROCESSES)):
        return False
    work = sum(layer.total * layer.positions for layer in task.space.layers)
    return work <= MOST_WORK and (safe(1) or work * len(task.data.train.y) >= LEAST_WORK)


def suits_stack(task: Task) -> bool:
    """Whether networks of the space are trained faster side by side."""
    from snas.stacked import Stack, Unstackable

    layers = task.space.layers
    if task.kernel == "sparse":
        return False
    if task.device.type == "cpu" and any(len(layer.shape) != 2 or layer.total > LARGEST for layer in layers):
        return False
    model = task.space.build(generator=torch.Generator().manual_seed(0))
    try:
        Stack(model, task.space.input_shape)
    except Unstackable:
        return False
    return True
