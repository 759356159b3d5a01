"""The user's own data: arrays in Python, or a file.npz with arrays x, y and optionally x_test, y_test."""

from __future__ import annotations

import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snas.data.base import Dataset
from snas.data.stratify import hold_out
from snas.errors import InputError

_NAMES = ("x", "y", "x_test", "y_test")


def from_arrays(x: Any, y: Any, x_test: Any = None, y_test: Any = None, *, name: str = "arrays") -> Dataset:
    """Make a data set of NumPy arrays, torch tensors or nested lists.

    Args:
        x: examples: features (N, features), grey images (N, H, W), or images (N, C, H, W) or (N, H, W, C). The last
            is recognised where only its last axis is 1 or 3 long. Images of type uint8 stay so; all else becomes
            float32. Arrays that need no conversion are not copied: do not change them afterwards.
        y: labels, shape (N,), integers 0 .. classes - 1, each class at least once.
        x_test: test examples of the same shape. Without them a fixed stratified fifth of the examples, which depends on
            the labels alone, becomes the test split.
        y_test: their labels.
        name: how results are filed.

    Raises:
        InputError: for arrays that do not fit.

    Example:
        >>> own = from_arrays(np.random.default_rng(0).random((10, 8, 8)), [0, 1] * 5)
        >>> own.train_x.shape, own.train_x.dtype, own.test_y.tolist()
        ((8, 1, 8, 8), dtype('float32'), [1, 0])
    """
    if (x_test is None) != (y_test is None):
        raise InputError(f"{name}: give both x_test and y_test, or neither")
    images, labels = _examples(x, f"{name}: x"), _labels(y, f"{name}: y")
    classes = int(labels.max(initial=-1)) + 1
    present = np.unique(labels)
    if len(present) != classes:
        gap = int(np.argmax(present != np.arange(len(present))))
        raise InputError(
            f"{name}: no label in y is {gap}, though the largest is {classes - 1}; number the classes from 0 without "
            "gaps, for example with numpy.unique(y, return_inverse=True)[1]"
        )
    if x_test is not None:
        test = _examples(x_test, f"{name}: x_test"), _labels(y_test, f"{name}: y_test")
        return Dataset(name, images, labels, *test, classes=classes)
    whole = Dataset(name, images, labels, images[:0], labels[:0], classes=classes)  # checks before it is split
    try:
        train, held = hold_out(whole.train_y)
    except InputError as error:
        raise InputError(f"{name}: {error}; give more examples, or x_test and y_test") from None
    return Dataset(name, images[train], labels[train], images[held], labels[held], classes=classes)


def load_npz(path: Path) -> Dataset:
    """Read `from_arrays`'s arguments from the arrays x, y, x_test, y_test of a file that `numpy.savez` wrote.

    The data set is named after the file, "file.npz". Pickled objects are never loaded.

    Raises:
        InputError: if there is no such file, it cannot be read, or its arrays do not fit.
    """
    if not path.is_file():
        raise InputError(f"data file {str(path)!r} does not exist; give the path of a file.npz with arrays x and y")
    try:
        with open(path, "rb") as file:  # numpy leaves a damaged file open when it opens it itself
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with archive:
                found = list(archive.files)
                arrays = {name: archive[name] for name in _NAMES if name in found}
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"cannot read {str(path)!r} ({reason}); expected numeric arrays written by numpy.savez"
        ) from None
    if "x" not in arrays or "y" not in arrays:
        raise InputError(
            f"{str(path)!r} has arrays {', '.join(found) or 'none'}; expected x and y, and optionally x_test, y_test"
        )
    return from_arrays(**arrays, name=path.name)


def _array(values: Any, what: str) -> NDArray[Any]:
    """View a tensor, array or nested list as a numeric array."""
    torch = sys.modules.get("torch")  # a tensor can only come from a torch that is imported already
    try:
        if torch is not None and isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            values = (values.float() if values.is_floating_point() else values).numpy()
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is no array ({str(error).partition(chr(10))[0]}); give a numeric array") from None
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} has type {array.dtype}; expected numbers")
    return array


def _examples(values: Any, what: str) -> NDArray[Any]:
    """Bring examples into the shape and type of a data set."""
    array = _array(values, what)
    if array.ndim not in (2, 3, 4):
        raise InputError(f"{what} has shape {array.shape}; expected (N, features), (N, H, W) or (N, C, H, W)")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = _channels_first(array, what)
    if array.ndim == 2 or array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused
            array = array.astype(np.float32, copy=False)
    return np.ascontiguousarray(array)


def _channels_first(array: NDArray[Any], what: str) -> NDArray[Any]:
    """Return images as (N, C, H, W); see `from_arrays` for what is recognised."""
    _, first, middle, last = array.shape
    if last in (1, 3) and first not in (1, 3):
        return array.transpose(0, 3, 1, 2)
    if last in (2, 4) and first == middle > 4:
        raise InputError(
            f"{what} has shape {array.shape}, which looks like (N, H, W, C); give (N, C, H, W): x.transpose(0, 3, 1, 2)"
        )
    return array


def _labels(values: Any, what: str) -> NDArray[np.int64]:
    """Check labels and bring them into the type of a data set."""
    array = _array(values, what)
    hint = "expected shape (N,) and integers 0..K-1"
    if array.ndim != 1:
        raise InputError(f"{what} has shape {array.shape}; {hint}")
    if array.dtype.kind not in "bui":
        raise InputError(f"{what} has type {array.dtype}; {hint}: y.astype(int)")
    if len(array) and not (array.min() >= 0 and array.max() <= np.iinfo(np.int32).max):
        raise InputError(
            f"{what} has labels {array.min()}..{array.max()}; expected integers 0..K-1 for K classes, for example from "
            "numpy.unique(y, return_inverse=True)[1]"
        )
    return array.astype(np.int64, copy=False)
