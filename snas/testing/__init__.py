"""The contracts of the plug-in families as functions, for the tests of those who write a plug-in."""

from snas.testing.strategies import check_strategy, check_strategy_by_name

__all__ = ["check_strategy", "check_strategy_by_name"]
