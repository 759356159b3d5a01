"""How much memory networks side by side take, and how many fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from snas.training.devices import free_memory

if TYPE_CHECKING:
    from snas.training.task import Task, Training

MOST_SLOTS = {"cpu": 16, "cuda": 64}
SHARE = 0.5  # of the free memory that slots may take


def choose_slots(task: Task, training: Training) -> int:
    """How many networks like this one to train side by side: as many as are of use on the device, and fit into half of
    its free memory."""
    free = free_memory(task.device)
    fitting = MOST_SLOTS["cuda"] if free is None else int(SHARE * free / bytes_per_slot(training))
    return max(1, min(MOST_SLOTS.get(task.device.type, 1), fitting))


def bytes_per_slot(training: Training) -> int:
    """What one network takes while it is trained beside others.

    Its state between epochs (weights, the optimizer's moments, masks twice: as bits and as factors), once more its
    weights for their gradients, and once more while networks are put side by side; what the forward pass keeps for the
    backward pass, and half as much for the gradients on their way back.
    """
    session = training.session
    weights = sum(parameter.nbytes for parameter in session.model.parameters())
    moments = 0 if session.optimizer.state else _moments(session.optimizer) * weights
    return training.bytes + moments + 2 * weights + int(1.5 * kept_for_backward(training))


def kept_for_backward(training: Training) -> int:
    """Bytes that one network's forward pass over a batch keeps for the backward pass, measured; weights not counted."""
    session = training.session
    own = {parameter.untyped_storage().data_ptr() for parameter in session.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    arrays = session.data.train
    size = min(session.rule.batch_size, len(arrays.y))
    state = {name: value.clone() for name, value in session.model.named_buffers()}
    session.model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), session.precision():
        loss = functional.cross_entropy(session.model(arrays.x[:size]), arrays.y[:size])
    del loss
    for name, value in session.model.named_buffers():
        value.copy_(state[name])
    return sum(kept.values())


def _moments(optimizer: torch.optim.Optimizer) -> int:
    """Tensors that the optimizer will keep for each weight."""
    return 2 if "betas" in optimizer.defaults else 1
