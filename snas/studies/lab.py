"""What a study measures with: benches by name, trained networks, and who hears of them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from snas.bench import Bench, open_bench
from snas.data.base import Dataset, load_dataset
from snas.data.split import Arrays, SearchData, split_data
from snas.data.views import split_views, view_of
from snas.densities import Densities
from snas.errors import InputError
from snas.pruning.methods import Method, open_method
from snas.pruning.prepare import Sparse
from snas.pruning.scores import Batch
from snas.seeds import Stream, derive
from snas.settings import Settings
from snas.training.devices import choose_device
from snas.training.session import Epoch, Session
from snas.training.task import network_at_fault, score_batch
from snas.training.watcher import Enough, Watcher

MOST_DATA = 2  # data sets whose examples are kept in memory

Heard = Callable[[int, int], None]  # epoch, of how many


@dataclass(frozen=True)
class Trained:
    """A network that was trained.

    Attributes:
        session: with the network and its masks as they are now.
        sparse: as it was prepared; its model is the one that was trained since.
        epochs: what each gave.
        test_loss: mean on the test data; None where there are none.
        test_accuracy: the same.
    """

    session: Session
    sparse: Sparse
    epochs: tuple[Epoch, ...]
    test_loss: float | None
    test_accuracy: float | None

    @property
    def curve(self) -> dict[str, list[float]]:
        """Losses and accuracies of each epoch, as plain lists."""
        names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
        return {name: [float(getattr(epoch, name)) for epoch in self.epochs] for name in names}


class Lab:
    """Data, spaces and trainings for the cells of a study. Data that were loaded are kept for the next cell."""

    def __init__(
        self, *, data_dir: str | None = None, device: str = "auto", progress: Callable[[str], None] | None = None
    ) -> None:
        """Begin with nothing loaded.

        Args:
            data_dir: folder with files of data sets; None: a cache folder.
            device: "auto", "cpu", "cuda" or "mps".
            progress: told of downloads, a line at a time.
        """
        self.device = choose_device(device)
        self._data_dir = data_dir
        self._progress = progress
        self._datasets: dict[str, Dataset] = {}
        self._splits: OrderedDict[str, SearchData] = OrderedDict()
        self.heard: Heard = lambda epoch, epochs: None  # what hears of epochs

    def dataset(self, name: str) -> Dataset:
        """The data set called `name`, or in the file.npz of this name; with a view behind it (see `snas.data.views`).

        Raises:
            InputError: if there is none.
        """
        if name not in self._datasets:
            base, views = split_views(name)
            if views:
                whole = self.dataset(":".join((base, *views[:-1])))
                self._datasets[name] = view_of(whole, views[-1])
            else:
                data_dir = None if name.lower().endswith(".npz") else self._data_dir
                self._datasets[name] = load_dataset(name, data_dir=data_dir, progress=self._progress)
        return self._datasets[name]

    def bench(self, space: str, dataset: str, *, examples: int = 0, **settings: Any) -> Bench:
        """A space with data and a training rule.

        Args:
            space: name of a space, with its arguments behind it: "mlp:width=32:skip=no", "file.py:factory".
            dataset: name of the data.
            examples: to train on, a part of the training examples that is the same for all cells; 0: all.
            settings: fields of `snas.settings.Settings`: epochs, lr, optimizer, init ...

        Raises:
            InputError: for anything unknown or out of range.
        """
        name, arguments = split_space(space)
        chosen = Settings(
            space=name, space_arg=arguments, dataset=dataset, device=str(self.device), threads=1, **settings
        )
        published = self.dataset(dataset)
        if dataset not in self._splits:
            self._splits[dataset] = split_data(published, seed=derive(chosen.seed, Stream.SPLIT), device=self.device)
            if len(self._splits) > MOST_DATA:
                self._splits.popitem(last=False)
        bench = open_bench(chosen, dataset=published, data=self._splits[dataset])
        if not examples:
            return bench
        part = self.sample(bench, examples)
        data = replace(bench.task.data, train=Arrays(part.x, part.y))
        return replace(bench, task=replace(bench.task, data=data))

    def sample(self, bench: Bench, examples: int) -> Batch:
        """So many training examples, the same for all cells; all where it is 0.

        Raises:
            InputError: for more than there are.
        """
        available = len(bench.task.data.train.y)
        if not 0 <= examples <= available:
            raise InputError(
                f"examples is {examples}; {bench.dataset.name} has {available} to train on: 1 to these, or 0 for all"
            )
        return score_batch(bench.task.data, seed=0, examples=examples)

    def prepare(self, bench: Bench, method: str | Method, target: Densities | int, *, seed: int) -> Sparse:
        """A network ready to train: that of seed number `seed` (0, 1 ...) of `snas prune` with the same settings.

        Raises:
            RefusedError: if it cannot work.
            FailedError: if its code or its scores are at fault.
        """
        chosen = open_method(method) if isinstance(method, str) else method
        with network_at_fault():
            return bench.task.prepare(chosen, target, seed=seed_of(seed))

    def train(
        self,
        bench: Bench,
        method: str | Method,
        target: Densities | int,
        *,
        seed: int,
        sparse: Sparse | None = None,
        watcher: Watcher | None = None,
    ) -> Trained:
        """Prepare a network and train it over the whole length of the bench's rule; then test it once.

        Args:
            bench: data, rule, device.
            method: that makes its mask, and moves it.
            target: densities or number of weights, as the method takes it.
            seed: its number, 0, 1 ...
            sparse: the network, where it is prepared already.
            watcher: looks on, and may end the training with `Enough`.

        Raises:
            RefusedError, FailedError: if the network cannot work or breaks.
        """
        chosen = open_method(method) if isinstance(method, str) else method
        ready = sparse or self.prepare(bench, chosen, target, seed=seed)
        task = bench.task
        with network_at_fault():
            session = Session(
                ready.model,
                ready.masks,
                task.rule,
                task.data,
                seed=seed_of(seed),
                device=task.device,
                movement=chosen.make_movement(),
                goal=ready.goal,
                kernel=task.kernel,
                watcher=watcher,
            )
            epochs = tuple(self._epochs(session))
            test = bench.test_split()
            loss, accuracy = session.evaluate(test) if test else (None, None)
        return Trained(session, ready, epochs, loss, accuracy)

    def _epochs(self, session: Session) -> Iterator[Epoch]:
        while session.epoch < session.epochs:
            try:
                epoch = session.train_epoch()
            except Enough:
                return
            self.heard(session.epoch, session.epochs)
            yield epoch


def seed_of(number: int) -> int:
    """The seed of network number 0, 1 ...: that of the same number among the final seeds of a search or baseline."""
    return derive(0, Stream.FINAL, number)


def split_space(text: str) -> tuple[str, Mapping[str, str]]:
    """A space's name, and the arguments behind it.

    Example:
        >>> split_space("mlp:width=32:skip=no"), split_space("file.py:factory")
        (('mlp', {'width': '32', 'skip': 'no'}), ('file.py:factory', {}))

    Raises:
        InputError: for an argument that is there twice, or has no value.
    """
    name, *given = re.split(r":(?=[^:]*=)", text)
    arguments = {}
    for part in given:
        key, _, value = part.partition("=")
        if not key or not value or key in arguments:
            raise InputError(f"space {text!r}: {part!r} is no argument; expected name:key=value:key=value, each once")
        arguments[key] = value
    return name, arguments
