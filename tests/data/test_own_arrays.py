"""Arrays and npz files of the user's own."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snas.data import from_arrays, load_dataset
from snas.errors import InputError

Y = np.arange(10) % 2


def pixels(*shape):
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10, 4, 4), (1, 4, 4)),
        ((10, 1, 4, 4), (1, 4, 4)),
        ((10, 3, 4, 5), (3, 4, 5)),
        ((10, 4, 5, 3), (3, 4, 5)),
        ((10, 4, 4, 1), (1, 4, 4)),
        ((10, 3, 4, 3), (3, 4, 3)),  # could be either: taken as channels first
        ((10, 6, 4, 5), (6, 4, 5)),
        ((10, 2, 4, 4), (2, 4, 4)),
    ],
)
def test_image_shapes(shape, expected):
    data = from_arrays(pixels(*shape), Y)
    assert data.input_shape == expected
    assert data.train_x.dtype == np.uint8


def test_channels_are_moved_not_reshaped():
    x = pixels(10, 4, 5, 3)
    data = from_arrays(x, Y, x[:2], Y[:2])
    assert np.array_equal(data.train_x[7, 2], x[7, :, :, 2])
    assert np.array_equal(data.test_x[1, 0], x[1, :, :, 0])


def test_what_looks_like_four_channels_at_the_end_is_refused():
    with pytest.raises(InputError, match=r"\(10, 8, 8, 4\), which looks like \(N, H, W, C\).*transpose"):
        from_arrays(np.zeros((10, 8, 8, 4)), Y)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float64, ">f4"])
def test_features_become_float32(dtype):
    x = np.array([[0, 1], [1, 0]] * 5).astype(dtype)
    data = from_arrays(x, Y, x, Y)
    assert data.train_x.dtype == np.float32
    assert data.train_x.tolist() == [[0, 1], [1, 0]] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32])
def test_tensors(dtype):
    x = torch.arange(20).reshape(10, 2).to(dtype)
    if dtype.is_floating_point:
        x.requires_grad_()
    data = from_arrays(x, torch.from_numpy(Y), x[:1], torch.tensor([1]))
    assert data.train_x.tolist() == [[2 * i, 2 * i + 1] for i in range(10)]
    assert (data.train_y.tolist(), data.test_y.tolist()) == (Y.tolist(), [1])


def test_lists_and_labels_of_other_integer_types():
    data = from_arrays([[1, 2], [3, 4]] * 5, [True, False] * 5, name="mine")
    assert (data.name, data.train_y.dtype, data.classes) == ("mine", np.int64, 2)
    assert from_arrays(np.eye(10), Y.astype(np.uint8)).train_y.dtype == np.int64


@given(st.integers(10, 60), st.integers(2, 4))
def test_without_a_test_split_a_fixed_fifth_is_held_out(n, classes):
    x, y = np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n) % classes
    data = from_arrays(x, y)
    assert len(data.test_y) == round(0.2 * n)
    both = np.concatenate([data.train_x, data.test_x])
    assert sorted(both[:, 0].tolist()) == x[:, 0].tolist()
    assert np.array_equal(data.train_x[:, 0] // 2 % classes, data.train_y)
    assert np.array_equal(data.test_x[:, 0] // 2 % classes, data.test_y)
    assert set(data.train_y.tolist()) == set(range(classes))
    assert from_arrays(x, y).fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(10), Y, np.eye(10)), "give both x_test and y_test, or neither"),
        ((np.eye(10), [*Y[:9], 4]), "no label in y is 2, though the largest is 4; .*numpy.unique"),
        ((np.eye(10), Y + 1), "no label in y is 0"),
        ((np.eye(10), Y - 1), r"labels -1\.\.0; expected integers 0..K-1"),
        ((np.eye(10), [2**40] * 10), "expected integers 0..K-1 for K classes"),
        ((np.eye(10), Y / 2), r"type float64; .*astype"),
        ((np.eye(10), np.eye(10)), r"arrays: y has shape \(10, 10\)"),
        ((np.eye(10), ["a"] * 10), "type <U1; expected numbers"),
        ((np.eye(10), [0] * 10), "has 1 classes; expected at least 2"),
        ((np.eye(10), Y[:9]), "10 with 9 labels"),
        ((np.arange(10), Y), r"arrays: x has shape \(10,\)"),
        ((np.zeros((10, 1, 2, 2, 2)), Y), "arrays: x has shape"),
        ((np.eye(10) * 1j, Y), "type complex128"),
        (([[1], [1, 2]], [0, 1]), "arrays: x is no array"),
        ((np.full((10, 2), np.inf), Y), "NaN or infinite"),
        ((np.full((10, 2), 1e300), Y), "NaN or infinite"),
        ((np.eye(2), [0, 1]), r"cannot set 0 of 2 .*give more examples, or x_test and y_test"),
        ((np.eye(10), Y, np.eye(9), Y[:9]), r"\(9,\) float32; expected \(10,\) float32"),
        ((np.eye(10), Y, np.eye(10), Y + 1), r"labels of the test examples of 'arrays' are 1\.\.2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        from_arrays(*arguments)
    assert "\n" not in str(caught.value)


def test_an_npz_file_is_named_after_itself_and_found_in_either_place(tmp_path):
    x = pixels(10, 4, 4)
    np.savez(tmp_path / "mnist.npz", x=x, y=Y, x_test=x[:3], y_test=Y[:3], more=np.arange(3))
    data = load_dataset(tmp_path / "mnist.npz")
    assert (data.name, data.train_x.shape, data.test_x.shape) == ("mnist.npz", (10, 1, 4, 4), (3, 1, 4, 4))
    assert load_dataset("mnist.npz").fingerprint == data.fingerprint  # the test runs in tmp_path
    (tmp_path / "below").mkdir()
    (tmp_path / "mnist.npz").rename(tmp_path / "below" / "own.npz")
    assert load_dataset("own.npz", data_dir="below").fingerprint == data.fingerprint


def test_an_npz_file_without_test_arrays_gives_what_arrays_give(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", x=pixels(10, 4, 4), y=Y)
    assert load_dataset("own.npz").fingerprint == from_arrays(pixels(10, 4, 4), Y).fingerprint


def test_a_missing_npz_file(tmp_path):
    with pytest.raises(InputError, match=r"data file 'nothing.npz' does not exist"):
        load_dataset("nothing.npz")


def test_an_npz_file_that_lacks_arrays(tmp_path):
    np.savez(tmp_path / "own.npz", x_train=np.eye(3), y=Y)
    with pytest.raises(InputError, match=r"has arrays x_train, y; expected x and y"):
        load_dataset("own.npz")


def write_one_array(path):
    with path.open("wb") as file:
        np.save(file, np.eye(3))


def write_damaged(path):
    np.savez(path, x=np.eye(100), y=Y)
    content = bytearray(path.read_bytes())
    content[500] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"text"),
        lambda path: path.write_bytes(b"PK\3\4 cut short"),
        lambda path: path.write_bytes(b"\x80\x04N."),  # a pickle
        lambda path: np.savez(path, x=np.array([{}, []], dtype=object), y=Y),
        write_one_array,
        write_damaged,
    ],
)
def test_a_damaged_or_foreign_file_and_pickles_are_refused(tmp_path, write):
    write(tmp_path / "own.npz")
    with pytest.raises(InputError, match=r"cannot read 'own.npz' \(.*\); expected numeric arrays") as caught:
        load_dataset("own.npz")
    assert "\n" not in str(caught.value)


def test_an_array_that_is_stored_without_the_npy_format_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x", b"raw")
        archive.writestr("y", b"raw")
    with pytest.raises(InputError, match=r"own.npz: x has type"):
        load_dataset("own.npz")
