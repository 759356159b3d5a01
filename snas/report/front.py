"""Rows of a ranking that no other outdoes: none is at least as accurate at no more cost, and better in one of both.

How much a front covers is its hypervolume, the figure by which fronts are compared: the volume between it and a
reference point that nobody wants, a network that guesses and costs as much as the largest dense one of the ranking.
Accuracy is counted as a fraction above guessing, a cost in decades below the dense one: on a scale of weights
themselves nearly all the volume would lie between 100 % and 10 %, and a front at 1 % would not count.

[Zitzler1999] E. Zitzler and L. Thiele: Multiobjective evolutionary algorithms: a comparative case study and the
    strength Pareto approach, section III B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from snas.errors import InputError
from snas.exports import Group, Row
from snas.objectives import read_objectives
from snas.pareto import fronts, hypervolume

DEFAULT = "accuracy,kept_weights"


@dataclass(frozen=True)
class Reference:
    """The point that a hypervolume is measured from.

    Attributes:
        accuracy: of guessing, a fraction.
        costs: name -> that of the largest dense network.
    """

    accuracy: float
    costs: Mapping[str, float]


def read_pareto(text: str) -> tuple[str, ...]:
    """The costs of a front that a list with commas names, beside the accuracy.

    Raises:
        InputError: for an unknown objective, a list without the accuracy, or without a cost.

    Example:
        >>> read_pareto("accuracy,kept-weights")
        ('kept_weights',)
    """
    costs = read_objectives(text)
    if not costs:
        raise InputError(f"pareto is {text!r}; name a cost beside the accuracy, as in accuracy,kept_weights")
    return costs


def has_values(row: Row, costs: Sequence[str]) -> bool:
    """Whether the row can be on a front: all its seeds were tested, and its costs are known. A published figure can
    where it is ranked."""
    known = row.test_accuracy is not None and not row.failed and (row.rank is not None or not row.cited)
    return known and all(getattr(row, cost) > 0 for cost in costs)


def front_rows(rows: Sequence[Row], costs: Sequence[str]) -> tuple[Row, ...]:
    """The rows that no other row outdoes, the cheapest first."""
    able = [row for row in rows if has_values(row, costs)]
    levels = fronts([_values(row, costs) for row in able])
    found = [row for row, level in zip(able, levels, strict=True) if level == 0]
    return tuple(sorted(found, key=lambda row: (*(getattr(row, cost) for cost in costs), row.id)))


def volumes(rows: Sequence[Row], costs: Sequence[str], reference: Reference) -> dict[str, float]:
    """Hypervolume of all rows ("all"), and of those of each method alone, the largest first."""
    able = [row for row in rows if has_values(row, costs)]
    by_method: dict[str, list[list[float]]] = {}
    for row in able:
        by_method.setdefault(source_of(row), []).append(_above(row, costs, reference))
    point = [0.0] * (1 + len(costs))
    found = {name: hypervolume(values, point) for name, values in by_method.items()}
    everything = hypervolume([_above(row, costs, reference) for row in able], point)
    return {"all": everything, **dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))}


def front_group(group: Group, costs: Sequence[str], reference: Reference) -> Group:
    """The group with the rows of its front alone, and what they cover; without rows where none has been tested."""
    rows = front_rows(group.rows, costs)
    covered = volumes(group.rows, costs, reference)
    total, *single = (f"{name} {volume:.3f}" for name, volume in covered.items())
    dense = " and ".join(f"{value:,.0f} {cost.replace('_', ' ')}" for cost, value in reference.costs.items())
    words = (
        f"{len(rows)} of {len(group.rows)} rows are on the front, which no other row outdoes in accuracy and "
        f"{' and '.join(cost.replace('_', ' ') for cost in costs)}; hypervolume (accuracy above "
        f"{reference.accuracy:.3g}, times decades below {dense}): {total}; of each method alone: {', '.join(single)}"
    )
    return replace(group, subtitle=f"{group.subtitle}; {words}", rows=rows, hypervolume=covered)


def source_of(row: Row) -> str:
    """What a row's network came from, for legends: a strategy, or a method."""
    if row.kind == "searched":
        return f"searched ({row.strategy})" if row.strategy else "searched"
    return f"{row.method} (cited)" if row.cited else row.method


def _values(row: Row, costs: Sequence[str]) -> list[float]:
    return [float(row.test_accuracy or 0.0), *(-float(getattr(row, cost)) for cost in costs)]


def _above(row: Row, costs: Sequence[str], reference: Reference) -> list[float]:
    decades = (math.log10(reference.costs[cost] / getattr(row, cost)) for cost in costs)
    return [float(row.test_accuracy or 0.0) - reference.accuracy, *decades]
