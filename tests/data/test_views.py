"""Other sides of a data set."""

from __future__ import annotations

import numpy as np
import pytest

from snas.data.arrays import from_arrays
from snas.data.base import load_dataset
from snas.data.split import split_data
from snas.data.views import split_views, view_of
from snas.errors import InputError

DIGITS = load_dataset("digits")


def test_inverted_images_are_the_negative_of_the_whole_range():
    view = view_of(DIGITS, "inverted")
    assert view.name == "digits:inverted"
    assert view.train_x.dtype == np.uint8
    assert np.array_equal(view.train_x + DIGITS.train_x, np.full_like(DIGITS.train_x, 16))
    assert np.array_equal(view.test_x + DIGITS.test_x, np.full_like(DIGITS.test_x, 16))
    assert np.array_equal(view.train_y, DIGITS.train_y)
    assert view.fingerprint != DIGITS.fingerprint


def test_inverted_data_normalized_are_minus_those_of_the_original():
    one, two = split_data(DIGITS, seed=3), split_data(view_of(DIGITS, "inverted"), seed=3)
    assert np.abs((one.train.x + two.train.x).numpy()).max() < 1e-5


def test_inverted_numbers_swap_their_ends():
    x = np.array([[-1.0, 3.0], [0.5, 1.0], [2.0, 2.5], [0.0, 1.5]], dtype=np.float32)
    data = from_arrays(x, [0, 1, 0, 1], x, [0, 1, 0, 1])
    view = view_of(data, "inverted")
    assert view.train_x.tolist() == [[3.0, -1.0], [1.5, 1.0], [0.0, -0.5], [2.0, 0.5]]
    assert np.array_equal(view_of(view, "inverted").train_x, data.train_x)


def test_bytes_outside_the_training_range_stay_bytes():
    x = np.array([[[[10]]], [[[20]]], [[[15]]], [[[12]]]], dtype=np.uint8)
    test = np.array([[[[255]]], [[[0]]]], dtype=np.uint8)
    view = view_of(from_arrays(x, [0, 1, 0, 1], test, [0, 1]), "inverted")
    assert view.train_x.ravel().tolist() == [20, 10, 15, 18]
    assert view.test_x.ravel().tolist() == [0, 30]


def test_classes_are_numbered_from_0():
    view = view_of(DIGITS, "classes=5-9")
    assert view.classes == 5
    assert set(view.train_y.tolist()) == set(range(5))
    where = DIGITS.test_y >= 5
    assert np.array_equal(view.test_x, DIGITS.test_x[where])
    assert np.array_equal(view.test_y, DIGITS.test_y[where] - 5)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("upside-down", "unknown view 'upside-down' of data set 'digits'; choices: inverted, classes=0-4"),
        ("classes=5-12", "expected two classes of 0 to 9"),
        ("classes=5-5", "expected two classes of 0 to 9"),
        ("classes=a-b", "unknown view"),
    ],
)
def test_unknown_views_are_refused(view, message):
    with pytest.raises(InputError, match=message):
        view_of(DIGITS, view)


def test_paths_have_no_views():
    assert split_views("digits:inverted:classes=0-4") == ("digits", ("inverted", "classes=0-4"))
    assert split_views("a:b.npz") == ("a:b.npz", ())
