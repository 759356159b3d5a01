"""IDX files: the parser, names and places, damage; MNIST itself where it is present."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snas.data import load_dataset
from snas.data.idx import parse_idx, read_idx
from snas.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def encode(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def arrays():
    """Two training images and one for testing, with labels."""
    images = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28)
    return dict(zip(NAMES, (images[:2], np.array([3, 9], np.uint8), images[2:], np.array([4], np.uint8)), strict=True))


def write(folder, *, rename=lambda name: name, compress=False, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in {**arrays(), **changes}.items():
        content = array if isinstance(array, bytes) else encode(array)
        path = folder / (rename(name) + (".gz" if compress else ""))
        path.write_bytes(gzip.compress(content) if compress else content)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_was_written_is_read(shape, random):
    array = np.frombuffer(random.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)
    assert np.array_equal(parse_idx(io.BytesIO(encode(array)), what="x"), array)


@given(st.data())
def test_a_byte_less_or_more_is_noticed(data):
    content = encode(np.arange(6, dtype=np.uint8).reshape(2, 3))
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    for wrong in (cut, content + b"\0"):
        with pytest.raises(InputError, match=r"^x "):
            parse_idx(io.BytesIO(wrong), what="x")


@given(st.binary(max_size=40))
@example(b"\0\0\x08\x03" + b"\xff" * 12)  # announces 2**96 bytes
@example(b"\0\0\x08\xff" + b"\0" * 1020)
@example(b"\0\0\x08\0")
def test_foreign_bytes_are_refused_and_nothing_else_happens(content):
    try:
        array = parse_idx(io.BytesIO(content), what="x")
    except InputError:
        return
    assert encode(array) == content


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("rename", [str, lambda name: name.replace("-idx", ".idx")])
@pytest.mark.parametrize("folder", [".", "mnist", "mnist/raw", "MNIST/raw"])
def test_usual_names_and_places(tmp_path, folder, rename, compress):
    write(tmp_path / folder, rename=rename, compress=compress)
    data = load_dataset("mnist", data_dir=tmp_path, download=False)
    expected = arrays()
    assert np.array_equal(data.train_x, expected[NAMES[0]][:, None])
    assert data.train_y.tolist() == [3, 9]
    assert np.array_equal(data.test_x, expected[NAMES[2]][:, None])
    assert data.test_y.tolist() == [4]
    assert (data.name, data.classes, data.input_shape) == ("mnist", 10, (1, 28, 28))


def test_names_do_not_change_the_fingerprint(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", compress=True)
    prints = {load_dataset("mnist", data_dir=tmp_path / folder).fingerprint for folder in "ab"}
    assert len(prints) == 1


def test_the_data_sets_own_folder_comes_first(tmp_path):
    write(tmp_path)
    write(tmp_path / "FashionMNIST" / "raw", **{NAMES[1]: np.array([7, 7], np.uint8)})
    assert load_dataset("mnist", data_dir=tmp_path).train_y.tolist() == [3, 9]
    assert load_dataset("fashion-mnist", data_dir=tmp_path).train_y.tolist() == [7, 7]


def test_the_folder_of_the_environment_variable_is_the_default(tmp_path, monkeypatch):
    write(tmp_path / "home" / "mnist")
    monkeypatch.setenv("SNAS_DATA", str(tmp_path / "home"))
    assert load_dataset("mnist", download=False).train_y.tolist() == [3, 9]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NAMES[0]: b"PK\3\4 foreign"}, "train-images-idx3-ubyte is no IDX file of unsigned bytes: .*50 4b 03 04"),
        ({NAMES[0]: b""}, "train-images-idx3-ubyte is no IDX file"),
        ({NAMES[0]: encode(np.zeros((2, 27, 28), np.uint8))}, r"shape \(2, 27, 28\); expected images of \(N, 28, 28\)"),
        ({NAMES[0]: encode(np.zeros((2, 28, 28), np.uint8))[:-5]}, "announces 1568 values and has 1563"),
        ({NAMES[1]: encode(np.zeros(3, np.uint8))}, r"train-labels-idx1-ubyte has shape \(3,\) for 2 images"),
        ({NAMES[3]: encode(np.array([10], np.uint8))}, r"t10k-labels-idx1-ubyte has a label 10; expected 0\.\.9"),
        ({NAMES[0]: gzip.compress(encode(np.zeros((2, 28, 28), np.uint8)))[:-20]}, "cannot read .*train-images"),
        ({NAMES[0]: b"\x1f\x8b\x08" + b"\xff" * 30}, "cannot read .*train-images"),
    ],
)
def test_damage_is_named_with_its_file(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset("mnist", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "labels", "found"),
    [
        ("fashion-mnist", [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3], "'mnist', not of 'fashion-mnist'"),
        ("mnist", [9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0], "'fashion-mnist', not of 'mnist'"),
    ],
)
def test_one_is_not_taken_for_the_other(tmp_path, asked, labels, found):
    write(tmp_path, **{NAMES[0]: np.zeros((11, 28, 28), np.uint8), NAMES[1]: np.array(labels, np.uint8)})
    with pytest.raises(InputError, match=f"has the files of {found}"):
        load_dataset(asked, data_dir=tmp_path)


def test_missing_files_are_named_with_the_places(tmp_path):
    with pytest.raises(InputError, match=r"'mnist' lacks train-images-idx3-ubyte.gz, .*--data-dir") as caught:
        load_dataset("mnist", data_dir=tmp_path, download=False)
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)


def test_somebodys_own_files_are_not_completed_with_published_ones(tmp_path):
    write(tmp_path)
    (tmp_path / NAMES[2]).rename(tmp_path / "t10k-images")
    with pytest.raises(InputError, match=r"lacks t10k-images-idx3-ubyte.gz; put all files into one folder"):
        load_dataset("mnist", data_dir=tmp_path)


def test_a_folder_in_place_of_a_file_is_an_error_of_the_user(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_idx(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/mnist, the original MNIST files")
def test_mnist_itself():
    data = load_dataset("mnist", data_dir=SHARED, download=False)
    assert data.train_x.shape == (60000, 1, 28, 28)
    assert np.bincount(data.train_y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # The published MD5 of the decompressed test images, header included.
    test_images = encode(data.test_x[:, 0])
    assert hashlib.md5(test_images, usedforsecurity=False).hexdigest() == "2646ac647ad5339dbf082846283269ea"
    assert data.fingerprint == "99577e641fdd93bdb0b7db22e55714e9c52c43086593244a842a7d74017dae93"
    with pytest.raises(InputError, match="'mnist', not of 'fashion-mnist'"):
        load_dataset("fashion-mnist", data_dir=SHARED)
