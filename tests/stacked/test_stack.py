"""Networks side by side compute what each computes alone."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snas.search_spaces.base import SearchSpace
from snas.search_spaces.catalog import open_space
from snas.stacked import Stack, Unstackable, make_own
from snas.stacked import stack as stack_module

IMAGE, VECTOR = (3, 8, 8), (12,)


def space_of(name: str, shape: Sequence[int] = IMAGE, **arguments: object) -> SearchSpace:
    return open_space(name, input_shape=tuple(shape), classes=4, arguments=arguments)


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Sequence[int]]] = {
    "mlp of cells": (space_of("mlp", hidden_layers=3, width=16).factory, IMAGE),
    "mlp with SReLU": (space_of("mlp", hidden_layers=2, width=16, activation="srelu").factory, IMAGE),
    "resnet14": (space_of("resnet14", width=4).factory, IMAGE),
    "resnet14 with padded shortcuts": (space_of("resnet14", width=4, shortcut="padding").factory, IMAGE),
    "lenet-300-100": (space_of("lenet-300-100").factory, IMAGE),
    "group normalization": (
        lambda: network(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(4), nn.Flatten(), nn.Linear(144, 4)),
        IMAGE,
    ),
    "one-dimensional convolution": (
        lambda: network(
            nn.Unflatten(1, (-1, 6)), nn.Conv1d(2, 4, 3, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 4)
        ),
        VECTOR,
    ),
    "batch normalization without averages": (
        lambda: network(nn.Linear(12, 6), nn.BatchNorm1d(6, affine=False, track_running_stats=False), nn.Linear(6, 4)),
        VECTOR,
    ),
}


def members_of(factory: Callable[[], nn.Module], number: int) -> list[nn.Module]:
    torch.manual_seed(7)
    members = [factory().double() for _ in range(number)]
    for member in members:
        for tensor in (*member.parameters(), *member.buffers()):
            if tensor.is_floating_point():
                tensor.data.add_(0.3 * torch.rand_like(tensor))
    return members


@pytest.mark.parametrize("name", ["mlp of cells", "resnet14", "group normalization"])
@pytest.mark.parametrize("slots", [1, 3])
def test_outputs_gradients_and_statistics_are_those_of_each_alone(name: str, slots: int) -> None:
    factory, shape = NETWORKS[name]
    members = members_of(factory, slots)
    alone = copy.deepcopy(members)
    stack = Stack(factory(), shape)
    stack.bind(members)
    x = torch.randn(5, slots, *shape, dtype=torch.float64)
    together = stack(x)
    stack.backward(together.sin().sum())
    for slot, single in enumerate(alone):
        out = single(x[:, slot])
        out.sin().sum().backward()
        torch.testing.assert_close(together[:, slot], out, rtol=1e-11, atol=1e-11)
        for own, other in zip(members[slot].parameters(), single.parameters(), strict=True):
            assert own.grad is not None
            assert other.grad is not None
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-11)
        for (key, own_buffer), other_buffer in zip(members[slot].named_buffers(), single.buffers(), strict=True):
            torch.testing.assert_close(own_buffer, other_buffer, rtol=1e-11, atol=1e-11, msg=key)


@pytest.mark.parametrize("name", ["mlp of cells", "resnet14"])
def test_what_is_compiled_is_so_once_for_each_shape_of_a_batch_whoever_comes_and_goes(name: str) -> None:
    factory, shape = NETWORKS[name]
    members = members_of(factory, 5)
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    stack, plain = Stack(factory(), shape), Stack(factory(), shape)
    stack.compile(backend=backend)
    for group in ([0, 1, 2], [3, 4, 1], [2], [4, 0]):
        own = [members[number] for number in group]
        others = copy.deepcopy(own)
        stack.bind(own, width=3)
        plain.bind(others)
        for batch in (6, 4, 6):
            x = torch.randn(batch, len(group), *shape, dtype=torch.float64)
            found, expected = stack(x), plain(x)
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
            stack.backward(found.sin().sum())
            plain.backward(expected.sin().sum())
            for one, other in zip(own, others, strict=True):
                for (key, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
                    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-11, msg=key)
                for (key, a), b in zip(one.named_buffers(), other.buffers(), strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11, msg=key)
    assert len(graphs) == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_stack_prove_it(name: str) -> None:
    factory, shape = NETWORKS[name]
    Stack(factory(), shape)


@pytest.mark.parametrize("few", [0.0, 1.0])
def test_masked_layers_have_the_gradients_of_kept_weights(few: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "FEW", few)
    torch.manual_seed(3)
    members = [network(nn.Linear(12, 6), nn.BatchNorm1d(6), nn.PReLU(), nn.Linear(6, 4)) for _ in range(3)]
    names = ("0", "3")
    masks = []
    for member in members:
        own = {name: torch.rand_like(member.get_submodule(name).weight) < 0.4 for name in names}  # type: ignore[arg-type]
        masks.append(own)
        with torch.no_grad():
            for name, mask in own.items():
                member.get_parameter(f"{name}.weight").mul_(mask)
    alone = copy.deepcopy(members)
    stack = Stack(members[0], VECTOR)
    stack.bind(members, masks)
    for _ in range(2):  # the second pass finds the first one's gradients
        x = torch.randn(5, 3, 12)
        together = stack(x)
        stack.backward(together.sin().sum())
        for slot, single in enumerate(alone):
            single.zero_grad()
            single(x[:, slot]).sin().sum().backward()
            for name, own in members[slot].named_parameters():
                expected = single.get_parameter(name).grad
                assert own.grad is not None
                assert expected is not None
                mask = masks[slot].get(name.removesuffix(".weight"))
                if mask is not None:
                    expected = expected * mask
                    assert few == 0.0 or not own.grad[~mask].any()
                torch.testing.assert_close(own.grad * (1 if mask is None else mask), expected, rtol=1e-4, atol=1e-6)


def test_what_is_done_to_a_network_is_done_to_the_stack_until_it_goes() -> None:
    factory, shape = NETWORKS["mlp of cells"]
    members = members_of(factory, 2)
    stack = Stack(factory(), shape)
    stack.bind(members)
    x = torch.randn(5, 2, *shape, dtype=torch.float64)
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.zero_()
    assert stack(x)[:, 1].abs().max() == 0
    make_own(members[0])
    before = stack(x)
    with torch.no_grad():
        for parameter in members[0].parameters():
            parameter.zero_()
    assert torch.equal(stack(x), before)


def test_a_network_that_is_not_a_number_leaves_its_neighbours_alone() -> None:
    factory, shape = NETWORKS["resnet14"]
    members = members_of(factory, 2)
    stack = Stack(factory(), shape)
    stack.bind(members)
    x = torch.randn(5, 2, *shape, dtype=torch.float64)
    expected = stack(x)[:, 1].detach()
    with torch.no_grad():
        next(members[0].parameters()).fill_(float("nan"))
    out = stack(x)
    stack.backward(out.sum())
    assert out[:, 0].isnan().all()
    assert torch.equal(out[:, 1], expected)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in members[1].parameters())


class Mixing(nn.Module):
    """Looks across all channels, and would mix the networks."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class Own(nn.Module):
    """Has a parameter of its own, outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale * self.layer(x)
        return out


class Tied(nn.Module):
    """Uses one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.second(self.first(x)))
        return out


class Counting(nn.Module):
    """Remembers how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(12, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.layer(x)
        return out


class Locked(Counting):
    """Has something that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (lambda: network(nn.Linear(12, 6), Mixing(), nn.Linear(6, 4)), "what each computes alone"),
        (lambda: network(nn.Linear(12, 6), nn.Dropout(0.1), nn.Linear(6, 4)), "layer '1' drops units"),
        (lambda: network(nn.Linear(12, 6), nn.Softmax(1), nn.Linear(6, 4)), "what each computes alone"),
        (lambda: network(nn.Linear(12, 6), nn.LayerNorm(6), nn.Linear(6, 4)), "LayerNorm, which has no twin"),
        (Own, "the network itself is a Own, which has no twin"),
        (Tied, "share a parameter"),
        (Counting, "remember something"),
        (Locked, "cannot be copied"),
    ],
)
def test_what_does_not_stack_is_found_out(factory: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(Unstackable, match=reason):
        Stack(factory(), VECTOR)


def test_making_a_stack_leaves_the_network_and_random_numbers_as_they_are() -> None:
    factory, shape = NETWORKS["resnet14"]
    model = factory()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    Stack(model, shape)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
