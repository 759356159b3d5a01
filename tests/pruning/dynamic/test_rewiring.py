from __future__ import annotations

import math

import pytest
import torch

from snas.errors import InputError
from snas.pruning.dynamic.rewiring import DeepR


def started(support, goal_of, at, seed: int = 7, **options) -> DeepR:
    movement = DeepR(**options)
    movement.before_epoch(support, goal_of(support), at(0, seed=seed))
    return movement


def put(support, values: list) -> None:
    with torch.no_grad():
        support.weights["a"].copy_(torch.tensor(values))


def test_weights_that_change_their_sign_go_and_as_many_come_at_zero(make_support, goal_of, at):
    came = torch.zeros(8, dtype=torch.int64)
    for seed in range(200):
        support = make_support({"a": [[1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0]]})
        movement = started(support, goal_of, at, seed, alpha=0.0, temperature=0.0)
        put(support, [[0.5, 0.5, -0.5, -0.5, 0.0, 0.0, 0.0, 0.0]])  # the second and the third have crossed zero
        movement.after_step(support, goal_of(support), at(1))
        mask = support.masks["a"][0]
        assert int(mask.sum()) == 4
        assert mask[[0, 3]].all()
        assert support.weights["a"].tolist() == [[0.5, 0, 0, -0.5, 0, 0, 0, 0]]
        came += mask
    free = came[[1, 2, 4, 5, 6, 7]]  # 2 of 6 places each time, those just left included: 66.7 times, deviation 6.7
    assert int(free.min()) > 66.7 - 4 * 6.7
    assert int(free.max()) < 66.7 + 4 * 6.7


def test_signs_of_places_are_random_kept_and_those_of_the_initial_weights(make_support, goal_of, at):
    support = make_support({"a": [[3.0, -2.0] + [0.0] * 998]})
    movement = started(support, goal_of, at)
    signs = movement.tensors()["a"]
    assert signs[0, :2].tolist() == [1, -1]
    assert set(signs.unique().tolist()) == {-1, 1}
    assert abs(int(signs.sum())) < 4 * math.sqrt(1000)
    again = DeepR()
    again.load_tensors(movement.tensors())
    again.before_epoch(support, goal_of(support), at(10))
    assert torch.equal(again.tensors()["a"], signs)


def test_a_new_weight_keeps_to_the_sign_of_its_place(make_support, goal_of, at):
    support = make_support({"a": [[1.0, 0.0]]}, {"a": [[1, 1]]})
    movement = started(support, goal_of, at, alpha=0.0, temperature=0.0)
    sign = float(movement.tensors()["a"][0, 1])
    put(support, [[1.0, 0.2 * sign]])
    movement.after_step(support, goal_of(support), at(1))
    assert support.weights["a"][0, 1].item() == pytest.approx(0.2 * sign)
    put(support, [[1.0, -0.2 * sign]])
    movement.after_step(support, goal_of(support), at(2))
    # The layer is full: the place just left is the only free one. It comes back as a new weight.
    assert support.weights["a"].tolist() == [[1, 0]]
    assert support.masks["a"].all()
    assert support.optimizer.state[support.weights["a"]]["momentum_buffer"].tolist() == [[1, 0]]


def test_weights_shrink_by_the_learning_rate_times_alpha(make_support, goal_of, at):
    support = make_support({"a": [[1.0, -2.0, 0.0]]})
    movement = started(support, goal_of, at, alpha=0.1, temperature=0.0)
    movement.after_step(support, goal_of(support), at(1, learning_rate=0.5))
    torch.testing.assert_close(support.weights["a"].detach(), torch.tensor([[0.95, -1.95, 0.0]]))


def test_noise_has_the_variance_of_the_temperature_and_shakes_kept_weights_only(make_support, goal_of, at):
    support = make_support({"a": [[100.0] * 4000 + [0.0] * 100]})
    movement = started(support, goal_of, at, alpha=0.0, temperature=0.02)
    movement.after_step(support, goal_of(support), at(1, learning_rate=0.25))
    shaken = support.weights["a"].detach()[0, :4000] - 100
    assert float(shaken.std()) == pytest.approx(math.sqrt(2 * 0.25 * 0.02), rel=0.05)
    assert abs(float(shaken.mean())) < 4 * 0.1 / math.sqrt(4000)
    assert not support.weights["a"][0, 4000:].any()


def test_conv_weights_laid_out_by_channels_are_rewired_the_same(make_support, goal_of, at):
    """Memory layout must not decide which weight is shaken by which number."""
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        support = make_support({"a": [[1.0]]})
        weight = torch.nn.Parameter(torch.ones(3, 4, 2, 2).to(memory_format=layout))
        support.weights, support.masks = {"a": weight}, {"a": torch.rand(3, 4, 2, 2, generator=seeded()) < 0.5}
        support.factors = {"a": torch.zeros_like(weight).copy_(support.masks["a"])}
        with torch.no_grad():
            weight.mul_(support.factors["a"])
        movement = started(support, goal_of, at, temperature=1.0)
        movement.after_step(support, goal_of(support), at(1))
        results.append((support.masks["a"], weight.detach().contiguous()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"alpha": float("inf")}, {"temperature": -1e-9}])
def test_options_out_of_range_are_told(options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name} is"):
        DeepR(**options)
