"""Trained networks as files: weights and masks as safetensors, kept beside the registry and checked when they are read.

The registry has the SHA-256 of each file, and the file the SHA-256 of its content, so that a file that was handed on
can be checked too. Weights have the names of the network's `state_dict`, those of masked places are exactly zero; masks
are bits, eight to a byte, "mask/LAYER". A file holds numbers and what the registry tells of them, never code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from snas.digests import file_digest
from snas.errors import InputError, SnasError, one_line
from snas.masks import Masks, audit
from snas.pruning.methods import Method
from snas.ranking import layers_of
from snas.record_checks import check_space
from snas.registry import Entry, Registry, TrainingRecord
from snas.settings import registry_path
from snas.training.task import Training
from snas.training.tensor_files import DIGEST, DamagedError, read_tensors, write_tensors
from snas.trials import Status

if TYPE_CHECKING:
    from snas.search_spaces.base import SearchSpace

FORMAT = "snas network 1"
MASK = "mask/"


@dataclass(frozen=True)
class TrainedNetwork:
    """What a file of weights holds.

    Attributes:
        state: the network's `state_dict`.
        masks: which weights it keeps.
        about: what the registry tells of it: row, seed, method, space, data set, training, accuracy, versions.
    """

    state: Mapping[str, Tensor]
    masks: Masks
    about: Mapping[str, Any]


def keep_weights(
    registry: Registry, entry: Entry, number: int, method: Method, training: Training, test_accuracy: float | None
) -> dict[str, Any]:
    """Write the network of final seed `number`, which has been trained, beside the registry.

    Returns:
        What the registry is to file of it: {"weights": {"file": its name, "sha256": digest of its bytes}}.

    Raises:
        SnasError: if there is no room, or a masked weight is not zero.
    """
    from safetensors import SafetensorError

    model, masks = training.session.network()
    audit(model, masks)
    state = model.state_dict()
    tensors = {**state, **{f"{MASK}{name}": bits for name, bits in masks.pack().items()}}
    if any(name.startswith(MASK) for name in state):
        raise SnasError(
            f"the network has a module whose name begins with {MASK!r}; give it another one to keep weights"
        )
    about = {
        "format": FORMAT,
        "row": entry.id,
        "seed": number,
        "method": entry.method,
        "offset": method.offset,
        "space": dict(entry.space),
        "dataset": dict(entry.dataset),
        "rule": dict(entry.rule),
        "epochs": training.session.epoch,
        "test_accuracy": test_accuracy,
        "environment": dict(entry.environment),
    }
    path = _folder(registry) / _name(entry, number)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, {"snas": json.dumps(about, allow_nan=False)})
        return {"weights": {"file": path.name, "sha256": file_digest(path)}}
    except (OSError, SafetensorError) as error:
        raise SnasError(f"cannot write weights {path}: {error}; make room and run the same command") from error


def kept_file(registry: Registry, entry: Entry, number: int) -> Path:
    """The file with the weights of final seed `number`, after a check that it is the one that the registry knows.

    Raises:
        InputError: if they were not kept, or the file is gone, damaged or another one.
    """
    again = f"snas train {entry.id} --keep-weights trains it again from its seed"
    run = next((run for run in registry.runs(entry) if run.number == number), None)
    if run is None or run.status is not Status.FINISHED:
        raise InputError(f"row {entry.id} has no seed {number} that is trained; snas show {entry.id} lists its seeds")
    recorded = recorded_weights(run)
    if recorded is None:
        raise InputError(f"the weights of row {entry.id}, seed {number}, were not kept; {again}")
    path = _folder(registry) / _name(entry, number)
    try:
        found = file_digest(path)
    except OSError as error:
        raise InputError(f"the weights of row {entry.id}, seed {number}, cannot be read ({error}); {again}") from None
    if found != recorded["sha256"]:
        raise InputError(f"{path} is damaged: its SHA-256 is not the recorded one; remove it, and {again}")
    return path


def recorded_weights(run: TrainingRecord) -> Mapping[str, str] | None:
    """What the registry has of a seed's file of weights: its name and SHA-256; None where they were not kept."""
    found = run.traits.get("weights")
    return found if isinstance(found, dict) and isinstance(found.get("sha256"), str) else None


def lacks_weights(registry: Registry, entry: Entry, run: TrainingRecord) -> bool:
    """Whether a finished seed has no file of weights, though it may have had one."""
    return recorded_weights(run) is None or not (_folder(registry) / _name(entry, run.number)).is_file()


def read_network(path: Path) -> TrainedNetwork:
    """Read and check a file of weights; it may come from anywhere.

    Raises:
        InputError: if it cannot be read, is none, or does not hold what was written.
    """
    try:
        tensors, texts = read_tensors(path)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}; snas weights ID -o FILE writes one") from None
    except DamagedError as error:
        raise InputError(f"{path} cannot be used: {error}; write it again with snas weights ID -o FILE") from error
    try:
        about = json.loads(texts["snas"])
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {str(about['format'])[:40]!r}; this snas knows {FORMAT!r}")
        check_space(about["space"])
        packed = {name.removeprefix(MASK): bits for name, bits in tensors.items() if name.startswith(MASK)}
        masks = Masks.unpack(layers_of(about["space"]), packed)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no file of weights of snas: {type(error).__name__}: {one_line(error)}") from error
    state = {name: value for name, value in tensors.items() if not name.startswith(MASK)}
    for layer in masks.layers:
        weight = state.get(layer.parameter)
        if weight is None or tuple(weight.shape) != layer.shape or bool(weight[~masks[layer.name]].any()):
            raise InputError(f"{path} is no file of weights of snas: layer {layer.name!r} is not masked as it says")
    return TrainedNetwork(state, masks, {**about, DIGEST: texts[DIGEST]})


def load_network(
    source: int | str | Path,
    *,
    seed: int = 0,
    registry: str | Path | None = None,
    space: str | SearchSpace | None = None,
) -> nn.Module:
    """A trained network, on the CPU and in evaluation mode; its masked weights are exactly zero.

    Args:
        source: id of a row whose weights were kept, or a file that `snas weights` wrote.
        seed: which of the row's final seeds.
        registry: the registry file, for rows.
        space: needed only for a space of the user's own code, which is never run because a file names it.

    Raises:
        InputError: if there are no such weights, they are not what was written, or the space is another network.

    Example:
        >>> import snas, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = f"{folder}/snas.db"
        ...     short = {"epochs": 1, "final_seeds": 1, "registry": file}
        ...     row = snas.prune("lenet-300-100", density=0.1, keep_weights=True, **short)
        ...     network = snas.load_network(row.id, registry=file)
        >>> sum(int(parameter.count_nonzero()) for parameter in network.parameters() if parameter.ndim > 1)
        5020
    """
    if isinstance(source, int) or (isinstance(source, str) and source.isdecimal()):
        with Registry(registry_path(None if registry is None else str(registry)), create=False) as opened:
            source = kept_file(opened, opened.find_entry(int(source)), seed)
    path = Path(source)
    found = read_network(path)
    opened_space = _open(found.about["space"], space, path)
    model = opened_space.build(generator=torch.Generator().manual_seed(0))
    try:
        if found.about.get("offset") == "dct":
            from snas.layers.dct import add_offsets

            add_offsets(model, opened_space.layers)
        model.load_state_dict(found.state)
    except (RuntimeError, InputError) as error:
        raise InputError(f"{path} has weights of another network: {one_line(error)}") from error
    audit(model, found.masks)
    return model.eval()


def _open(described: Mapping[str, Any], space: str | SearchSpace | None, path: Path) -> SearchSpace:
    """The space that a file is of: a built-in one, or the user's own code where it is given."""
    from snas.search_spaces.base import spaces
    from snas.search_spaces.catalog import open_space

    if space is None and described["name"] not in spaces.names():
        raise InputError(
            f"{path} is of the custom space {described['name']!r}, whose code it does not have; give space="
        )
    if space is None or isinstance(space, str):
        space = open_space(
            described["name"] if space is None else space,
            input_shape=described["input_shape"],
            classes=described["classes"],
            arguments=described["arguments"],
        )
    own = space.describe()
    if any(own[key] != described[key] for key in ("layers", "network")):
        raise InputError(f"space {space.name!r} is another network than that of {path}")
    return space


def _folder(registry: Registry) -> Path:
    return registry.files / "weights"


def _name(entry: Entry, number: int) -> str:
    """Name of a seed's file. It is made here, never read: a registry cannot lead to any other file."""
    return f"row-{entry.id}-seed-{number}.safetensors"
