"""Several aims at once: who is outdone by nobody, in what order the others follow, and how much a front covers.

Values are rows of numbers that are all to be large; turn the sign of what is to be small. A row with a number that is
NaN or infinite is behind all that have none: nothing is known of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def dominated_by_count(values: Array) -> NDArray[np.int64]:
    """For each row, by how many others it is dominated: at least as large everywhere and larger somewhere."""
    return np.asarray(_dominated(values).sum(axis=1), dtype=np.int64)


def _dominated(values: Array) -> NDArray[np.bool_]:
    """Shape (rows, rows): whether the first is dominated by the second."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    values = np.where(finite[:, None], values, 0.0)
    at_least = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    larger = (values[:, None, :] < values[None, :, :]).any(axis=2)
    both = finite[:, None] & finite[None, :]
    return np.asarray((at_least & larger & both) | (~finite[:, None] & finite[None, :]))


def fronts(values: Sequence[Sequence[float]] | Array) -> NDArray[np.int64]:
    """The front of each row: 0 for those that no other dominates, 1 for those that only front 0 does, and so on.

    Source:
        [Deb2002] K. Deb et al.: A fast and elitist multiobjective genetic algorithm: NSGA-II, section III A.

    Example:
        >>> fronts([[1, 0], [0, 1], [0, 0], [2, -1]]).tolist()
        [0, 0, 1, 0]
    """
    rows = np.asarray(values, dtype=np.float64)
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    found = np.full(len(rows), -1)
    dominated = _dominated(rows)
    above = dominated.sum(axis=1)
    number = 0
    while (front := np.flatnonzero((above == 0) & (found < 0))).size:
        found[front] = number
        above -= dominated[:, front].sum(axis=1)
        number += 1
    return found


def crowding(values: Sequence[Sequence[float]] | Array) -> Array:
    """How lonely each row of one front is: the sum over aims of the distance between its neighbours.

    Infinite at the ends of every aim ([Deb2002] section III B); 0 where a number is NaN or infinite.

    Example:
        >>> crowding([[0, 3], [1, 1], [3, 0]]).tolist()
        [inf, 2.0, inf]
    """
    rows = np.asarray(values, dtype=np.float64)
    total = np.zeros(len(rows))
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        total[finite] = crowding(rows[finite]) if finite.any() else 0.0
        return total
    for column in rows.T / 2:  # which is exact, and differences of huge numbers stay finite
        order = np.argsort(column, kind="stable")
        extent = float(np.ptp(column)) or 1.0
        total[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
        total[order[[0, -1]]] = np.inf
    return total


def order(values: Sequence[Sequence[float]] | Array) -> list[int]:
    """Indices of the rows, best first: by front, within a front the lonelier first, of equal ones the earlier."""
    rows = np.asarray(values, dtype=np.float64)
    if not len(rows):
        return []
    levels = fronts(rows)
    lonely = np.zeros(len(rows))
    for level in range(int(levels.max()) + 1):
        members = np.flatnonzero(levels == level)
        lonely[members] = crowding(rows[members])
    return sorted(range(len(rows)), key=lambda i: (levels[i], -lonely[i], i))


def hypervolume(values: Sequence[Sequence[float]] | Array, reference: Sequence[float]) -> float:
    """Volume of what the rows dominate above a reference point; rows that are not above it in every aim add nothing,
    nor do those with a number that is NaN or infinite.

    Exact, by slicing along the last aim; meant for fronts of tens of rows and two or three aims.

    Example:
        >>> hypervolume([[3, 1], [1, 2]], reference=[0, 0])
        4.0
    """
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), len(reference))
    rows = rows[np.isfinite(rows).all(axis=1)] - np.asarray(reference)
    rows = rows[(rows > 0).all(axis=1)]
    return _volume(rows)


def _volume(rows: Array) -> float:
    if not len(rows):
        return 0.0
    if rows.shape[1] == 1:
        return float(rows.max())
    levels = np.unique(rows[:, -1])
    below = np.concatenate([[0.0], levels[:-1]])
    slices = [
        (level - lower) * _volume(rows[rows[:, -1] >= level, :-1]) for level, lower in zip(levels, below, strict=True)
    ]
    return float(sum(slices))
