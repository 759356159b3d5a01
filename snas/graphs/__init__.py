"""Perceptrons as lists of steps: forward and backward passes written out, in memory of their own, without autograd."""

from snas.graphs.flat import Flat
from snas.graphs.graph import Frame, Graph
from snas.graphs.looks import watched_everywhere

__all__ = ["Flat", "Frame", "Graph", "watched_everywhere"]
