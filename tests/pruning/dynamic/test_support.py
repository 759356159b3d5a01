from __future__ import annotations

import pytest
import torch

from snas.densities import Layer
from snas.masks import Masks
from snas.pruning.dynamic.base import Clock
from snas.pruning.dynamic.support import Support
from snas.pruning.scores import Batch
from snas.training.rule import TrainingRule

OPTIMIZERS = ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def trained(name: str) -> Support:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    optimizer = TrainingRule(optimizer=name, lr=0.1).make_optimizer(model.parameters())
    layer = Layer("0", (2, 3))
    support = Support(model, Masks.dense([layer]), optimizer, Batch(torch.arange(5.0), torch.arange(5)))
    steps(model, optimizer, 3, seed=0)
    return support


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_comes_or_goes_is_zero_with_fresh_moments_and_the_rest_stays(name):
    support = trained(name)
    weight = support.weights["0"]
    before = weight.detach().clone()
    moments = {
        key: value.clone() for key, value in support.optimizer.state[weight].items() if value.shape == weight.shape
    }
    assert moments
    support.move({"0": torch.tensor([[True, False, True], [True, True, False]])})
    goes = torch.tensor([[False, True, False], [False, False, True]])
    assert torch.equal(weight.detach(), before.masked_fill(goes, 0))
    for key, value in moments.items():
        assert value[goes].any()
        assert torch.equal(support.optimizer.state[weight][key], value.masked_fill(goes, 0))
    steps(support.model, support.optimizer, 1, seed=1)
    assert weight[goes].any()  # nobody masked the gradient: something to take away when they come back
    support.move({"0": torch.ones(2, 3, dtype=torch.bool)})
    assert not weight[goes].any()
    assert all(not support.optimizer.state[weight][key][goes].any() for key in moments)
    assert weight[~goes].all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_forgets_steps_as_a_new_one(name):
    support, other = trained(name), torch.nn.Sequential(torch.nn.Linear(3, 2))
    other.load_state_dict(support.model.state_dict())
    support.forget()
    new = TrainingRule(optimizer=name, lr=0.1).make_optimizer(other.parameters())
    steps(support.model, support.optimizer, 2, seed=5)
    steps(other, new, 2, seed=5)
    for one, two in zip(support.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_exchanged_is_new_even_where_it_comes_back(name):
    support = trained(name)
    support.move({"0": torch.tensor([[True, True, True], [True, False, False]])})
    weight, moments = support.weights["0"], support.optimizer.state[support.weights["0"]]
    before, frozen = weight.detach().clone(), support.freeze()
    support.moved = False
    support.exchange("0", torch.tensor([0, 2]), torch.tensor([2, 4]))  # numbers along the rows of 2 x 3
    assert support.moved
    assert support.masks["0"].tolist() == [[False, True, True], [True, True, False]]
    assert support.factors["0"].tolist() == [[0, 1, 1], [1, 1, 0]]
    assert frozen["0"].tolist() == [[True, True, True], [True, False, False]]  # what was taken note of stays
    new = torch.tensor([[True, False, True], [False, True, False]])
    assert torch.equal(weight.detach(), before.masked_fill(new, 0))
    assert all(not moment[new].any() for moment in moments.values() if moment.shape == weight.shape)


def test_gradients_of_masked_weights_are_masked_as_the_mask_is_now(make_support):
    support = make_support({"a": [[1, 2, 0]]})
    support.move({"a": torch.tensor([[False, True, True]])})
    support.weights["a"].grad = torch.ones(1, 3)
    support.mask_gradients()
    assert support.weights["a"].grad.tolist() == [[0, 1, 1]]
    assert support.freeze()["a"].tolist() == [[False, True, True]]
    assert support.moved


def test_a_mask_that_is_the_same_has_not_moved(make_support):
    support = make_support({"a": [[1, 2, 0]]})
    support.move({"a": torch.tensor([[True, True, False]])})
    assert not support.moved


def test_batches_are_drawn_without_return():
    support = trained("sgd")
    batch = support.batch(3, generator=torch.Generator().manual_seed(1))
    assert len(set(batch.y.tolist())) == 3
    assert torch.equal(batch.x, batch.y.float())
    assert support.batch(0, generator=torch.Generator()).y.tolist() == [0, 1, 2, 3, 4]


def test_time_is_told_in_steps_and_shares():
    def clock(step: int, place: int | None = None) -> Clock:
        place = step if place is None else place
        return Clock(step=step, cycle=0, place=place, steps_per_epoch=10, epochs=4, learning_rate=0.1, seed=0)

    assert [step for step in range(41) if clock(step).due(4)] == [*range(4, 41, 4)]
    assert [step for step in range(41) if clock(step).due(100)] == [10, 20, 30, 40]  # an epoch is the longest wait
    tiny = [Clock(step, 0, step, steps_per_epoch=1, epochs=40, learning_rate=0.1, seed=0) for step in range(41)]
    assert [one.step for one in tiny if one.due(100)] == [10, 20, 30, 40]  # of an epoch of one step, ten are
    assert [one.step for one in tiny if one.due(2)] == [*range(2, 41, 2)]  # unless fewer are asked for
    assert [clock(step).progress for step in (0, 10, 40)] == [0, 0.25, 1]
    assert clock(100, place=20).progress == 0.5
    draws = {int(torch.randint(2**40, (), generator=clock(step).generator())) for step in (1, 1, 2, 3)}
    assert len(draws) == 3
