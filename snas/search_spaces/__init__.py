"""Search spaces: families of networks whose densities can be searched."""

from snas.search_spaces.base import SearchSpace, spaces
from snas.search_spaces.catalog import open_space

__all__ = ["SearchSpace", "open_space", "spaces"]
