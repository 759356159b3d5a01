from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from snas.graphs import Flat
from snas.training.rule import TrainingRule

OPTIMIZERS = ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 2)).double()


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.copy_(gradient)


def same_state(one: nn.Module, its: torch.optim.Optimizer, two: nn.Module, other: torch.optim.Optimizer) -> None:
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)  # kernels end rows with other instructions
        assert its.state[a].keys() == other.state[b].keys()
        for key, value in its.state[a].items():
            expected = other.state[b][key]
            if torch.is_tensor(value):
                torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
            else:
                assert value == expected, key


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_one_row_is_stepped_as_parameters_apart_are(optimizer, momentum):
    rule = TrainingRule(epochs=1, optimizer=optimizer, **({"momentum": momentum} if optimizer == "sgd" else {}))
    apart, together = network(), network()
    usual, own = rule.make_optimizer(apart.parameters()), rule.make_optimizer(together.parameters())
    for seed in range(3):  # apart at first, so that there is a state to take over
        give_gradients(apart, seed)
        give_gradients(together, seed)
        usual.step()
        own.step()
    for _ in range(2):
        flat = Flat(together.parameters(), own, rule.make_optimizer)
        for seed in range(3, 6):
            give_gradients(apart, seed)
            give_gradients(together, seed)
            for group in usual.param_groups:
                group["lr"] = 0.01 * seed
            usual.step()
            flat.step(0.01 * seed)
        flat.hand_back()
        assert flat.holds()
        same_state(together, own, apart, usual)
    usual.step()
    for group in own.param_groups:
        group["lr"] = usual.param_groups[0]["lr"]
    own.step()  # apart again
    same_state(together, own, apart, usual)


def flat_of(model: nn.Module) -> tuple[Flat, torch.optim.Optimizer]:
    rule = TrainingRule(epochs=1, optimizer="adam")
    own = rule.make_optimizer(model.parameters())
    flat = Flat(model.parameters(), own, rule.make_optimizer)
    give_gradients(model, 0)
    flat.step(0.1)
    flat.hand_back()
    return flat, own


@pytest.mark.parametrize("change", ["weight", "gradient", "moment", "count", "nothing"])
def test_what_was_changed_from_outside_is_noticed(change):
    model = network()
    flat, own = flat_of(model)
    weight = model[0].weight
    if change == "weight":
        weight.data = weight.data.clone()
    elif change == "gradient":
        weight.grad = None
    elif change == "moment":
        own.state[weight]["exp_avg"] = own.state[weight]["exp_avg"].clone()
    elif change == "count":
        own.state[weight]["step"] += 1
    assert flat.holds() is (change == "nothing")


def test_values_in_place_go_through():
    model = network()
    flat, _ = flat_of(model)
    copied = copy.deepcopy(model.state_dict())
    model.load_state_dict(copied)
    assert flat.holds()


def test_parameters_of_which_some_were_never_stepped_are_refused():
    model = network()
    own = torch.optim.Adam(model.parameters())
    model[0].weight.grad = torch.ones_like(model[0].weight)
    own.step()
    with pytest.raises(ValueError, match="stepped"):
        Flat(model.parameters(), own, torch.optim.Adam)


def test_factors_are_laid_out_beside_ones():
    model = network()
    flat, _ = flat_of(model)
    mask = torch.zeros(4, 3)
    row = flat.laid_out(lambda parameter: mask if parameter is model[0].weight else None)
    assert row is not None
    assert row.tolist() == [0.0] * 12 + [1.0] * (4 + 1 + 8 + 2)
    assert flat.laid_out(lambda parameter: None) is None
