"""What options of movements may be."""

from __future__ import annotations

import math

from snas.errors import InputError


def check_whole(what: str, value: int, low: int) -> None:
    """Raise InputError unless `value` is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"{what} is {value!r}; expected an integer of at least {low}")


def check_share(what: str, value: float) -> None:
    """Raise InputError unless 0 < `value` <= 1."""
    if not (math.isfinite(value) and 0 < value <= 1):
        raise InputError(f"{what} is {value}; expected 0 < {what} <= 1")


def check_fraction(what: str, value: float) -> None:
    """Raise InputError unless 0 < `value` < 1."""
    if not (math.isfinite(value) and 0 < value < 1):
        raise InputError(f"{what} is {value}; expected 0 < {what} < 1")


def check_not_negative(what: str, value: float) -> None:
    """Raise InputError unless `value` is finite and at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{what} is {value}; expected a finite number of at least 0")
