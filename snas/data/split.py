"""What a search sees of a data set: normalized training and validation tensors, and nothing of the test split."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snas.data.base import Dataset
from snas.data.stratify import choose
from snas.errors import InputError
from snas.seeds import Stream, derive

_CHUNK = 1 << 18  # values that are converted at a time; keeps temporaries in the processor's cache


@dataclass(frozen=True, eq=False)
class Arrays:
    """Examples and labels on a device.

    Attributes:
        x: shape (n, *input_shape), float32, normalized.
        y: shape (n,), int64.
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class SearchData:
    """All that a search may see.

    Attributes:
        train: examples to train on.
        validation: examples to choose by.
        mean: of the training part in the data's own units, float32 on the CPU, one value per channel of images and one
            per feature otherwise.
        std: standard deviation, like `mean`; 1 where all values are equal.
        input_shape: shape of one example.
        classes: number of classes.
        colour: whether the examples are images of three channels.
        train_indices: places of the training part in the data set's `train_x`, increasing.
        validation_indices: places of the validation part in the same array, increasing.
        checksum: SHA-256 (hex) of the two arrays of indices.
    """

    train: Arrays
    validation: Arrays
    mean: Tensor
    std: Tensor
    input_shape: tuple[int, ...]
    classes: int
    colour: bool
    train_indices: NDArray[np.int64]
    validation_indices: NDArray[np.int64]
    checksum: str


def split_data(
    dataset: Dataset, *, seed: int, validation: float = 0.1, device: torch.device | str = "cpu"
) -> SearchData:
    """Split the training examples into training and validation part, stratified by class, and normalize both.

    Args:
        dataset: whose test split is left alone.
        seed: the study's; equal seeds give equal splits, on every machine and with every version of NumPy.
        validation: fraction that validates; round(validation * N) examples do, exactly.
        device: where the tensors go.

    Raises:
        InputError: if the fraction is not within (0, 1), or leaves no example to validate or a class without an example
            to train on.

    Example:
        >>> x, y = np.arange(20, dtype=np.float32).reshape(10, 2), np.array([0, 1] * 5)
        >>> data = split_data(Dataset("tiny", x, y, x[:0], y[:0], classes=2), seed=0, validation=0.2)
        >>> data.train.x.shape, data.validation.y.tolist()
        (torch.Size([8, 2]), [1, 0])
    """
    if not (isinstance(validation, (int, float)) and math.isfinite(validation) and 0 < validation < 1):
        raise InputError(f"validation is {validation}; expected a fraction with 0 < validation < 1")
    total = len(dataset.train_y)
    try:
        held = choose(dataset.train_y, round(validation * total), seed=derive(seed, Stream.SPLIT))
    except InputError as error:
        raise InputError(f"data set {dataset.name!r} cannot be split with validation {validation}: {error}") from None
    kept = np.delete(np.arange(total), held)
    mean, std = _statistics(dataset.train_x, kept)
    return SearchData(
        train=_normalized(dataset.train_x, dataset.train_y, kept, mean, std, device),
        validation=_normalized(dataset.train_x, dataset.train_y, held, mean, std, device),
        mean=mean,
        std=std,
        input_shape=dataset.input_shape,
        classes=dataset.classes,
        colour=dataset.colour,
        train_indices=kept,
        validation_indices=held,
        checksum=_checksum(kept, held),
    )


def held_out(dataset: Dataset, data: SearchData, *, device: torch.device | str = "cpu") -> Arrays:
    """Return the test split, normalized by the training part's statistics. For finalists only, once."""
    everything = np.arange(len(dataset.test_y))
    return _normalized(dataset.test_x, dataset.test_y, everything, data.mean, data.std, device)


def _statistics(x: NDArray[Any], indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel or feature, of the examples at `indices`, computed in float64.

    Differences from the first value are summed, so that equal values have a deviation of exactly zero.
    """
    first = x[indices[0]].reshape(x.shape[1], -1)[:, :1].astype(np.float64)
    sums = np.zeros((2, x.shape[1]))
    for part in _chunks(x, indices):
        differences = x[part].reshape(len(part), x.shape[1], -1) - first
        sums[0] += differences.sum(axis=(0, 2))
        sums[1] += np.einsum("ncp,ncp->c", differences, differences)
    number = len(indices) * math.prod(x.shape[2:])
    shift, square = sums / number
    mean = first[:, 0] + shift
    std = np.sqrt(np.maximum(square - shift**2, 0)).astype(np.float32)
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(np.where(std > 0, std, np.float32(1)))


def _normalized(
    x: NDArray[Any],
    y: NDArray[np.int64],
    indices: NDArray[np.int64],
    mean: Tensor,
    std: Tensor,
    device: torch.device | str,
) -> Arrays:
    """Gather, normalize on the CPU (so that every device gets the same numbers) and put on the device."""
    shape = (-1, *[1] * (x.ndim - 2))
    shift, scale = mean.numpy().reshape(shape), std.numpy().reshape(shape)
    out = np.empty((len(indices), *x.shape[1:]), np.float32)
    start = 0
    for part in _chunks(x, indices):
        here = out[start : start + len(part)]
        np.subtract(x[part], shift, out=here)
        here /= scale
        start += len(part)
    return Arrays(torch.from_numpy(out).to(device), torch.from_numpy(y[indices]).to(device))


def _chunks(x: NDArray[Any], indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut `indices` into parts of about _CHUNK values."""
    step = max(1, _CHUNK // math.prod(x.shape[1:]))
    return [indices[start : start + step] for start in range(0, len(indices), step)]


def _checksum(*arrays: NDArray[np.int64]) -> str:
    """SHA-256 (hex) of the arrays' lengths and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(len(array).to_bytes(8, "little") + array.astype("<i8").tobytes())
    return digest.hexdigest()
