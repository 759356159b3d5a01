"""All randomness comes from one study seed, through named, independent streams.

A stream is a path of integers below the seed, so that the k-th proposal or the k-th candidate draws the same numbers
whether or not the search was interrupted before it.
"""

from __future__ import annotations

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What a random number is used for. Values are part of the registry's format: never renumber them."""

    SPLIT = 0
    PROPOSAL = 1
    CANDIDATE = 2
    FINAL = 3
    BUILD = 4
    WEIGHTS = 5
    SCORE = 6
    MASK = 7
    ORDER = 8
    EPOCH = 9
    BATCH = 10
    CALIBRATION = 11
    MOVE = 12
    REDRAW = 13
    REPEAT = 14


def derive(seed: int, *path: int) -> int:
    """Return the 63-bit seed at `path` below `seed`.

    Example:
        >>> derive(0, Stream.CANDIDATE, 7) == derive(0, Stream.CANDIDATE, 7)
        True
        >>> derive(0, Stream.CANDIDATE, 7) == derive(0, Stream.CANDIDATE, 8)
        False
    """
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=tuple(int(step) for step in path))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_generator(seed: int, *path: int) -> np.random.Generator:
    """Return a NumPy generator for the stream at `path` below `seed`."""
    return np.random.default_rng(derive(seed, *path))
