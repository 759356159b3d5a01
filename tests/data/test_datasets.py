"""The data set's own checks, its fingerprint, and look-up by name."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

import snas.data.base as base
from snas.data import Dataset, datasets, from_arrays, load_dataset
from snas.errors import InputError
from snas.plugins import Family

X = np.arange(16, dtype=np.uint8).reshape(4, 1, 2, 2)
Y = np.array([0, 1, 1, 0])


def make(**changes):
    arguments = {"name": "tiny", "train_x": X, "train_y": Y, "test_x": X[:1], "test_y": Y[:1], "classes": 2}
    return Dataset(**{**arguments, **changes})


def test_a_data_set_knows_its_shape_and_colour():
    assert make().input_shape == (1, 2, 2)
    assert not make().colour
    colour = np.zeros((4, 3, 2, 2), np.uint8)
    assert make(train_x=colour, test_x=colour[:1]).colour
    features = np.zeros((4, 3), np.float32)
    assert not make(train_x=features, test_x=features[:1]).colour


def test_arrays_are_read_only_views_and_the_callers_stay_writable():
    own = X.copy()
    data = make(train_x=own)
    with pytest.raises(ValueError, match="read-only"):
        data.train_x[0] = 1
    own[0] = 1
    assert np.shares_memory(data.train_x, own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "name is ' '"),
        ({"name": "a\nb"}, r"name is 'a\\nb'"),
        ({"classes": 1}, "has 1 classes; expected at least 2"),
        ({"train_x": X.astype(float)}, r"shape \(4, 1, 2, 2\) and type float64; expected"),
        ({"train_x": X.reshape(4, 4)}, r"shape \(4, 4\) and type uint8"),
        ({"train_x": X.tolist()}, "train examples of 'tiny' are list"),
        ({"train_x": X[:, :, :0]}, r"shape \(4, 1, 0, 2\)"),
        ({"train_x": X[:3]}, "3 with 4 labels"),
        ({"test_y": Y[:2]}, "test examples of 'tiny': 1 with 2 labels"),
        ({"train_y": Y.astype(np.int32)}, "type int64"),
        ({"train_y": Y[:, None]}, r"shape \(N,\)"),
        ({"train_y": Y + 1}, r"1\.\.2; expected 0\.\.1"),
        ({"test_y": Y[:1] - 1}, r"-1\.\.-1; expected 0\.\.1"),
        ({"train_x": X[:0], "train_y": Y[:0]}, "no training example"),
        ({"test_x": X[:1, :, :1]}, r"are \(1, 1, 2\) uint8; expected \(1, 2, 2\) uint8"),
        ({"test_x": X[:1].astype(np.float32)}, "float32; expected"),
        ({"train_x": np.full((4, 3), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_is_of_names_shapes_types_and_bytes():
    text = b"train_x (4, 1, 2, 2) |u1\n" + X.tobytes() + b"train_y (4,) <i8\n" + Y.astype("<i8").tobytes()
    text += b"test_x (1, 1, 2, 2) |u1\n" + X[:1].tobytes() + b"test_y (1,) <i8\n" + Y[:1].astype("<i8").tobytes()
    assert make().fingerprint == hashlib.sha256(text).hexdigest()


def test_the_fingerprint_is_of_the_data_not_of_their_name_or_layout_in_memory():
    fortran = np.asfortranarray(X)
    assert make(train_x=fortran, name="other").fingerprint == make().fingerprint
    changes = [
        {"train_y": Y[::-1].copy(), "train_x": X[::-1].copy()},
        {"train_x": X.reshape(4, 1, 1, 4), "test_x": X[:1].reshape(1, 1, 1, 4)},
        {"train_x": X.astype(np.float32), "test_x": X[:1].astype(np.float32)},
        {"test_x": X[:0], "test_y": Y[:0]},
    ]
    assert len({make().fingerprint, *(make(**change).fingerprint for change in changes)}) == 5


def test_digits_are_fixed_for_ever():
    digits = load_dataset("digits")
    assert digits.train_x.shape == (1438, 1, 8, 8)
    assert digits.test_x.shape == (359, 1, 8, 8)
    assert digits.train_x.dtype == np.uint8
    assert (digits.train_x.min(), digits.train_x.max()) == (0, 16)
    # Results in people's registries carry this. If it changes, old and new results cannot be compared.
    assert digits.fingerprint == "e993ef60db24db37b9654a22ad2279f18f98c2f8f7b10056043da99e58e8864e"


def test_digits_test_part_is_stratified_and_together_they_are_all():
    from sklearn.datasets import load_digits

    digits = load_dataset("digits")
    whole = load_digits()
    share = np.bincount(digits.test_y) - 0.2 * np.bincount(whole.target)
    assert np.abs(share).max() <= 1
    both = np.concatenate([digits.train_x, digits.test_x]).reshape(-1, 64)
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole.data.astype(np.uint8)))


def test_a_data_set_is_returned_as_it_is():
    data = make()
    assert load_dataset(data) is data


def test_all_built_in_data_sets_are_listed_with_a_summary():
    assert {"digits", "mnist", "fashion-mnist", "cifar10", "cifar100"} <= set(datasets.names())
    assert all(datasets.summary(name) for name in datasets.names())


def test_an_unknown_name_lists_the_choices_and_the_other_way():
    with pytest.raises(
        InputError, match=r"did you mean 'mnist'\? choices: .*fashion-mnist.*; or the path of a file.npz"
    ):
        load_dataset("mnits")


def test_a_missing_data_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere' is not a folder"):
        load_dataset("mnist", data_dir=tmp_path / "nowhere")


def test_a_loader_gets_folder_permission_and_progress(tmp_path, monkeypatch):
    family: Family[base.Loader] = Family("dataset")
    calls = []

    @family.register("mine")
    def mine(data_dir, *, download=True, progress=None):
        """Mine."""
        calls.append((data_dir, download, progress))
        return from_arrays(np.eye(10), [0, 1] * 5, name="mine")

    monkeypatch.setattr(base, "datasets", family)
    assert load_dataset("mine").name == "mine"
    load_dataset("mine", data_dir=str(tmp_path), download=False, progress=print)
    assert calls == [(None, True, None), (tmp_path, False, print)]


def test_data_sets_are_listed_without_torch_and_without_network_libraries():
    code = (
        "import sys; from snas.data import datasets; datasets.names(); "
        "print([m for m in ('torch', 'sklearn', 'pooch', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
