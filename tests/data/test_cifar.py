"""CIFAR's binary version, on files and archives that the tests make."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from snas.data import load_dataset
from snas.data.cifar import parse_records, read_members
from snas.data.split import split_data
from snas.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TEN = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}


def record(*labels, first):
    """Label bytes and pixels first, first + 1, ... (modulo 251, so that planes and rows differ)."""
    return bytes(labels) + bytes((first + i) % 251 for i in range(3072))


def files(name):
    """Two records in each file; the label of record r is r, its first pixel 10 r."""
    if name == "cifar10":
        return {
            file: b"".join(record(2 * n + k if n < 5 else 9, first=10 * (2 * n + k)) for k in range(2))
            for n, file in enumerate(TEN)
        }
    train = b"".join(record(19, 30 + k, first=10 * k) for k in range(3))
    return {"train.bin": train, "test.bin": record(0, 99, first=200)}


def write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def pack(path, contents, *, folder, kind=tarfile.REGTYPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.type, entry.linkname = kind, "/etc/hostname" if kind != tarfile.REGTYPE else ""
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(content))


def check_ten(data):
    assert (data.name, data.classes, data.colour) == ("cifar10", 10, True)
    assert data.train_x.shape == (10, 3, 32, 32)
    assert data.train_y.tolist() == list(range(10))
    assert data.test_y.tolist() == [9, 9]
    # Record 3, green plane, row 2, column 5: pixel 1024 + 2 * 32 + 5 of the record.
    assert data.train_x[3, 1, 2, 5] == (30 + 1024 + 64 + 5) % 251
    assert data.test_x[1, 2, 31, 31] == (110 + 3071) % 251


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"])
def test_files_in_their_usual_places(tmp_path, folder):
    write(tmp_path / folder, files("cifar10"))
    check_ten(load_dataset("cifar10", data_dir=tmp_path, download=False))


@pytest.mark.parametrize("folder", [".", "cifar10"])
def test_the_archive_is_read_where_it_lies(tmp_path, folder):
    contents = dict(reversed(files("cifar10").items()))  # the order in the archive does not matter
    pack(tmp_path / folder / ARCHIVES["cifar10"], {"readme.html": b"hello", **contents}, folder=FOLDERS["cifar10"])
    check_ten(load_dataset("cifar10", data_dir=tmp_path, download=False))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [ARCHIVES["cifar10"]]


@pytest.mark.parametrize("packed", [False, True])
def test_cifar100_has_fine_labels(tmp_path, packed):
    if packed:
        pack(tmp_path / ARCHIVES["cifar100"], files("cifar100"), folder=f"./{FOLDERS['cifar100']}")
    else:
        write(tmp_path / FOLDERS["cifar100"], files("cifar100"))
    data = load_dataset("cifar100", data_dir=tmp_path, download=False)
    assert (data.classes, data.train_y.tolist(), data.test_y.tolist()) == (100, [30, 31, 32], [99])
    assert data.train_x[2, 0, 0].tolist() == list(range(20, 52))


def test_files_go_before_the_archive_and_some_files_do_not(tmp_path):
    pack(tmp_path / ARCHIVES["cifar10"], files("cifar10"), folder=FOLDERS["cifar10"])
    swapped = files("cifar10")
    swapped["test_batch.bin"] = record(4, first=0)
    write(tmp_path, swapped)
    assert load_dataset("cifar10", data_dir=tmp_path).test_y.tolist() == [4]
    (tmp_path / "data_batch_3.bin").unlink()
    assert load_dataset("cifar10", data_dir=tmp_path).test_y.tolist() == [9, 9]


def test_some_files_without_an_archive_are_named(tmp_path):
    write(tmp_path, files("cifar10"))
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"lacks data_batch_3.bin; put all files into one folder"):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (record(1, first=0)[:-1], r"data_batch_2.bin in .* has 3072 bytes; expected a multiple of 3073"),
        (b"", "data_batch_2.bin in .* has 0 bytes"),
        (record(10, first=0), r"has a label 10; cifar10 has labels 0\.\.9"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    write(tmp_path, {**files("cifar10"), "data_batch_2.bin": content})
    with pytest.raises(InputError, match=message):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08" + b"\xff" * 40])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / ARCHIVES["cifar10"]).write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*cifar-10-binary.tar.gz \(.*\); get it anew") as caught:
        load_dataset("cifar10", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_is_named(tmp_path):
    path = tmp_path / ARCHIVES["cifar10"]
    pack(path, files("cifar10"), folder=FOLDERS["cifar10"])
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"cifar-10-binary.tar.gz"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_links_in_an_archive_are_not_followed(tmp_path):
    pack(tmp_path / "a.tar.gz", {"test_batch.bin": b""}, folder="f", kind=tarfile.SYMTYPE)
    with pytest.raises(InputError, match=r"a.tar.gz lacks f/test_batch.bin; expected the binary version"):
        read_members(tmp_path / "a.tar.gz", ["f/test_batch.bin"])


def test_records_are_views_of_the_bytes():
    content = record(7, first=0) + record(8, first=1)
    records = parse_records(content, label_bytes=1, what="x")
    assert records[:, 0].tolist() == [7, 8]
    assert records.tobytes() == content


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, all CIFAR-10 images")
def test_all_of_cifar10(tmp_path):
    pytest.importorskip("PIL", reason="needs pillow to unpack the images in ../shared/data")
    subprocess.run([sys.executable, str(SHARED / "unpack_cifar10.py"), str(tmp_path)], check=True)
    data = load_dataset("cifar10", data_dir=tmp_path, download=False)
    assert (data.train_x.shape, data.test_x.shape) == ((50000, 3, 32, 32), (10000, 3, 32, 32))
    assert np.bincount(data.train_y).tolist() == [5000] * 10
    assert np.bincount(data.test_y).tolist() == [1000] * 10
    # Published means of the training images are 0.4914, 0.4822, 0.4465 of 255; nine tenths of them, once re-encoded,
    # are a little off.
    split = split_data(data, seed=0)
    assert np.allclose(split.mean.numpy() / 255, [0.4914, 0.4822, 0.4465], atol=0.002)
    assert np.allclose(split.std.numpy() / 255, [0.247, 0.2435, 0.2616], atol=0.005)
