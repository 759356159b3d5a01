"""The example of a strategy of one's own keeps the contract. The file itself is run with the other examples."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from snas.strategies.base import make_strategy, strategies
from snas.testing import check_strategy

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_strategy.py"


def test_the_example_keeps_the_contract(monkeypatch: pytest.MonkeyPatch):
    strategies.names()
    monkeypatch.setattr(strategies, "_members", {**strategies._members})
    example = runpy.run_path(str(EXAMPLE))
    check_strategy(example["HillClimber"])
    assert make_strategy("hill-climber", {"step": "0.3"}).step == 0.3
