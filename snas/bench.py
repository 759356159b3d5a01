"""Everything that the settings of a command stand for: data, split, network family, training rule, device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from snas.data.base import Dataset, load_dataset
from snas.data.split import Arrays, SearchData, held_out, split_data
from snas.errors import InputError
from snas.kernels.compression import choose_kernel
from snas.pruning.methods import Method
from snas.search_spaces.base import SearchSpace
from snas.search_spaces.catalog import open_space, require_fit
from snas.seeds import Stream, derive
from snas.settings import Settings
from snas.training.devices import choose_device, choose_precision, environment, set_threads
from snas.training.rule import PrecisionChoice
from snas.training.task import Task

EPOCH_RULE = "last"  # results are those after the last epoch; none is picked by its score


@dataclass(frozen=True)
class Bench:
    """What all networks of one command share. `task` holds no test data; `test_split` hands it out at the end."""

    dataset: Dataset
    task: Task
    settings: Settings
    environment: Mapping[str, Any]

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.task.space

    def of(self, space: SearchSpace) -> Bench:
        """The same bench for another architecture."""
        return self if space is self.space else replace(self, task=self.task.of(space))

    def test_split(self) -> Arrays | None:
        """The test examples, normalized like the training ones; None where the data have none."""
        if len(self.dataset.test_y) == 0:
            return None
        return held_out(self.dataset, self.task.data, device=self.task.device)

    def describe_dataset(self) -> dict[str, Any]:
        """The data and their split, as recorded with every result."""
        return {
            "name": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "split": self.task.data.checksum,
            "train": len(self.task.data.train.y),
            "validation": len(self.task.data.validation.y),
            "test": len(self.dataset.test_y),
        }

    def describe_rule(self, method: Method | None = None) -> dict[str, Any]:
        """How networks are trained, as recorded with every result; `weights` is what `method` makes of the rest."""
        return {
            **self.task.rule.as_dict(),
            "initialization": self.settings.init,
            "rescale": self.settings.rescale,
            "first_layer": self.settings.first_layer,
            "last_layer": self.settings.last_layer,
            "epoch_rule": EPOCH_RULE,
            "weights": self._describe_weights(method),
        }

    def _describe_weights(self, method: Method | None) -> str:
        if method is None:
            return self.settings.init
        rule = method.initialization or self.settings.init
        rescale = method.rescale if self.task.rescale is None else self.task.rescale
        if method.isometry != "none":
            norm = "" if method.isometry == "frobenius" else f" ({method.isometry} norm)"
            return f"{rule}, approximate isometry{norm}"
        if method.control == "redraw":
            rule = f"{rule}, redrawn"
        if method.offset != "none":
            rule = f"{rule}, {method.offset} offset"
        return f"{rule}, rescaled by masked fan-in" if rescale and not method.starts_dense else rule


def open_bench(
    settings: Settings,
    *,
    space: SearchSpace | None = None,
    dataset: Dataset | None = None,
    representation: str | None = None,
    data: SearchData | None = None,
    progress: Callable[[str], None] | None = None,
) -> Bench:
    """Load the data, split them, and open the space.

    Args:
        settings: what the user set.
        space: a space made in Python, instead of the settings' name.
        dataset: data given in Python, instead of the settings' name.
        representation: of the space.
        data: the data set's split with the settings' seed, where it is made already.
        progress: told of downloads, a line at a time.

    Raises:
        InputError: for anything unknown, missing or contradictory.
    """
    device = choose_device(settings.device)
    set_threads(settings.threads)
    published = dataset or load_dataset(settings.dataset, data_dir=settings.data_dir, progress=progress)
    ends = {"first_layer": settings.first_layer, "last_layer": settings.last_layer}
    if space is None:
        space = open_space(
            settings.space,
            input_shape=published.input_shape,
            classes=published.classes,
            arguments=settings.space_arg,
            representation=representation,
            **ends,
        )
    else:
        if settings.space_arg:
            raise InputError("space_arg is for spaces by name; a SearchSpace object has its arguments already")
        require_fit(space, published.input_shape, published.classes)
        space = space.with_options(representation=representation, **ends)
    task = Task(
        space=space,
        data=data or split_data(published, seed=derive(settings.seed, Stream.SPLIT), device=device),
        rule=settings.rule(
            default_lr=space.learning_rate, precision=choose_precision(_wished(settings), device, space.layers)
        ),
        initialization=settings.init,
        rescale={"auto": None, "on": True, "off": False}[settings.rescale],
        device=device,
        kernel=settings.kernel,
        threads=settings.threads,
        record_flow=settings.record_gradient_flow,
    )
    choose_kernel(settings.kernel, device, precision=task.rule.precision, batch_size=task.rule.batch_size)
    return Bench(published, task, settings, {**environment(device), "kernel": settings.kernel})


def _wished(settings: Settings) -> PrecisionChoice:
    """The precision that was asked for; sparse kernels are for single precision."""
    return "fp32" if settings.kernel == "sparse" and settings.precision == "auto" else settings.precision
