"""Search strategies: what proposes the next densities."""

from snas.strategies.base import Strategy, make_strategy, strategies

__all__ = ["Strategy", "make_strategy", "strategies"]
