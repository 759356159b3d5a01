"""Which examples are set aside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas.data.stratify import choose, hold_out
from snas.errors import InputError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@given(LABELS, st.data())
def test_exact_size_and_fair_shares_with_one_left_in_every_class(labels, data):
    counts = np.bincount(labels)
    spare = int(np.maximum(counts - 1, 0).sum())
    size = data.draw(st.integers(-1, len(labels) + 1))
    if not 1 <= size <= spare:
        with pytest.raises(InputError, match=f"cannot set {size} of {len(labels)}"):
            choose(labels, size, seed=0)
        return
    chosen = choose(labels, size, seed=data.draw(st.integers(0, 2**63 - 1)))
    assert len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    taken = np.bincount(labels[chosen], minlength=len(counts))
    assert (taken[counts > 0] < counts[counts > 0]).all()
    exact = counts * size / len(labels)
    if (np.ceil(exact) < counts)[counts > 0].all():  # no class is too small for its share
        assert (np.floor(exact) <= taken).all()
        assert (taken <= np.ceil(exact)).all()


def test_remainders_worked_out_by_hand():
    # 7 of 14: exact shares 2.5, 1.5, 3.0; the one that is left over goes to the first of the largest remainders.
    labels = np.array([0] * 5 + [1] * 3 + [2] * 6)
    assert np.bincount(labels[choose(labels, 7, seed=3)]).tolist() == [3, 1, 3]


def test_a_class_too_small_for_its_share_leaves_it_to_the_others():
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2])
    assert np.bincount(labels[choose(labels, 5, seed=0)], minlength=3).tolist() == [0, 2, 3]


def test_the_choice_depends_on_the_seed_alone():
    labels = np.arange(200) % 4
    assert choose(labels, 40, seed=1).tolist() == choose(labels, 40, seed=1).tolist()
    assert choose(labels, 40, seed=1).tolist() != choose(labels, 40, seed=2).tolist()


def test_the_choice_is_the_same_for_ever():
    chosen = [2, 3, 11, 18]
    assert choose(np.arange(20) % 2, 4, seed=0).tolist() == chosen
    keys = np.random.PCG64(0).random_raw(20)  # the two smallest keys of each class
    assert sorted([*sorted(range(0, 20, 2), key=keys.item)[:2], *sorted(range(1, 20, 2), key=keys.item)[:2]]) == chosen


def test_every_example_of_a_class_is_as_likely_as_another():
    labels = np.zeros(10, np.int64)
    times = np.zeros(10)
    for seed in range(2000):
        times[choose(labels, 3, seed=seed)] += 1
    # 600 expected, standard deviation sqrt(2000 * 0.3 * 0.7) = 20.5
    assert np.abs(times - 600).max() < 5 * 20.5


def test_hold_out_is_a_fifth_and_the_rest():
    labels = np.arange(53) % 3
    train, test = hold_out(labels)
    assert len(test) == 11
    assert sorted([*train, *test]) == list(range(53))
