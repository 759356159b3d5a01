"""All randomness comes from one study seed, through named, independent streams.

A stream is a path of integers below the seed, so that the k-th proposal or the k-th candidate draws the same numbers
whether or not the search was interrupted before it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
    START = 15


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


@contextmanager
def seeded(seed: int, *, devices: Sequence[int] = ()) -> Iterator[None]:
    """Start torch's global streams from `seed`, for code that draws from these, and put them back at the end.

    Unlike `torch.manual_seed` it leaves devices alone that are not named, whose seeds would be queued, each with a
    printed stack, for as long as CUDA is not in use.

    Args:
        seed: of the CPU's stream and of each device's.
        devices: indices of the CUDA devices whose streams are drawn from.
    """
    import torch

    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
