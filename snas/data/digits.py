"""The embedded default: scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snas.data.base import Dataset, Progress, datasets
from snas.data.stratify import hold_out


@datasets.register("digits")
def digits(data_dir: Path | None, *, download: bool = True, progress: Progress | None = None) -> Dataset:
    """1,797 handwritten digits of 8x8 pixels, 10 classes; comes with scikit-learn.

    Pixels are 0..16 (uint8). There is no published test split: a fixed stratified fifth (`snas.data.stratify.hold_out`)
    is the test split, 359 examples, and 1,438 are left for training. No argument matters: no file is read.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    (its test part).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = bunch.images.astype(np.uint8)[:, None]
    y = bunch.target.astype(np.int64)
    train, test = hold_out(y)
    return Dataset("digits", x[train], y[train], x[test], y[test], classes=10)
