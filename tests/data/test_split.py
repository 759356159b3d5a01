"""The split into training and validation part, and normalization."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snas.data import Dataset, load_dataset
from snas.data.split import SearchData, held_out, split_data
from snas.errors import InputError


def make(x, y=None, *, test=0, classes=2):
    y = np.arange(len(x)) % classes if y is None else np.asarray(y)
    return Dataset("tiny", x[test:], y[test:], x[:test], y[:test], classes=classes)


def images(n, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, 4, 5), dtype=np.uint8)


def test_statistics_worked_out_by_hand():
    # Five examples a class; whichever validates, one feature is 3 everywhere and the other is the class: -1 or 1.
    y = np.arange(10) % 2
    x = np.stack([np.full(10, 3.0), 2.0 * y - 1], axis=1).astype(np.float32)
    data = split_data(make(x, y), seed=0, validation=0.2)
    assert data.mean.tolist() == [3, 0]
    assert data.std.tolist() == [1, 1]  # no deviation counts as 1
    assert data.train.x[:, 0].eq(0).all()
    assert data.train.x[:, 1].tolist() == (2.0 * data.train.y - 1).tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_normalized_per_channel_by_the_training_part_alone(dtype):
    x = images(40).astype(dtype)
    data = split_data(make(x, test=8), seed=5, validation=0.25)
    train = x[8:][data.train_indices].astype(np.float64)
    mean, std = train.mean(axis=(0, 2, 3)), train.std(axis=(0, 2, 3))
    assert np.allclose(data.mean, mean, rtol=1e-6)
    assert np.allclose(data.std, std, rtol=1e-6)
    everything = ((x - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
    assert np.allclose(data.train.x, everything[8:][data.train_indices], atol=1e-5)
    assert np.allclose(data.validation.x, everything[8:][data.validation_indices], atol=1e-5)
    assert np.allclose(held_out(make(x, test=8), data).x, everything[:8], atol=1e-5)
    assert held_out(make(x, test=8), data).y.tolist() == [0, 1] * 4


def test_large_offsets_do_not_spoil_the_deviation():
    x = np.random.default_rng(0).choice([1e6, 1e6 + 1], (200, 2)).astype(np.float32)
    x[0] = -1e6
    data = split_data(make(x), seed=0)
    train = x[data.train_indices].astype(np.float64)
    assert np.allclose(data.std, train.std(axis=0), rtol=1e-6)


def test_a_channel_that_is_constant_in_the_training_part_stays_finite():
    x = np.full((20, 1, 2, 2), 0.1, np.float32)
    data = split_data(make(x), seed=0)
    assert data.std.tolist() == [1]
    assert data.train.x.abs().max() == 0


def test_pieces_do_not_change_the_result(monkeypatch):
    data = make(images(50), test=5)
    whole = split_data(data, seed=1)
    monkeypatch.setattr("snas.data.split._CHUNK", 7)
    pieces = split_data(data, seed=1)
    assert torch.equal(whole.train.x, pieces.train.x)
    assert torch.equal(whole.validation.x, pieces.validation.x)
    assert torch.equal(held_out(data, whole).x, held_out(data, pieces).x)


@given(st.integers(4, 80), st.integers(2, 4), st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_every_example_is_in_one_part_with_its_own_label(n, classes, fraction, seed):
    x = np.arange(n, dtype=np.float32)[:, None] @ np.ones((1, 2), np.float32)
    y = np.arange(n) % classes
    size = round(fraction * n)
    if not 1 <= size <= n - classes:
        with pytest.raises(InputError, match=f"cannot be split with validation {fraction}"):
            split_data(make(x, y, classes=classes), seed=seed, validation=fraction)
        return
    data = split_data(make(x, y, classes=classes), seed=seed, validation=fraction)
    assert len(data.validation_indices) == len(data.validation.y) == size
    assert sorted([*data.train_indices, *data.validation_indices]) == list(range(n))
    assert set(data.train.y.tolist()) == set(range(classes))
    for part, indices in ((data.train, data.train_indices), (data.validation, data.validation_indices)):
        assert part.y.tolist() == y[indices].tolist()
        back = part.x[:, 0] * data.std[0] + data.mean[0]
        assert np.abs(back.numpy() - indices).max() < 1e-3


def test_the_seed_decides_and_global_state_is_left_alone():
    data = make(images(40))
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    checksums = [split_data(data, seed=seed).checksum for seed in (0, 0, 1, 2)]
    assert checksums[0] == checksums[1]
    assert len(set(checksums)) == 3
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_the_split_of_digits_is_the_same_on_every_machine():
    data = split_data(load_dataset("digits"), seed=0)
    assert (len(data.train.y), len(data.validation.y)) == (1294, 144)
    assert data.checksum == "b345eb7ab465e9076b71649cbb2daf58c9ac86ab73e4a4f83dcc059251aec0f9"


def test_the_split_depends_on_labels_not_on_examples_or_the_test_split():
    one, other = make(images(40, seed=1), test=10), make(images(40, seed=2), test=10)
    assert split_data(one, seed=0).checksum == split_data(other, seed=0).checksum
    changed = Dataset("tiny", one.train_x, one.train_y, one.test_x[:2] + 1, one.test_y[:2], classes=2)
    first, second = split_data(one, seed=0), split_data(changed, seed=0)
    assert torch.equal(first.train.x, second.train.x)
    assert torch.equal(first.validation.x, second.validation.x)


def test_a_search_sees_no_test_data():
    names = {item.name for item in fields(SearchData)}
    assert not [name for name in names if "test" in name]


def test_shapes_types_and_what_describes_the_data():
    data = split_data(make(images(20)), seed=0)
    assert (data.train.x.shape, data.train.x.dtype, data.train.y.dtype) == ((18, 3, 4, 5), torch.float32, torch.int64)
    assert (data.input_shape, data.classes, data.colour) == ((3, 4, 5), 2, True)
    assert data.mean.shape == data.std.shape == (3,)
    assert data.train.x.is_contiguous()
    assert held_out(make(images(20)), data).x.shape == (0, 3, 4, 5)


@pytest.mark.parametrize("validation", [0, 1, -0.1, 1.5, float("nan"), "0.1"])
def test_a_fraction_outside_its_range(validation):
    with pytest.raises(InputError, match="expected a fraction with 0 < validation < 1"):
        split_data(make(images(20)), seed=0, validation=validation)
