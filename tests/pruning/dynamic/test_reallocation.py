from __future__ import annotations

import pytest
import torch

from snas.errors import DivergedError, InputError
from snas.pruning.dynamic.reallocation import Dsr, Snfs


def test_dsr_shares_growth_by_survivors_as_worked_out_by_hand(make_support, goal_of, at):
    big, small = 0.5, 0.01
    weights = {
        "a": [[big] * 6 + [small] * 2 + [0.0] * 12],
        "b": [[-big] * 2 + [-small] * 4 + [0.0] * 14],
    }
    support = make_support(weights)
    movement = Dsr(threshold=0.02, every=1, fraction=0.4)
    movement.after_step(support, goal_of(support), at(1))
    # 6 of 14 go: 2 of a, 4 of b; 6 and 2 survive, so that 6 * 6 / 8 = 4.5 and 6 * 2 / 8 = 1.5 come: 5 and 1, the first
    # of equal remainders rounded up.
    assert support.kept() == {"a": 11, "b": 3}
    assert support.masks["a"][0, :6].all()
    assert support.masks["b"][0, :2].all()
    assert int(torch.count_nonzero(support.weights["a"])) in range(6, 9)  # a small one may have come back as it was
    # wanted were 5.6, and 6 is within a tenth of that
    assert movement.tensors()["threshold"].item() == 0.02


@pytest.mark.parametrize(("fraction", "factor"), [(0.2, 0.5), (0.45, 0.5), (0.46, 1.0), (0.55, 1.0), (0.56, 2.0)])
def test_dsr_adapts_the_threshold(fraction, factor, make_support, goal_of, at):
    support = make_support({"a": [[1.0] * 5 + [0.001] * 5 + [0.0] * 90]})  # half of it goes
    movement = Dsr(threshold=0.01, fraction=fraction, every=1)
    movement.after_step(support, goal_of(support), at(1))
    assert movement.tensors()["threshold"].item() == 0.01 * factor
    again = Dsr()
    again.load_tensors(movement.tensors())
    assert again.tensors()["threshold"].item() == 0.01 * factor


def test_dsr_gives_what_a_full_layer_cannot_take_to_the_others(make_support, goal_of, at):
    support = make_support({"a": [[1.0] * 9 + [0.001]], "b": [[1.0] + [0.001] * 7 + [0.0] * 32]})
    # 8 go: a has room for 1, claims 8 * 9 / 10 = 7.2; b takes the other 7.
    Dsr(threshold=0.01, every=1).after_step(support, goal_of(support), at(1))
    assert support.kept() == {"a": 10, "b": 8}


def test_dsr_empties_no_layer_and_leaves_pinned_ones_their_number(make_support, goal_of, at):
    support = make_support({"a": [[0.1, 0.3, 0.2] + [0.0] * 50], "b": [[5.0] * 10 + [0.0] * 90]})
    Dsr(threshold=1.0, every=1).after_step(support, goal_of(support), at(1))
    assert support.masks["a"][0, 1]  # the largest survives
    assert support.kept() == {"a": 1, "b": 12}  # 2 go, shared 1 to 10: 0.18 and 1.8
    support = make_support({"a": [[0.1, 0.3, 0.2] + [0.0] * 50], "b": [[5.0] * 10 + [0.0] * 90]})
    Dsr(threshold=1.0, every=1).after_step(support, goal_of(support, pinned={"a": 3 / 53}), at(1))
    assert support.kept() == {"a": 3, "b": 10}
    assert support.moved


def test_dsr_leaves_nan_to_the_loss_instead_of_pruning_it(make_support, goal_of, at):
    support = make_support({"a": [[1.0, 0.001, float("nan")] + [0.0] * 40]})
    Dsr(threshold=0.01, every=1).after_step(support, goal_of(support), at(1))
    assert support.weights["a"].isnan().nonzero().tolist() == [[0, 2]]
    assert support.kept() == {"a": 3}


def test_dsr_moves_when_it_is_time_and_not_after(make_support, goal_of, at):
    support = make_support({"a": [[1.0] * 5 + [0.0001] * 5 + [0.0] * 90]})
    times = []
    for step in range(1, 101):
        before = support.masks["a"]
        Dsr(every=7, until=0.5).after_step(support, goal_of(support), at(step))
        if not torch.equal(before, support.masks["a"]):
            times.append(step)
        assert support.kept() == {"a": 10}
    assert times == [7, 14, 21, 28, 35, 42, 49]


def smooth(movement, support, goal, at, gradients: dict[str, list]) -> None:
    for name, values in gradients.items():
        support.weights[name].grad = torch.tensor(values)
    assert not movement.before_step(support, goal, at(0))


def test_snfs_shares_growth_by_momentum_as_worked_out_by_hand(make_support, goal_of, at):
    support = make_support(
        {"a": [[0.9, 0.8, 0.1, 0.2, 0.0, 0.0, 0.0, 0.0]], "b": [[0.7, -0.3, 0.5, -0.6, 0.0, 0.0, 0.0, 0.0]]}
    )
    movement, goal = Snfs(fraction=0.5, decay="linear"), goal_of(support)
    smooth(
        movement, support, goal, at,
        {"a": [[3.0, 3.0, -3.0, 3.0, 0.0, 7.0, -9.0, 8.0]], "b": [[1.0, -1.0, 1.0, 1.0, 40.0, 0.0, -50.0, 0.0]]},
    )  # fmt: skip
    # After 1 of 10 epochs the share is 0.45, rounded up: 2 of 4 go in each layer, 0.1 and 0.2, -0.3 and 0.5. The mean
    # magnitudes of what the layers had are 3 and 1: of 4, 3 come in a, where 9, 8 and 7 are, and 1 in b, where 50 is.
    movement.after_epoch(support, goal, at(10))
    assert support.masks["a"].int().tolist() == [[1, 1, 0, 0, 0, 1, 1, 1]]
    assert support.masks["b"].int().tolist() == [[1, 0, 0, 1, 0, 0, 1, 0]]
    assert support.weights["a"].tolist() == [[pytest.approx(0.9), pytest.approx(0.8), 0, 0, 0, 0, 0, 0]]


def test_snfs_smooths_the_gradients_of_all_weights(make_support, goal_of, at):
    support = make_support({"a": [[1.0, 0.0]]})
    movement = Snfs(beta=0.8)
    expected = torch.zeros(1, 2)
    for value in (1.0, -2.0, 5.0):
        smooth(movement, support, goal_of(support), at, {"a": [[value, 3 * value]]})
        expected = 0.8 * expected + 0.2 * torch.tensor([[value, 3 * value]])
    torch.testing.assert_close(movement.tensors()["a"], expected)
    again = Snfs(beta=0.8)
    again.load_tensors(movement.tensors())
    smooth(again, support, goal_of(support), at, {"a": [[1.0, 1.0]]})
    torch.testing.assert_close(again.tensors()["a"], 0.8 * expected + 0.2)
    torch.testing.assert_close(movement.tensors()["a"], expected)  # not shared with the one restored from it


@pytest.mark.parametrize(("decay", "shares"), [("linear", [0.45, 0.25, 0.05]), ("cosine", [0.4878, 0.25, 0.0122])])
def test_snfs_moves_a_share_that_decays(decay, shares, make_support, goal_of, at):
    for epoch, share in zip((1, 5, 9), shares, strict=True):
        support = make_support({"a": [[1.0 + index for index in range(100)] + [0.0] * 100]})
        movement = Snfs(decay=decay)
        smooth(movement, support, goal_of(support), at, {"a": [[0.0] * 100 + [1.0] * 100]})
        movement.after_epoch(support, goal_of(support), at(10 * epoch))
        gone = int((~support.masks["a"][0, :100]).sum())
        assert gone == pytest.approx(100 * share, abs=1)
        assert support.kept() == {"a": 100}


def test_snfs_empties_no_layer_rests_at_the_end_and_leaves_pinned_ones_their_number(make_support, goal_of, at):
    weights = {"a": [[0.1, 0.2, 0.0, 0.0, 0.0, 0.0]], "b": [[5.0, 6.0, 7.0, 8.0] + [0.0] * 20]}
    gradients = {"a": [[0.0] * 6], "b": [[2.0] * 24]}
    support = make_support(weights)
    movement = Snfs(fraction=0.99)
    smooth(movement, support, goal_of(support), at, gradients)
    movement.after_epoch(support, goal_of(support), at(100))
    assert not support.moved
    movement.after_epoch(support, goal_of(support), at(10))
    assert support.kept() == {"a": 1, "b": 5}
    assert support.masks["a"][0, 1]
    support = make_support(weights)
    movement.after_epoch(support, goal_of(support, pinned={"a": 2 / 6}), at(10))
    assert support.kept() == {"a": 2, "b": 4}


def test_gradients_that_are_not_finite_are_told(make_support, goal_of, at):
    support = make_support({"a": [[1.0, 2.0, 0.0]], "b": [[1.0, 2.0, 0.0]]})
    movement = Snfs()
    smooth(movement, support, goal_of(support), at, {"a": [[float("nan")] * 3], "b": [[1.0] * 3]})
    with pytest.raises(DivergedError):
        movement.after_epoch(support, goal_of(support), at(10))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Dsr, {"fraction": 0.0}, "fraction is 0.0"),
        (Dsr, {"threshold": 0.0}, "threshold is 0"),
        (Dsr, {"threshold": -1.0}, "threshold is -1.0"),
        (Dsr, {"tolerance": 1.0}, "tolerance is 1.0"),
        (Dsr, {"every": True}, "every is True"),
        (Dsr, {"until": 2.0}, "until is 2.0"),
        (Snfs, {"fraction": 1.0}, "fraction is 1.0"),
        (Snfs, {"beta": 1.0}, "beta is 1.0"),
        (Snfs, {"decay": "step"}, "decay is 'step'"),
    ],
)
def test_options_out_of_range_are_told(kind, options, message):
    with pytest.raises(InputError, match=message):
        kind(**options)
