"""For tests of those who write a plug-in: contracts of the families as functions, and a feed for evaluators."""

from snas.testing.evaluators import Queue
from snas.testing.strategies import check_strategy, check_strategy_by_name

__all__ = ["Queue", "check_strategy", "check_strategy_by_name"]
