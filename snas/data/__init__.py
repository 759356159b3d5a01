"""Data sets: the embedded digits, published image files, and the user's own arrays."""

from snas.data.arrays import from_arrays
from snas.data.base import Dataset, datasets, load_dataset

__all__ = ["Dataset", "datasets", "from_arrays", "load_dataset"]
