"""Initial weights: variance scaling, orthogonality, and their repair after pruning.

Rules are named here, where no torch is needed; `snas.initialization.variance.initialize` says what each does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from snas.errors import InputError

RULES = (
    "he",
    "glorot",
    "lecun",
    "he-truncated",
    "glorot-truncated",
    "lecun-truncated",
    "normal",
    "truncated",
    "orthogonal",
    "orthogonal-full",
    "as-built",
)
# The rules that can be given a standard deviation after a colon, "normal:0.02", and the one they have without.
DEVIATIONS = {"normal": 0.1, "truncated": 0.1}


class InitialRule(NamedTuple):
    """A rule for the initial weights.

    Attributes:
        name: one of `RULES`.
        deviation: standard deviation of all weights, where the rule says it itself, else None.
    """

    name: str
    deviation: float | None


def parse_rule(rule: str, what: str = "unknown initialization") -> InitialRule:
    """Read a rule's name, and the standard deviation after its colon.

    Args:
        rule: one of `RULES`; "normal" and "truncated" may be followed by a standard deviation, as in "normal:0.02".
        what: begins the error.

    Raises:
        InputError: for an unknown name, or a number that is not positive and finite.

    Example:
        >>> parse_rule("normal:0.02")
        InitialRule(name='normal', deviation=0.02)
        >>> parse_rule("he")
        InitialRule(name='he', deviation=None)
    """
    name, colon, number = str(rule).partition(":")
    if name in DEVIATIONS:
        try:
            deviation = float(number) if colon else DEVIATIONS[name]
        except ValueError:
            deviation = math.nan
        if math.isfinite(deviation) and deviation > 0:
            return InitialRule(name, deviation)
    elif rule in RULES:
        return InitialRule(name, None)
    numbered = " or ".join(f"{name}:STD" for name in DEVIATIONS)
    raise InputError(f"{what} {rule!r}; choices: {', '.join(RULES)}; also {numbered} with a number above 0 for STD")


def require_rule(rule: str) -> None:
    """Raise InputError unless `rule` is a rule for the initial weights; its number, if any, included."""
    parse_rule(rule, "init is")
