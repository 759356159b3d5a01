"""One epoch of several sessions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from threading import Event
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional

from snas.errors import FailedError, RefusedError, SnasError
from snas.masks import Masks
from snas.stacked.stack import Stack
from snas.training.evaluation import EVALUATION_BATCH, exact_type
from snas.training.session import Epoch, Session
from snas.training.together import Steps

Outcome = Epoch | RefusedError | FailedError


def train_epoch(
    stacks: Sequence[Stack],
    sessions: Sequence[Session],
    *,
    at_fault: Callable[[], AbstractContextManager[None]],
    width: int | None = None,
) -> list[Outcome]:
    """Train each session's next epoch: forward and backward passes side by side, all else by the sessions themselves.

    Every session has its own order of examples, learning rate, epoch number, mask and optimizer, as if it were alone:
    its losses equal those of `Session.train_epoch` to the order of floating-point operations, whoever stands beside it.

    Args:
        stacks: of their architecture; where there are several, each takes its share of the sessions in a thread of its
            own, which is faster than to have all threads at work on every operation.
        sessions: they share data and rule, and draw nothing from global random streams in training.
        at_fault: makes errors of a network's own code FailedErrors.
        width: sessions that a stack is to have room for whoever comes and goes, all of whose weights are multiplied
            then; None: as many as there are.

    Returns:
        What came of each: its epoch, or why it ended.
    """
    shares = min(len(stacks), len(sessions))
    if shares == 1:
        return _train_share(stacks[0], sessions, at_fault, Event(), width)
    bounds = [len(sessions) * share // shares for share in range(shares + 1)]
    stop = Event()
    with ThreadPoolExecutor(shares) as pool:
        found = [
            pool.submit(_train_share, stack, sessions[begin:end], at_fault, stop, width)
            for stack, begin, end in zip(stacks, bounds[:-1], bounds[1:], strict=False)
        ]
        try:
            wait(found)
        except BaseException:  # an interrupt: nobody will want what they find
            stop.set()
            raise
    return [outcome for share in found for outcome in share.result()]


def _train_share(
    stack: Stack,
    sessions: Sequence[Session],
    at_fault: Callable[[], AbstractContextManager[None]],
    stop: Event,
    width: int | None,
) -> list[Outcome]:
    start = perf_counter()
    outcomes: dict[int, Outcome] = {}
    begun, orders = [], []
    for place, session in enumerate(sessions):
        try:
            with at_fault():
                orders.append(session.begin_epoch())
            begun.append(place)
        except (RefusedError, FailedError) as error:
            outcomes[place] = error
    if begun:
        running = [sessions[place] for place in begun]
        masks = None if width else _masks(running)
        stack.bind([session.model for session in running], masks, width=width)
        totals = _train(stack, running, orders, stop, whole=masks is None)
        steps = len(orders[0][0])
        validations: Sequence[tuple[float, float] | None] = [None] * len(running)
        if all(session.still for session in running):  # else weights may change once more at the end
            validations = _validate(stack, running)
        each = (perf_counter() - start) / len(running)
        for place, session, (loss, accuracy), validation in zip(begun, running, totals, validations, strict=True):
            try:
                with at_fault():
                    outcomes[place] = session.end_epoch(
                        steps, loss, accuracy, start=perf_counter() - each, validation=validation
                    )
            except (RefusedError, FailedError) as error:
                outcomes[place] = error
    return [outcomes[place] for place in range(len(sessions))]


def _masks(sessions: Sequence[Session]) -> list[Masks] | None:
    """The sessions' masks, where kept weights may be multiplied alone: masks that stay, float32 on a CPU."""
    first = sessions[0]
    plain = first.device.type == "cpu" and first.rule.precision == "fp32"
    single = all(parameter.dtype == torch.float32 for parameter in first.model.parameters())
    if plain and single and all(session.still for session in sessions):
        return [session.masks for session in sessions]
    return None


def _train(
    stack: Stack,
    sessions: Sequence[Session],
    orders: Sequence[tuple[list[Tensor], torch.Generator]],
    stop: Event,
    *,
    whole: bool,
) -> list[tuple[float, float]]:
    """Train the epoch that the sessions began, unless it is stopped; return each one's mean loss and accuracy."""
    first = sessions[0]
    stack.train()
    together = Steps(sessions, clean=stack.clean, whole=whole)
    steps = len(orders[0][0])
    totals = torch.zeros(2, len(sessions), dtype=exact_type(first.device), device=first.device)
    for index in range(steps):
        if stop.is_set():
            raise SnasError("interrupted")
        x, y = _examples(sessions, orders, index)
        with first.precision():
            logits = stack(x)
        losses = functional.cross_entropy(
            logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=first.rule.label_smoothing
        ).view_as(y)
        stack.backward(losses.mean(0).sum())
        together.take(index, steps)
        with torch.no_grad():
            totals += torch.stack((losses.detach().to(totals.dtype).sum(0), (logits.argmax(2) == y).sum(0)))
    return [(loss, accuracy) for loss, accuracy in (totals / len(first.data.train.y)).t().tolist()]


@torch.no_grad()
def _validate(stack: Stack, sessions: Sequence[Session]) -> list[tuple[float, float]]:
    """Measure BatchNorm's statistics anew and validate, as each session would by itself."""
    first, slots = sessions[0], len(sessions)
    if stack.measure_anew():
        batches = zip(*(session.calibration_batches(session.epoch + 1) for session in sessions), strict=True)
        with first.precision():
            for chosen in batches:
                stack(first.data.train.x[torch.stack(chosen, 1)])
    stack.train(False)
    arrays = first.data.validation
    totals = torch.zeros(2, slots, dtype=exact_type(first.device), device=first.device)
    size = max(1, EVALUATION_BATCH // slots)
    for x, y in zip(torch.split(arrays.x, size), torch.split(arrays.y, size), strict=True):
        with first.precision():
            logits = stack(x.unsqueeze(1).expand(-1, slots, *[-1] * (x.ndim - 1)))
        labels = y.unsqueeze(1).expand(-1, slots)
        losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        totals += torch.stack((losses.to(totals.dtype).sum(0), (logits.argmax(2) == labels).sum(0)))
    return [(loss, correct) for loss, correct in (totals / len(arrays.y)).t().tolist()]


def _examples(
    sessions: Sequence[Session], orders: Sequence[tuple[list[Tensor], torch.Generator]], index: int
) -> tuple[Tensor, Tensor]:
    """The sessions' batches number `index`, shapes (batch, sessions, *example) and (batch, sessions)."""
    if any(session.augments for session in sessions):
        pairs = [
            session.examples(batches[index], generator)
            for session, (batches, generator) in zip(sessions, orders, strict=True)
        ]
        return torch.stack([x for x, _ in pairs], 1), torch.stack([y for _, y in pairs], 1)
    chosen = torch.stack([batches[index] for batches, _ in orders], 1)
    arrays = sessions[0].data.train
    return arrays.x[chosen], arrays.y[chosen]
