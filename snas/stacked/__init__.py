"""Several networks of one architecture trained as one computation."""

from snas.stacked.epoch import train_epoch
from snas.stacked.stack import Stack, Structure, Unstackable, make_own, structure

__all__ = ["Stack", "Structure", "Unstackable", "make_own", "structure", "train_epoch"]
