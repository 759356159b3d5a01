"""CIFAR-10 and CIFAR-100 from their binary version: files, or the archive as it was published.

A file is a sequence of records: one label byte (CIFAR-100: coarse label, then fine label), then 3,072 pixel bytes, the
red, green and blue plane of 32x32 each, row by row [Krizhevsky2009].
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snas.data.base import Dataset, Progress, datasets
from snas.data.download import Published
from snas.data.sources import Source, find, incomplete, obtain
from snas.errors import InputError

_PIXELS = 3 * 32 * 32
_LARGEST = 1 << 29  # bytes of one file
_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)


@dataclass(frozen=True)
class Layout:
    """How a data set is spread over files.

    Attributes:
        source: its archive.
        folder: the folder in the archive.
        train: files of the training part.
        test: files of the test part.
        label_bytes: label bytes at the start of a record; the last of them is the label.
    """

    source: Source
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int


CIFAR10 = Layout(
    Source(
        name="cifar10",
        classes=10,
        folders=("cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"),
        files=(Published("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530"),),
        mirrors=_MIRRORS,
    ),
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test=("test_batch.bin",),
    label_bytes=1,
)
CIFAR100 = Layout(
    Source(
        name="cifar100",
        classes=100,
        folders=("cifar-100-binary", "cifar100", "cifar100/cifar-100-binary"),
        files=(Published("cifar-100-binary.tar.gz", "md5:03b5dce01913d631647c71ecec9e9cb8"),),
        mirrors=_MIRRORS,
    ),
    folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    label_bytes=2,
)


@datasets.register("cifar10")
def cifar10(data_dir: Path | None, *, download: bool = True, progress: Progress | None = None) -> Dataset:
    """CIFAR-10: 50,000 and 10,000 colour images of things and animals, 32x32, 10 classes.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    return load_cifar(CIFAR10, data_dir, download=download, progress=progress)


@datasets.register("cifar100")
def cifar100(data_dir: Path | None, *, download: bool = True, progress: Progress | None = None) -> Dataset:
    """CIFAR-100: 50,000 and 10,000 colour images, 32x32, 100 (fine) classes.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    return load_cifar(CIFAR100, data_dir, download=download, progress=progress)


def load_cifar(layout: Layout, data_dir: Path | None, *, download: bool, progress: Progress | None) -> Dataset:
    """Read the binary files where there are some, else the archive, which is never unpacked to disk.

    Raises:
        InputError: for files that are missing, damaged or of another kind.
    """
    source, names = layout.source, (*layout.train, *layout.test)
    places = source.places(data_dir)
    found = find(places, {name: (name,) for name in names})
    archives = {file.name: (file.name,) for file in source.files}
    if len(found) == len(names):
        contents = {name: _read(path) for name, path in found.items()}
        origin = str(next(iter(found.values())).parent)
    elif found and not find(places, archives):
        folder = next(iter(found.values())).parent
        raise incomplete(source.name, folder, [name for name in names if name not in found])
    else:
        (archive,) = obtain(source, data_dir, archives, allow_download=download, progress=progress).values()
        contents = read_members(archive, [f"{layout.folder}/{name}" for name in names])
        origin = str(archive)
    arrays: list[NDArray[np.uint8]] = []
    for part in (layout.train, layout.test):
        records = [
            parse_records(contents.pop(name), label_bytes=layout.label_bytes, what=f"{name} in {origin}")
            for name in part
        ]
        labels = np.concatenate([record[:, layout.label_bytes - 1] for record in records])
        if labels.max() >= source.classes:
            raise InputError(f"{origin} has a label {labels.max()}; {source.name} has labels 0..{source.classes - 1}")
        pixels = np.concatenate([record[:, layout.label_bytes :] for record in records])
        arrays += [pixels.reshape(-1, 3, 32, 32), labels]
    train_x, train_y, test_x, test_y = arrays
    return Dataset(
        source.name, train_x, train_y.astype(np.int64), test_x, test_y.astype(np.int64), classes=source.classes
    )


def parse_records(content: bytes, *, label_bytes: int, what: str) -> NDArray[np.uint8]:
    """View the bytes of a file as records.

    Returns:
        Read-only array of shape (records, label_bytes + 3072), at least one record.

    Raises:
        InputError: naming the file (`what`) if its size is not that of a whole number of records.
    """
    size = label_bytes + _PIXELS
    if not content or len(content) % size:
        raise InputError(
            f"{what} has {len(content)} bytes; expected a multiple of {size}: get it anew from its publisher"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, size)


def read_members(archive: Path, members: Sequence[str]) -> dict[str, bytes]:
    """Read regular files out of a .tar.gz archive, in one pass; nothing is written to disk.

    Returns:
        Last part of each member's name -> its bytes.

    Raises:
        InputError: naming the archive, if it cannot be read or lacks one of them.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if name in members and entry.isreg() and entry.size <= _LARGEST:
                    file = tar.extractfile(entry)
                    contents[name.rpartition("/")[2]] = file.read() if file else b""
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {archive} ({reason}); get it anew from its publisher") from None
    missing = [name for name in members if name.rpartition("/")[2] not in contents]
    if missing:
        raise InputError(f"{archive} lacks {', '.join(missing)}; expected the binary version of the data set")
    return contents


def _read(path: Path) -> bytes:
    """Read a file whole."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check its permissions") from None
