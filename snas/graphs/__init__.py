"""Perceptrons as lists of steps: forward and backward passes written out, in memory of their own, without autograd."""

from snas.graphs.flat import Flat
from snas.graphs.graph import Frame, Graph
from snas.graphs.looks import watched_everywhere
from snas.graphs.proofs import the_same

__all__ = ["Flat", "Frame", "Graph", "the_same", "watched_everywhere"]
