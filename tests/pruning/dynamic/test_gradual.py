from __future__ import annotations

import math

import pytest
import torch

from snas.errors import InputError
from snas.pruning.dynamic.gradual import Gradual


def kept_after_each_step(movement, support, goal, at) -> dict[int, int]:
    kept = {}
    for step in range(1, 101):
        movement.after_step(support, goal, at(step))
        kept[step] = int(support.masks["a"].sum())
    return kept


def values(number: int) -> list:
    return [[(index + 1) / number * (-1) ** index for index in range(number)]]


@pytest.mark.parametrize(("start", "end", "every"), [(0.0, 0.75, 5), (0.2, 0.8, 7), (0.0, 1.0, 100), (0.1, 0.9, 1)])
def test_the_number_of_weights_falls_with_equation_1(start, end, every, make_support, goal_of, at):
    support = make_support({"a": values(200)})
    movement = Gradual(start=start, end=end, every=every)
    kept = kept_after_each_step(movement, support, goal_of(support, 20), at)
    first, last, now = 100 * start, 100 * end, 200
    for step, number in kept.items():
        if step >= last:
            now = 20
        elif step > first and (step - first) % min(every, 10) == 0:
            now = math.floor(20 + 180 * (1 - (step - first) / (last - first)) ** 3 + 0.5)
        assert number == now, step
    assert torch.equal(support.masks["a"], torch.tensor(values(200)).abs() > 0.9)


@pytest.mark.parametrize(("share", "when"), [(0.0, 1), (0.4, 40), (1.0, 100)])
def test_a_schedule_without_length_prunes_once(share, when, make_support, goal_of, at):
    support = make_support({"a": values(50)})
    kept = kept_after_each_step(Gradual(start=share, end=share), support, goal_of(support, 7), at)
    assert kept == {step: 50 if step < when else 7 for step in kept}


def test_what_is_gone_stays_away(make_support, goal_of, at):
    support = make_support({"a": values(40)})
    movement, gone = Gradual(every=2), torch.zeros(1, 40, dtype=torch.bool)
    for step in range(1, 101):
        movement.after_step(support, goal_of(support, 4), at(step))
        assert not (support.masks["a"] & gone).any()
        gone |= ~support.masks["a"]
        with torch.no_grad():  # weights that were small grow, so that they would be chosen were they candidates
            support.weights["a"].copy_(torch.rand(1, 40, generator=torch.Generator().manual_seed(step)) + 0.1)


def test_the_random_control_keeps_others(make_support, goal_of, at):
    masks = []
    for score in ("magnitude", "random"):
        support = make_support({"a": values(40)})
        kept_after_each_step(Gradual(score=score), support, goal_of(support, 10), at)
        masks.append(support.masks["a"])
    assert int(masks[0].sum()) == int(masks[1].sum()) == 10
    assert not torch.equal(*masks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0.5, "end": 0.4}, "start is 0.5 and end is 0.4"),
        ({"end": 1.1}, "end is 1.1"),
        ({"start": float("nan")}, "start is nan"),
        ({"every": 0}, "every is 0"),
        ({"every": 1.5}, "every is 1.5"),
        ({"score": "snip"}, "'snip'"),
    ],
)
def test_options_out_of_range_are_told(options, message):
    with pytest.raises(InputError, match=message):
        Gradual(**options)
