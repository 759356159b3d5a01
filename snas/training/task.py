"""Train one network of a study from where it stands: start or restore, then an epoch at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from snas.data.split import Arrays, SearchData
from snas.densities import Densities
from snas.diagnostics.gradient_flow import FlowWatcher
from snas.diagnostics.signals import EXAMPLES, measure
from snas.errors import DivergedError, FailedError, InputError, SnasError, one_line
from snas.pruning.methods import Method
from snas.pruning.prepare import Sparse, choose_masks, prepare
from snas.pruning.scores import Batch
from snas.search_spaces.base import SearchSpace
from snas.seeds import Stream, derive
from snas.training.checkpoints import Checkpoints
from snas.training.rule import TrainingRule
from snas.training.session import Epoch, Session
from snas.trials import Report

log = logging.getLogger("snas")


@dataclass(frozen=True)
class Task:
    """All that training a network needs besides its densities and its seed; equal for a whole study.

    `threads` is what the user asked for; None leaves it to whatever trains the networks. `compile` is for evaluators
    that train networks side by side. With `record_flow` gradient flow is measured along the training
    (`snas.diagnostics.gradient_flow`).
    """

    space: SearchSpace
    data: SearchData
    rule: TrainingRule
    initialization: str
    rescale: bool | None
    device: torch.device
    kernel: str = "dense"
    threads: int | None = None
    compile: bool = False
    record_flow: bool = False

    def of(self, space: SearchSpace) -> Task:
        """The same for another architecture."""
        return self if space is self.space else replace(self, space=space)

    def prepare(self, method: Method, target: Densities | int, *, seed: int) -> Sparse:
        """Build, initialize and mask the network of `seed` (see `snas.pruning.methods.prepare`)."""
        return prepare(
            self.space,
            method,
            target,
            score_batch(self.data, examples=method.examples, seed=seed),
            seed=seed,
            initialization=self.initialization,
            rescale=self.rescale,
            device=self.device,
        )

    def own_densities(self, method: Method, kept: int, *, seed: int) -> Densities:
        """How the method itself shares `kept` weights between the layers, of `seed`'s network; some may get none."""
        batch = score_batch(self.data, examples=method.examples, seed=seed)
        _, _, masks = choose_masks(
            self.space, method, kept, batch, seed=seed, initialization=self.initialization, device=self.device
        )
        return masks.kept

    def measure(self, sparse: Sparse, *, seed: int) -> dict[str, float]:
        """The signals (see `snas.diagnostics.signals`) of the prepared network of `seed`; it stays as it is."""
        batch = score_batch(self.data, examples=EXAMPLES, seed=seed)
        generator = torch.Generator().manual_seed(derive(seed, Stream.SCORE))
        return measure(sparse.model, sparse.masks, batch, generator=generator)


class Training:
    """The training of one network, restored from its checkpoint where it has one."""

    def __init__(
        self,
        task: Task,
        method: Method,
        target: Densities | int,
        *,
        seed: int,
        key: str,
        checkpoints: Checkpoints,
        mask_checksum: str = "",
        measured: bool = False,
    ) -> None:
        """Prepare the masked network.

        Args:
            task: what the study shares.
            method: how the mask is chosen.
            target: densities for a method with given ones, else the number of weights to keep.
            seed: of this network: initial weights, mask, order of data.
            key: names its checkpoints.
            checkpoints: where they are.
            mask_checksum: of the mask that it was trained with before, where it was.
            measured: whether the first epoch's report is to have the signals of the network before training.

        Raises:
            RefusedError: if the network cannot work; nothing was trained.
            FailedError: if its code or its scores are at fault.
            SnasError: if seed and rule do not give the recorded mask here.
        """
        self.key = key
        self._checkpoints = checkpoints
        self._saved = 0  # epochs of the last checkpoint written here
        with network_at_fault():
            sparse = task.prepare(method, target, seed=seed)
            self.signals = task.measure(sparse, seed=seed) if measured else {}
            self.session = Session(
                sparse.model,
                sparse.masks,
                task.rule,
                task.data,
                seed=seed,
                device=task.device,
                movement=method.make_movement(),
                goal=sparse.goal,
                kernel=task.kernel,
                watcher=FlowWatcher() if task.record_flow else None,
            )
        self.epochs = self.session.epochs
        self.filed = 0  # epochs that are known to be in the registry, where the evaluator takes note
        self.mask_checksum = sparse.masks.checksum()
        if mask_checksum and mask_checksum != self.mask_checksum:
            raise SnasError(
                f"{key}: seed and rule give another mask here than the one that it was trained with; its code, data, "
                "versions or device have changed: go on where it was started, or begin anew under another --name"
            )

    def run(self, *, start: int, until: int) -> Iterator[Epoch]:
        """Train from `start` to `until` epochs, yielding each epoch after its checkpoint is on disk.

        The older checkpoint is dropped only when the caller comes back, that is, has recorded the epoch. A checkpoint
        that is lost costs its epochs again and nothing else: they are repeated without being yielded.

        Raises:
            FailedError: if training diverges or the network's code raises.
            SnasError: if a checkpoint cannot be written.
        """
        self.restore(start)
        while (epoch := self.advance(start=start, until=until)) is not None:
            self.save()
            yield epoch
            self.forget()

    def advance(self, *, start: int, until: int) -> Epoch | None:
        """Train the next epoch after `start`, in memory alone; None where the network has `until` epochs.

        Epochs up to `start` whose checkpoint was lost are trained again on the way.

        Raises:
            FailedError: if training diverges or the network's code raises.
        """
        while self.session.epoch < until:
            with network_at_fault():
                epoch = self.session.train_epoch()
            if epoch.number > start:
                return epoch
        return None

    def restore(self, start: int) -> None:
        """Go on from the checkpoint of `start` epochs, or the latest one before it where that is lost, unless the
        network stands there already. What has no checkpoint begins anew."""
        if not start or self.session.epoch == start:
            return
        found = self._checkpoints.load_latest(self.key, start)
        if found is None:
            return
        epoch, state = found
        if wrong := self.session.misfit(state):
            log.warning(
                "checkpoint of %s is of another network (%s); its %d epochs are trained again", self.key, wrong, start
            )
            return
        with network_at_fault():
            self.session.load_tensors(state, epoch)

    def save(self) -> None:
        """Write a checkpoint of the network as it is now."""
        with network_at_fault():
            tensors = self.session.checkpoint()
        self._checkpoints.save(self.key, self.session.epoch, tensors)
        self._saved = self.session.epoch

    def forget(self) -> None:
        """Drop the checkpoints before the last one written here; call it when the epochs of that one are recorded."""
        if self._saved:
            self._checkpoints.drop(self.key, before=self._saved)

    @property
    def bytes(self) -> int:
        """About how much memory the network and its optimizer take between two epochs."""
        masks = sum(2 * mask.numel() for mask in self.session.masks.values())
        return masks + sum(tensor.nbytes for tensor in self.session.tensors().values())

    @property
    def densities(self) -> Densities:
        """How much of each layer is kept now."""
        return self.session.masks.kept

    def report(self, epoch: Epoch, number: int) -> Report:
        """The epoch as the registry files it, for candidate or seed `number`."""
        return Report(
            trial=number,
            epoch=epoch.number,
            train_loss=epoch.train_loss,
            train_accuracy=epoch.train_accuracy,
            validation_loss=epoch.validation_loss,
            validation_accuracy=epoch.validation_accuracy,
            seconds=epoch.seconds,
            mask_checksum=self.mask_checksum,
            signals=self.signals if epoch.number == 1 else {},
            measured=epoch.measured,
        )

    def test(self, arrays: Arrays) -> tuple[float, float]:
        """Mean loss and accuracy on `arrays`; raises DivergedError where the loss is NaN or infinite."""
        with network_at_fault():
            loss, accuracy = self.session.evaluate(arrays)
        if not math.isfinite(loss):
            raise DivergedError(f"test loss is {loss}")
        return loss, accuracy


@contextmanager
def network_at_fault() -> Iterator[None]:
    """Turn whatever a network's own code raises (it may be anybody's) into FailedError, with its reason on one line."""
    try:
        yield
    except InputError as error:
        raise FailedError(str(error)) from error
    except SnasError:
        raise
    except Exception as error:
        raise FailedError(f"{type(error).__name__}: {one_line(error)}") from error


def score_batch(data: SearchData, *, seed: int, examples: int = 128) -> Batch:
    """Draw the training examples that a network's scores are computed from; all of them where `examples` is 0."""
    if examples == 0:
        return Batch(data.train.x, data.train.y)
    generator = torch.Generator().manual_seed(derive(seed, Stream.BATCH))
    index = torch.randperm(len(data.train.y), generator=generator)[:examples].to(data.train.y.device)
    return Batch(data.train.x[index], data.train.y[index])
