"""Choose some examples of every class, reproducibly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snas.errors import InputError

HELD_OUT = 0.2  # share of the examples that become the test split where none was published
HELD_OUT_SEED = 1998  # never change it: test splits, and with them fingerprints, depend on it


def choose(labels: NDArray[np.int64], size: int, *, seed: int) -> NDArray[np.int64]:
    """Choose `size` examples so that every class has its share and keeps at least one example unchosen.

    Shares are rounded by largest remainder: class c with n_c of n examples gets floor(size * n_c / n), and the classes
    with the largest remainders (the first ones among equals) get one more. Which examples of a class are chosen follows
    from raw PCG64 output, which NumPy promises never to change.

    Args:
        labels: shape (n,), class numbers from 0.
        size: how many to choose.
        seed: of the choice.

    Returns:
        Indices in increasing order, shape (size,).

    Raises:
        InputError: if `size` is below 1 or the classes are too small for it.
    """
    counts = np.bincount(labels)
    spare = np.maximum(counts - 1, 0)
    if not 1 <= size <= spare.sum():
        raise InputError(
            f"cannot set {size} of {len(labels)} examples aside: it must be at least 1 and leave every class one "
            f"to train on ({spare.sum()} can be spared)"
        )
    shares = _shares(counts, spare, size)
    order = np.lexsort((np.random.PCG64(seed).random_raw(len(labels)), labels))
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - np.repeat(starts, counts)  # place of order[i] within its class
    return np.sort(order[rank < np.repeat(shares, counts)])


def hold_out(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split off a fixed fifth as test examples; return indices (train, test). It depends on the labels alone.

    Raises:
        InputError: if there are too few examples of each class.
    """
    test = choose(labels, round(HELD_OUT * len(labels)), seed=HELD_OUT_SEED)
    return np.setdiff1d(np.arange(len(labels)), test), test


def _shares(counts: NDArray[np.int64], spare: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Number of examples to choose from each class: at most `spare`, in sum `size`."""
    shares, remainders = np.divmod(counts * size, counts.sum())
    shares = np.minimum(shares, spare)
    order = np.argsort(-remainders, kind="stable")
    while missing := size - shares.sum():
        takers = order[shares[order] < spare[order]][:missing]
        shares[takers] += 1
    return shares
