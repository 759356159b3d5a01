from __future__ import annotations

import math

import pytest
import torch

from snas.errors import DivergedError, InputError
from snas.pruning.dynamic.regrowth import RigL, Set


def test_rigl_drops_and_grows_as_worked_out_by_hand(make_support, goal_of, at):
    support = make_support({"a": [[0.9, -0.1, 0], [0.5, 0, 0.3]]})
    support.weights["a"].grad = torch.tensor([[5.0, 1.0, -2.0], [5.0, -3.0, 4.0]])
    # At 2 of 100 steps the share of 0.6 is 0.5994: of 4 weights, 2 go, -0.1 and 0.3. Among the four places that are
    # free then, the largest gradients are 4, where 0.3 was, and -3.
    assert RigL(fraction=0.6, every=2, until=1.0).before_step(support, goal_of(support), at(2))
    assert support.masks["a"].tolist() == [[True, False, False], [True, True, True]]
    torch.testing.assert_close(support.weights["a"].detach(), torch.tensor([[0.9, 0, 0], [0.5, 0, 0.3]]))
    momentum = support.optimizer.state[support.weights["a"]]["momentum_buffer"]
    assert momentum.tolist() == [[1, 0, 1], [1, 0, 1]]


def test_rigl_moves_a_share_that_falls_with_half_a_cosine(make_support, goal_of, at):
    support = make_support({"a": [[1.0] * 40 + [0.0] * 60]})
    generator = torch.Generator().manual_seed(0)
    movement, moved = RigL(every=5, until=0.75), {}
    for step in range(101):
        before = support.masks["a"]
        support.weights["a"].grad = torch.randn(1, 100, generator=generator)
        replaced = movement.before_step(support, goal_of(support), at(step))
        gone = int((before & ~support.masks["a"]).sum())
        assert int(support.masks["a"].sum()) == 40
        assert replaced or not gone
        if replaced:
            moved[step] = gone
    expected = {step: int(40 * 0.15 * (1 + math.cos(math.pi * step / 75))) for step in range(5, 75, 5)}
    assert moved.keys() == expected.keys()
    # some of those dropped come back at once: their gradient may be among the largest
    assert all(moved[step] <= number for step, number in expected.items())
    assert sum(moved.values()) > 0.6 * sum(expected.values())


def test_full_layers_and_layers_too_small_to_move_are_left_alone(make_support, goal_of, at):
    support = make_support({"a": [[1.0, 2.0]], "b": [[0.0, 3.0]]})
    for name in ("a", "b"):
        support.weights[name].grad = torch.ones(1, 2)
    assert RigL(fraction=0.9, every=1).before_step(support, goal_of(support), at(1))
    assert not support.moved
    assert support.weights["a"].tolist() == [[1, 2]]
    Set(zeta=0.6).after_epoch(support, goal_of(support), at(10))
    assert not support.moved
    assert support.weights["a"].tolist() == [[1, 2]]


def test_set_removes_of_each_sign_what_is_nearest_to_zero(make_support, goal_of, at):
    values = [[0.1, 0.2, 0.3, 0.4, -0.1, -0.2, 0, 0, 0, 0]]
    came = torch.zeros(10, dtype=torch.int64)
    for step in range(10, 100):
        support = make_support({"a": values})
        Set(zeta=0.5).after_epoch(support, goal_of(support), at(step))  # 2 of 4 positive, 1 of 2 negative
        mask = support.masks["a"][0]
        assert int(mask.sum()) == 6
        assert mask[[2, 3, 5]].all()
        kept = torch.tensor(values)[0] * mask
        assert torch.equal(support.weights["a"].detach()[0], kept)  # what came is zero
        came += mask
    # three of seven free places come, those just left included: 90 * 3 / 7 = 38.6 times each, deviation 4.7
    free = came[[0, 1, 4, 6, 7, 8, 9]]
    assert int(free.min()) > 38.6 - 4 * 4.7
    assert int(free.max()) < 38.6 + 4 * 4.7


def test_set_takes_new_weights_that_never_moved_away_first(make_support, goal_of, at):
    support = make_support({"a": [[0.0, 0.5, 0.7, 0.9] + [0.0] * 40]}, {"a": [[1, 1, 1, 1] + [0] * 40]})
    Set(zeta=0.3).after_epoch(support, goal_of(support), at(10))
    assert support.masks["a"][0, 1:4].all()
    assert int(support.masks["a"].sum()) == 4


def test_set_tells_nan_instead_of_pruning_it(make_support, goal_of, at):
    support = make_support({"a": [[1.0, 2.0, float("nan"), 4.0] + [0.0] * 40]})
    with pytest.raises(DivergedError, match="is NaN where the mask is to move"):
        Set().after_epoch(support, goal_of(support), at(10))


def test_set_rests_after_the_last_epoch(make_support, goal_of, at):
    support = make_support({"a": [[1.0, 2.0, 3.0, 4.0] + [0.0] * 40]})
    Set().after_epoch(support, goal_of(support), at(100))
    assert not support.moved
    Set().after_epoch(support, goal_of(support), at(90))
    assert support.moved


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Set, {"zeta": 0.0}, "zeta is 0.0"),
        (Set, {"zeta": 1.0}, "zeta is 1.0"),
        (RigL, {"fraction": 1.0}, "fraction is 1.0"),
        (RigL, {"every": 0}, "every is 0"),
        (RigL, {"until": 1.5}, "until is 1.5"),
        (RigL, {"until": 0.0}, "until is 0.0"),
    ],
)
def test_options_out_of_range_are_told(kind, options, message):
    with pytest.raises(InputError, match=message):
        kind(**options)
