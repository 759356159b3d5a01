"""Which inputs the first layer's kept weights look at, as images ([Lee2020b] section 3.5.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snas.errors import InputError
from snas.masks import Masks
from snas.search_spaces.base import SearchSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGITS = 4  # of a share of kept weights

Image = NDArray[np.float64]


def sees_all(space: SearchSpace) -> bool:
    """Whether the first layer is fully connected to the input."""
    shape = space.layers[0].shape
    return len(shape) == 2 and shape[1] == math.prod(space.input_shape)


def input_map(masks: Masks, space: SearchSpace) -> list[float]:
    """For each value of the input, the share of the first layer's units that keep their weight from it.

    Returns:
        Flat, in the order of the input's values; `as_image` makes an image of it.

    Raises:
        InputError: if the first layer is not fully connected to the input.
    """
    first = space.layers[0]
    if not sees_all(space):
        raise InputError(
            f"the first layer of space {space.name!r}, {first.name!r}, has shape {first.shape}: it is not fully "
            f"connected to the {math.prod(space.input_shape)} values of an example; choose one such as lenet-300-100"
        )
    shares = masks[first.name].double().mean(0)
    return [round(float(share), DIGITS) for share in shares]


def as_image(values: Sequence[float], shape: Sequence[int]) -> Image:
    """A map as an image, the mean over channels; a vector becomes one line."""
    array = np.asarray(values, dtype=np.float64).reshape(tuple(shape))
    return np.asarray(array.mean(0) if array.ndim == 3 else array.reshape(1, -1))


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's correlation of two maps; None where one is the same everywhere.

    Example:
        >>> round(correlation([0, 1, 2], [1, 3, 5]), 6), correlation([1, 1], [0, 1])
        (1.0, None)
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def draw_images(
    figure: Figure, images: Sequence[Sequence[Image | None]], *, rows: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """A table of images, each from black (its smallest value) to white (its largest)."""
    panels: Any = figure.subplots(len(images), len(columns), squeeze=False)
    for number, line in enumerate(images):
        for column, image in enumerate(line):
            axes = panels[number, column]
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(False)
            if image is not None:
                axes.imshow(image, cmap="gray", interpolation="nearest")
            if number == 0:
                axes.set_title(columns[column], fontsize=8, parse_math=False)
            if column == 0:
                axes.set_ylabel(rows[number], fontsize=8, parse_math=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, parse_math=False)
