"""The seam between a study and its data.

A data set is four arrays as they were published. Normalization and the split into training and validation parts come
later (`snas.data.split`). To add a data set, write a loader, decorate it, and name its module in `datasets` below:

    @datasets.register("mine")
    def mine(data_dir, *, download=True, progress=None) -> Dataset:
        \"\"\"One line that `snas list datasets` shows.\"\"\"
        return from_arrays(x, y, x_test, y_test, name="mine")
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from snas.errors import InputError
from snas.plugins import Family

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images or features as they were published, before any normalization.

    The arrays are kept as read-only views, not copied. Two data sets are the same data where their `fingerprint` is.

    Attributes:
        name: how results are filed.
        train_x: shape (N, C, H, W), uint8 or float32, or (N, features), float32.
        train_y: shape (N,), int64, class numbers 0 .. classes - 1.
        test_x: like `train_x`; of length 0 where there is no test split.
        test_y: like `train_y`.
        classes: number of classes, at least 2.

    Raises:
        InputError: for arrays of the wrong type, shape or length, a label outside the classes, or a value that is
            not finite.

    Example:
        >>> x, y = np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1])
        >>> tiny = Dataset("tiny", x, y, x[:0], y[:0], classes=2)
        >>> tiny.input_shape, tiny.colour, tiny.fingerprint[:8]
        ((1, 2, 2), False, '79c7105e')
    """

    name: str
    train_x: NDArray[Any]
    train_y: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[np.int64]
    classes: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            raise InputError(f"data set's name is {self.name!r}; expected printable text")
        if not isinstance(self.classes, int) or self.classes < 2:
            raise InputError(f"data set {self.name!r} has {self.classes} classes; expected at least 2")
        for part in ("train", "test"):
            self._check_part(part)
        if not len(self.train_x):
            raise InputError(f"data set {self.name!r} has no training example; expected at least 1")
        if self.test_x.shape[1:] != self.input_shape or self.test_x.dtype != self.train_x.dtype:
            found = f"{self.test_x.shape[1:]} {self.test_x.dtype}"
            raise InputError(
                f"test examples of {self.name!r} are {found}; expected {self.input_shape} {self.train_x.dtype}, "
                "as the training examples are"
            )
        for field in ("train_x", "train_y", "test_x", "test_y"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: (channels, height, width) or (features,)."""
        return self.train_x.shape[1:]

    @property
    def colour(self) -> bool:
        """Whether the examples are images of three channels."""
        return len(self.input_shape) == 3 and self.input_shape[0] == 3

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the four arrays: field name, shape, type and bytes of each. The name is left out."""
        digest = hashlib.sha256()
        for field in ("train_x", "train_y", "test_x", "test_y"):
            array = getattr(self, field)
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{field} {array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).data)
        return digest.hexdigest()

    def _check_part(self, part: str) -> None:
        """Check the examples and labels of "train" or "test"."""
        x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
        what = f"{part} examples of {self.name!r}"
        image = isinstance(x, np.ndarray) and x.ndim == 4 and x.dtype in (np.uint8, np.float32)
        features = isinstance(x, np.ndarray) and x.ndim == 2 and x.dtype == np.float32
        if not (image or features) or 0 in x.shape[1:]:
            found = f"an array of shape {x.shape} and type {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
            raise InputError(
                f"{what} are {found}; expected (N, C, H, W) of uint8 or float32, or (N, features) of float32"
            )
        if not isinstance(y, np.ndarray) or y.ndim != 1 or y.dtype != np.int64:
            raise InputError(f"labels of the {what} must be an array of shape (N,) and type int64")
        if len(x) != len(y):
            raise InputError(f"{what}: {len(x)} with {len(y)} labels; give one label per example")
        if len(y) and not (y.min() >= 0 and y.max() < self.classes):
            raise InputError(
                f"labels of the {what} are {y.min()}..{y.max()}; expected 0..{self.classes - 1}, "
                f"as there are {self.classes} classes"
            )
        if x.dtype == np.float32 and not np.isfinite(x).all():
            raise InputError(f"{what} contain NaN or infinite values; remove or replace them")


class Loader(Protocol):
    """Reads one published data set."""

    def __call__(self, data_dir: Path | None, *, download: bool = True, progress: Progress | None = None) -> Dataset:
        """Return the data set.

        Args:
            data_dir: an existing folder with its files; None stands for the cache folder.
            download: whether files that are missing may be downloaded into that folder.
            progress: called with one line of text at a time while something takes long.

        Raises:
            InputError: for files that are missing, damaged or of another kind.
        """
        ...


datasets: Family[Loader] = Family(
    "dataset",
    group="snas.datasets",
    modules=("snas.data.digits", "snas.data.idx", "snas.data.cifar"),
)


def load_dataset(
    name_or_path: str | os.PathLike[str] | Dataset,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set by name, or the user's own from `file.npz` (see `snas.data.arrays.load_npz`).

    Args:
        name_or_path: a name in `datasets`, a path that ends in ".npz", or a data set, which is returned as it is.
        data_dir: folder with the files, which must exist; by default the folder in the environment variable SNAS_DATA,
            else a cache folder of the user's. The files may be in it or in the usual sub-folders.
        download: whether files that are missing are downloaded, with their checksums verified, into `data_dir`
            (into a sub-folder named after the data set). Nothing that is there already is replaced.
        progress: called with one line of text at a time while something takes long.

    Raises:
        InputError: for an unknown name, a folder or file that is missing, or files that cannot be read.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.train_x.shape, digits.test_x.shape, digits.classes
        ((1438, 1, 8, 8), (359, 1, 8, 8), 10)
    """
    if isinstance(name_or_path, Dataset):
        return name_or_path
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if folder is not None and not folder.is_dir():
        raise InputError(f"data-dir {str(folder)!r} is not a folder; create it or give the folder that has the files")
    name = os.fspath(name_or_path)
    if name.lower().endswith(".npz"):
        from snas.data.arrays import load_npz

        path = Path(name).expanduser()
        return load_npz(folder / path if folder is not None and not path.exists() else path)
    try:
        loader = datasets.get(name)
    except InputError as error:
        raise InputError(f"{error}; or the path of a file.npz with arrays x and y") from None
    return loader(folder, download=download, progress=progress)
