"""How much memory networks side by side take, and how many fit."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from snas.stacked.stack import Stack
from snas.training.devices import free_memory

if TYPE_CHECKING:
    from snas.training.task import Task, Training

MOST_SLOTS = {"cpu": 16, "cuda": 64}
SHARE = 0.5  # of the free memory that slots may take


def choose_slots(task: Task, training: Training, stack: Stack | None) -> int:
    """How many networks like this one to train at a time: as many as are of use on the device, and fit into half of its
    free memory; one where they do not stand in a stack."""
    if stack is None:
        return 1
    free = free_memory(task.device)
    most = MOST_SLOTS.get(task.device.type, 1)
    return most if free is None else max(1, min(most, int(SHARE * free / bytes_per_slot(training, stack))))


def bytes_per_slot(training: Training, stack: Stack) -> int:
    """What one network takes while it is trained beside others, before its first epoch or later.

    Weights, their gradients and moments; masks as bytes and as factors; twice what the forward pass keeps for the
    backward pass, since gradients are on their way back while it is still there; and the tensors of one layer while
    they are put side by side.
    """
    session = training.session
    parameters = [parameter.nbytes for parameter in session.model.parameters()]
    moments = 2 if "betas" in session.optimizer.defaults else 1
    masks = sum(5 * mask.numel() for mask in session.masks.values())
    return (2 + moments) * sum(parameters) + masks + 2 * kept_for_backward(training, stack) + max(parameters)


def kept_for_backward(training: Training, stack: Stack) -> int:
    """Bytes that one network's forward pass over a batch keeps for the backward pass, measured; weights not counted."""
    session = training.session
    model = copy.deepcopy(session.model)
    stack.bind([model])
    own = {value.untyped_storage().data_ptr() for value in (*stack.leaves.values(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = session.data.train.x[: session.rule.batch_size]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), session.precision():
        loss = stack(x.unsqueeze(1)).logsumexp(2).sum()
    del loss
    stack.release()
    return sum(kept.values())
