"""Other sides of a data set, named behind it: "mnist:inverted", "mnist:classes=0-4"."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snas.data.base import Dataset
from snas.errors import InputError

CHOICES = "inverted, classes=0-4"


def split_views(name: str) -> tuple[str, tuple[str, ...]]:
    """The data set's name and the views behind it. A path of a file has none.

    Example:
        >>> split_views("mnist:inverted"), split_views("my:data.npz")
        (('mnist', ('inverted',)), ('my:data.npz', ()))
    """
    if name.lower().endswith(".npz"):
        return name, ()
    base, *views = name.split(":")
    return base, tuple(views)


def view_of(dataset: Dataset, view: str) -> Dataset:
    """One side of a data set.

    Args:
        dataset: the whole.
        view: "inverted": bright and dark swapped; "classes=A-B": the classes from A to B alone, numbered from 0.

    Raises:
        InputError: for an unknown view, or classes that there are not.
    """
    name = f"{dataset.name}:{view}"
    if view == "inverted":
        low, high = float(dataset.train_x.min()), float(dataset.train_x.max())
        train, test = (_swapped(x, low, high) for x in (dataset.train_x, dataset.test_x))
        return replace(dataset, name=name, train_x=train, test_x=test)
    found = re.fullmatch(r"classes=(\d+)-(\d+)", view)
    if not found:
        raise InputError(f"unknown view {view!r} of data set {dataset.name!r}; choices: {CHOICES}")
    first, last = int(found[1]), int(found[2])
    if not first < last < dataset.classes:
        raise InputError(
            f"view {view!r} of data set {dataset.name!r}: expected two classes of 0 to {dataset.classes - 1}, the "
            "smaller one first"
        )
    parts: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        x, y = getattr(dataset, f"{part}_x"), getattr(dataset, f"{part}_y")
        chosen = (y >= first) & (y <= last)
        parts |= {f"{part}_x": x[chosen], f"{part}_y": y[chosen] - first}
    return replace(dataset, name=name, classes=last - first + 1, **parts)


def _swapped(x: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Bright and dark changed; bytes of test examples that are outside the training data's range stay bytes."""
    return np.asarray(np.clip(low + high - x, 0, 255) if x.dtype == np.uint8 else low + high - x).astype(x.dtype)
