"""MNIST and Fashion-MNIST from their IDX files.

An IDX file is two zero bytes, a byte for the type (8: unsigned byte), a byte for the number of dimensions, each
dimension as a big-endian 32-bit integer, then the values, the last dimension fastest [LeCun1998].
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from snas.data.base import Dataset, Progress, datasets
from snas.data.download import Published
from snas.data.sources import Source, obtain
from snas.errors import InputError

_LARGEST = 1 << 31  # bytes; a foreign file can announce more than any memory holds
_IMAGES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
_LABELS = {"train": "train-labels-idx1-ubyte.gz", "test": "t10k-labels-idx1-ubyte.gz"}

MNIST = Source(
    name="mnist",
    classes=10,
    folders=("mnist", "mnist/raw", "MNIST/raw", "MNIST"),
    files=(
        Published("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        Published("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
        Published("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
        Published("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)
FASHION_MNIST = Source(
    name="fashion-mnist",
    classes=10,
    folders=("fashion-mnist", "fashion-mnist/raw", "FashionMNIST/raw", "FashionMNIST"),
    files=(
        Published("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        Published("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
        Published("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
        Published("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
)
# The two have the same file names and shapes: their first training labels tell them apart.
_FIRST_LABELS = {
    (5, 0, 4, 1, 9, 2, 1, 3, 1, 4): "mnist",
    (9, 0, 0, 3, 0, 2, 7, 2, 5, 5): "fashion-mnist",
}


@datasets.register("mnist")
def mnist(data_dir: Path | None, *, download: bool = True, progress: Progress | None = None) -> Dataset:
    """MNIST: 60,000 and 10,000 grey images of handwritten digits, 28x28, 10 classes.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    return load_idx(MNIST, data_dir, download=download, progress=progress)


@datasets.register("fashion-mnist")
def fashion_mnist(data_dir: Path | None, *, download: bool = True, progress: Progress | None = None) -> Dataset:
    """Fashion-MNIST: 60,000 and 10,000 grey images of clothing, 28x28, 10 classes.

    Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking, 2017.
    """
    return load_idx(FASHION_MNIST, data_dir, download=download, progress=progress)


def load_idx(source: Source, data_dir: Path | None, *, download: bool, progress: Progress | None) -> Dataset:
    """Read four IDX files: images and labels for training and test, compressed or not.

    Their names may end in ".gz" or not, and have a '.' for the '-' before "idx".

    Raises:
        InputError: for files that are missing, damaged, or those of another data set.
    """
    spellings = {file.name: _spellings(file.name) for file in source.files}
    paths = obtain(source, data_dir, spellings, allow_download=download, progress=progress)
    arrays: list[NDArray[np.uint8]] = []
    for part in ("train", "test"):
        image_path, label_path = paths[_IMAGES[part]], paths[_LABELS[part]]
        images, labels = read_idx(image_path), read_idx(label_path)
        if images.ndim != 3 or images.shape[1:] != (28, 28):
            raise InputError(f"{image_path} has an array of shape {images.shape}; expected images of (N, 28, 28)")
        if labels.shape != images.shape[:1]:
            raise InputError(f"{label_path} has shape {labels.shape} for {len(images)} images; expected one label each")
        if len(labels) and labels.max() >= source.classes:
            raise InputError(f"{label_path} has a label {labels.max()}; expected 0..{source.classes - 1}")
        arrays += [images[:, None], labels]
    other = _FIRST_LABELS.get(tuple(arrays[1][:10].tolist()), source.name)
    if other != source.name:
        folder = paths[_LABELS["train"]].parent
        raise InputError(f"{folder} has the files of {other!r}, not of {source.name!r}; give another data-dir or name")
    train_x, train_y, test_x, test_y = arrays
    return Dataset(
        source.name, train_x, train_y.astype(np.int64), test_x, test_y.astype(np.int64), classes=source.classes
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, compressed with gzip or not (its first bytes tell).

    Raises:
        InputError: naming the file, if it cannot be read, is of another kind, or is longer or shorter than its
            dimensions say.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return parse_idx(gzip.GzipFile(fileobj=file) if compressed else file, what=str(path))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path} ({reason}); get it anew from its publisher") from None


def parse_idx(stream: BinaryIO | gzip.GzipFile, *, what: str) -> NDArray[np.uint8]:
    """Parse one array of unsigned bytes; `what` names the stream in errors.

    Returns:
        A read-only array.

    Example:
        >>> import io
        >>> parse_idx(io.BytesIO(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])), what="example").tolist()
        [7, 2, 1]

    Raises:
        InputError: if it is not of this format.
    """
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or not magic[3]:
        raise InputError(f"{what} is no IDX file of unsigned bytes: it starts with {magic.hex(' ')}, expected 00 00 08")
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise InputError(f"{what} ends within its {magic[3]} dimensions; get it anew from its publisher")
    shape = struct.unpack(f">{magic[3]}I", header)
    size = math.prod(shape)
    if size > _LARGEST or magic[3] > 4:
        raise InputError(
            f"{what} announces an array of shape {shape}; expected at most {_LARGEST} values in 4 dimensions"
        )
    values = stream.read(size + 1)
    if len(values) != size:
        found = "more than that" if len(values) > size else str(len(values))
        raise InputError(f"{what} announces {size} values and has {found}; get it anew from its publisher")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _spellings(name: str) -> tuple[str, ...]:
    """Names that a published file may have."""
    plain = name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    return name, plain, f"{dotted}.gz", dotted
