"""Fronts against their definition row by row, hypervolumes against the sum over all sets of rows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snas import pareto

# Few different numbers, so that ties and equal rows are common.
NUMBERS = st.integers(-2, 4).map(float)
ROWS = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[NUMBERS] * n), min_size=1, max_size=9))


def outdoes(a, b) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def fronts_by_peeling(rows) -> list[int]:
    """Take away who is outdone by nobody that is left, again and again."""
    left, level, found = set(range(len(rows))), 0, {}
    while left:
        best = {i for i in left if not any(outdoes(rows[j], rows[i]) for j in left)}
        found |= dict.fromkeys(best, level)
        left -= best
        level += 1
    return [found[i] for i in range(len(rows))]


def volume_by_sets(rows, reference) -> float:
    """Inclusion and exclusion: the union's volume from those of the intersections of all sets of boxes."""
    boxes = [[max(x - r, 0.0) for x, r in zip(row, reference, strict=True)] for row in rows]
    total = 0.0
    for size in range(1, len(boxes) + 1):
        for chosen in itertools.combinations(boxes, size):
            total -= (-1) ** size * math.prod(min(sides) for sides in zip(*chosen, strict=True))
    return total


@given(ROWS)
def test_fronts_are_those_of_the_definition(rows):
    assert pareto.fronts(rows).tolist() == fronts_by_peeling(rows)


@given(ROWS)
def test_count_of_who_dominates(rows):
    expected = [sum(outdoes(other, row) for other in rows) for row in rows]
    assert pareto.dominated_by_count(np.array(rows)).tolist() == expected


@given(ROWS)
def test_order_is_by_front_then_by_loneliness(rows):
    found = pareto.order(rows)
    assert sorted(found) == list(range(len(rows)))
    levels = [fronts_by_peeling(rows)[i] for i in found]
    assert levels == sorted(levels)
    for level in set(levels):
        members = [i for i in range(len(rows)) if fronts_by_peeling(rows)[i] == level]
        lonely = dict(zip(members, pareto.crowding([rows[i] for i in members]), strict=True))
        distances = [lonely[i] for i in found if i in lonely]
        assert distances == sorted(distances, reverse=True)


def test_crowding_by_hand():
    # First aim: extent 4, neighbours 0 and 3, then 1 and 4; second aim the other way round, extent 8.
    rows = [[0, 8], [1, 6], [3, 1], [4, 0]]
    assert pareto.crowding(rows).tolist() == [math.inf, 3 / 4 + 7 / 8, 3 / 4 + 6 / 8, math.inf]


def test_equal_rows_share_a_front_and_have_no_extent():
    assert pareto.fronts([[1, 2], [1, 2]]).tolist() == [0, 0]
    assert np.isinf(pareto.crowding([[1, 2], [1, 2]])).all()
    assert pareto.crowding([[1.0, 2.0]] * 3)[1] == 0


@given(ROWS)
def test_hypervolume_is_that_of_all_sets_of_rows(rows):
    reference = [-1.0] * len(rows[0])
    assert pareto.hypervolume(rows, reference) == pytest.approx(volume_by_sets(rows, reference))


@pytest.mark.parametrize("aims", [2, 3])
def test_hypervolume_is_the_share_of_random_points_that_are_outdone(aims):
    rng = np.random.default_rng(0)
    rows, points = rng.random((12, aims)), rng.random((40_000, aims))
    share = (points[:, None, :] < rows[None, :, :]).all(axis=2).any(axis=1).mean()
    assert pareto.hypervolume(rows, [0.0] * aims) == pytest.approx(share, abs=4 * 0.5 / math.sqrt(40_000))


def test_rows_that_are_not_above_the_reference_add_nothing():
    assert pareto.hypervolume([[2, 1], [5, 0], [-3, 9]], [0, 0]) == 2
    assert pareto.hypervolume([], [0, 0]) == 0
    assert pareto.order([]) == []
